"""Messages of the market: announces, bids, tallies, awards and outcomes (DESIGN 4, 5)."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

from msgspec import Meta

from .fields import Addresses, Amount, Count, Evidence, Message, Micro, Millis, Ppm, Sig, Text, Window, Word
from .limits import (
    BIDS_MAX,
    COMMITTEE_MAX,
    DATASETS_MAX,
    GENERATED_TOKEN_UNITS,
    HANDOVER_ROUNDS_MAX,
    HANDOVERS_MAX,
    MICRO,
    PRICE_PER_SEAT_MIN,
    PROMPT_TOKEN_UNITS,
    PROMPTS_MAX,
    ROUNDS_MAX,
    SAMPLES_MAX,
    SEGMENTS_MAX,
    SETTLE_ROUNDS_MAX,
)
from .spec import Bytes32, CidText


class ScoreWeights(Message, frozen=True):
    """Parts per million, together 10^6; the four that a bidder merely claims weigh at most 10 % (DESIGN 5)."""

    price_ppm: Ppm = 600_000
    reputation_ppm: Ppm = 200_000
    stake_ppm: Ppm = 100_000
    device_ppm: Ppm = 30_000
    locality_ppm: Ppm = 40_000
    memory_ppm: Ppm = 10_000
    queue_ppm: Ppm = 20_000

    def __post_init__(self) -> None:
        claimed = self.device_ppm + self.locality_ppm + self.memory_ppm + self.queue_ppm
        if claimed > 100_000:
            raise ValueError("device, locality, memory and queue weigh more than 100000 ppm together")
        if claimed + self.price_ppm + self.reputation_ppm + self.stake_ppm != MICRO:
            raise ValueError("the weights do not add up to 1000000 ppm")


class InferTerms(Message, frozen=True):
    """What bidders learn of an inference: the model, and how much is to be read and written at most."""

    model: Bytes32
    backend: Bytes32
    prompt_tokens: Annotated[int, Meta(ge=1, le=2**28)]
    """At least `inference.prompt_tokens_most` of the task; the spec is refused when it needs more."""
    generated_tokens: Annotated[int, Meta(ge=1, le=2**28)]


class JobAnnounce(Message, frozen=True):
    """A funded job looks for a worker. The escrow account `job` must exist and agree with this."""

    job: Bytes32
    kind: Literal["train", "infer"]
    spec_hash: Bytes32
    nonce: Bytes32
    sent_at_ms: Millis
    program: Bytes32
    execution_class: Bytes32
    device: Literal["any", "cpu", "cuda"]
    memory_mb: Count
    region: Word
    unsandboxed_ok: bool
    datasets: Annotated[tuple[CidText, ...], Meta(max_length=DATASETS_MAX)]
    work_mflop: Millis
    """Rough work of the whole job in 10^6 floating-point operations, for estimates."""
    budget: Amount
    reserve: Amount
    work_deadline_s: Millis
    commit_window_ms: Window
    reveal_window_ms: Window
    round_ms: Window
    weights: ScoreWeights
    k: Literal[3, 5, 7]
    segments: Annotated[int, Meta(ge=1, le=SEGMENTS_MAX)]
    """Of an inference: its prompts, each of which is checked by every member."""
    samples: Annotated[int, Meta(ge=1, le=SAMPLES_MAX)]
    addresses: Addresses
    inference: InferTerms | None = None

    def __post_init__(self) -> None:
        if (self.kind == "infer") != (self.inference is not None):
            raise ValueError("kind infer goes with the terms of an inference, and nothing else does")
        if self.inference is not None and self.segments > PROMPTS_MAX:
            raise ValueError(f"more than {PROMPTS_MAX} prompts")

    @property
    def units(self) -> int:
        """What the escrow pays for when all is done: segments of a training, weighed tokens of an inference."""
        if self.inference is None:
            return self.segments
        return token_units(self.inference.prompt_tokens, self.inference.generated_tokens)

    @property
    def price_least(self) -> int:
        """Lowest price that a bid may name."""
        return least_price(self.k)

    @property
    def price_limit(self) -> int:
        """Highest price that a bid may name."""
        return min(self.reserve, self.budget)


def least_price(k: int) -> int:
    """Micro-CYX that a whole job must cost so that none of its `k` verifiers checks for nothing."""
    return k * PRICE_PER_SEAT_MIN


def token_units(prompt_tokens: int, generated_tokens: int) -> int:
    """Units of an inference: a token that is written weighs as much as several that are read."""
    return PROMPT_TOKEN_UNITS * prompt_tokens + GENERATED_TOKEN_UNITS * generated_tokens


class DeclineReason(IntEnum):
    """Why a node does not bid."""

    BUSY = 1
    PRICE = 2
    MEMORY = 3
    DEVICE = 4
    REGION = 5
    STAKE = 6
    SANDBOX = 7
    DRAINING = 8
    DEADLINE = 9
    MODEL = 10


class Decline(Message, frozen=True):
    """A node that matches the class will not bid, and why."""

    job: Bytes32
    reason: DeclineReason
    hint: Annotated[str, Meta(max_length=120)]


class BidCommit(Message, frozen=True):
    """A sealed bid: `hashing.bid_commitment`."""

    job: Bytes32
    commitment: Bytes32


class Bid(Message, frozen=True):
    """The sealed content. Only `price` and `estimated_ms` bind; the rest is a claim."""

    price: Amount
    estimated_ms: Millis
    device: Literal["cpu", "cuda"]
    memory_mb: Count
    queue_length: Count
    region: Word
    datasets: Annotated[tuple[CidText, ...], Meta(max_length=DATASETS_MAX)]


class BidReveal(Message, frozen=True):
    """Opens a BidCommit: `bid` is an encoded Bid."""

    job: Bytes32
    bid: Annotated[bytes, Meta(max_length=4096)]
    salt: Bytes32


class Tally(Message, frozen=True):
    """The digests of the valid bids that a member saw in time, ascending, and its promise of the nonce that will draw
    its samples: a member whose tally or whose vote is in the certificate may give a verdict that counts."""

    job: Bytes32
    bids: Annotated[tuple[Bytes32, ...], Meta(max_length=BIDS_MAX)]
    nonce_commitment: Bytes32


class BidderRecord(Message, frozen=True):
    """A bidder's chain record as the leader read it; members compare it with their own reading."""

    node: Bytes32
    stake: Amount
    reputation_ppm: Ppm


class Proposal(Message, frozen=True):
    """The evidence from which anyone recomputes the award: tallies and reveals as signed envelopes."""

    job: Bytes32
    round: Annotated[int, Meta(ge=0, lt=ROUNDS_MAX)]
    tallies: Annotated[tuple[Evidence, ...], Meta(max_length=COMMITTEE_MAX)]
    reveals: Annotated[tuple[Evidence, ...], Meta(max_length=BIDS_MAX)]
    records: Annotated[tuple[BidderRecord, ...], Meta(max_length=BIDS_MAX)]


class AwardVote(Message, frozen=True):
    """A member's signature under an award, and its promise of the nonce that will draw its samples."""

    job: Bytes32
    round: Annotated[int, Meta(ge=0, lt=ROUNDS_MAX)]
    digest: Bytes32
    signature: Sig
    nonce_commitment: Bytes32


class AwardCertificate(Message, frozen=True):
    """The award: an encoded Proposal, what follows from it, and at least m AwardVote envelopes."""

    job: Bytes32
    proposal: Evidence
    winner: Bytes32
    price: Amount
    votes: Annotated[tuple[Evidence, ...], Meta(max_length=COMMITTEE_MAX)]


class HandoverCertificate(Message, frozen=True):
    """Another node takes over: the one at `rank` of the ranking of the award with digest `award`, at its own price. At
    least m quorum signatures cover `hashing.handover_digest`; `reason` is what its leader says of the one before."""

    job: Bytes32
    award: Bytes32
    rank: Annotated[int, Meta(ge=1, le=HANDOVERS_MAX)]
    from_leaf: Annotated[int, Meta(ge=0, le=SEGMENTS_MAX)]
    """Work before it would be another's; 0 in this version: the successor begins anew."""
    successor: Bytes32
    price: Amount
    round: Annotated[int, Meta(ge=0, lt=HANDOVER_ROUNDS_MAX)]
    signatures: Annotated[tuple[tuple[Bytes32, Sig], ...], Meta(max_length=COMMITTEE_MAX)]
    reason: Text


class Outcome(Message, frozen=True):
    """How the job ended: the settlement that the quorum signed, and its transaction."""

    job: Bytes32
    verdict: Annotated[int, Meta(ge=1, le=6)]
    worker: Bytes32
    price: Amount
    units: Count
    result_hash: Bytes32
    fee_mask: Annotated[int, Meta(ge=0, le=127)]
    round: Annotated[int, Meta(ge=0, lt=SETTLE_ROUNDS_MAX)]
    signatures: Annotated[tuple[tuple[Bytes32, Sig], ...], Meta(max_length=COMMITTEE_MAX)]
    transaction: Annotated[str, Meta(max_length=96)]
    reason: Text


class JobStatus(Message, frozen=True):
    """A digest of a running job for whoever listens on its topic."""

    job: Bytes32
    sequence: Count
    sent_at_ms: Millis
    state: Word
    progress_ppm: Ppm
    epoch: Count
    loss_micro: Micro
    accuracy_micro: Micro
