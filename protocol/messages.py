"""Every message of the wire, as immutable types that cannot exist invalid (DESIGN 4 to 7).

Gossip: Heartbeat, Capability, JobAnnounce, Decline, BidCommit, BidReveal, AwardCertificate, Outcome, JobStatus.
Between the parties of a job: Tally, Proposal, AwardVote, SpecRequest, StartNotice, Progress, TokensRequest, Tokens,
ResultClaim, InferenceClaim, VerdictCommit, OpenRequest, Opening, VerdictReveal, SettleProposal, SettleVote,
BlobRequest, PeersRequest.
Money is micro-CYX; `_micro` and `_ppm` are fixed point with scale 10^6; times are Unix ms unless the name says `_s`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .limits import (
    ADDRESSES_MAX,
    AMOUNT_MAX,
    ANSWERS_MAX_BYTES,
    BIDS_MAX,
    COMMITTEE_MAX,
    CONTEXT_MAX,
    DATASETS_MAX,
    GENERATED_TOKEN_UNITS,
    GOSSIP_MESSAGE_MAX_BYTES,
    ID_BYTES,
    MICRO,
    MODEL_NAME_MAX_CHARS,
    MODELS_OFFERED_MAX,
    PEERS_ASKED_MAX,
    PROMPT_TOKEN_UNITS,
    PROMPTS_MAX,
    RECORDS_MAX,
    ROUNDS_MAX,
    SAMPLES_MAX,
    SEGMENTS_MAX,
    SETTLE_ROUNDS_MAX,
    SIGNATURE_BYTES,
    SPEC_MAX_BYTES,
    STEPS_MAX,
    TEXT_MAX_CHARS,
    TOKENS_TEXT_MAX_CHARS,
    WINDOW_MAX_MS,
)
from .spec import Bytes32, CidText

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Ppm = Annotated[int, Meta(ge=0, le=MICRO)]
Amount = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Millis = Annotated[int, Meta(ge=0, le=2**53)]
Micro = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Window = Annotated[int, Meta(ge=50, le=WINDOW_MAX_MS)]
Text = Annotated[str, Meta(max_length=TEXT_MAX_CHARS)]
Word = Annotated[str, Meta(max_length=64)]
Sig = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Addresses = Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=ADDRESSES_MAX)]
Evidence = Annotated[bytes, Meta(max_length=GOSSIP_MESSAGE_MAX_BYTES)]
"""The bytes of another envelope."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Root of all messages."""


# --- presence ---------------------------------------------------------------------------------------------------


class Heartbeat(Message, frozen=True):
    """A node lives. `sequence` only rises (Unix ms); `membership_digest` is `hashing.membership_digest` over itself and
    the nodes of its cell, one of the `shards` of its class, that it hears by gossip."""

    sequence: Millis
    sent_at_ms: Millis
    status: Literal["idle", "busy", "draining"]
    queue_length: Count
    running: Count
    load_ppm: Count
    shards: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    membership_digest: Bytes32


class ModelOffer(Message, frozen=True):
    """A model that a node serves, and at what price.

    Two offers are of one kind, so that one can check the other's answers, when `model` and `backend` are equal.
    """

    name: Annotated[str, Meta(max_length=MODEL_NAME_MAX_CHARS, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*\Z")]
    kind: Literal["torch", "gguf", "ollama"]
    model: Bytes32
    """`inference.model_id` of the manifest."""
    backend: Bytes32
    """The execution class of what computes it."""
    quantisation: Annotated[str, Meta(max_length=16)]
    context_length: Annotated[int, Meta(ge=2, le=CONTEXT_MAX)]
    prompt_rate: Amount
    """Micro-CYX for 1,000 tokens that are read."""
    generated_rate: Amount
    """Micro-CYX for 1,000 tokens that are written."""
    tokens_per_s_micro: Millis
    """Tokens that the node writes in a second, as it measured them, scale 10^6; 0: not measured yet."""
    warm: bool
    """Loaded, so that an answer begins at once."""


class Capability(Message, frozen=True):
    """What a node offers. What could not be read is absent from `hardware`."""

    sequence: Millis
    sent_at_ms: Millis
    execution_class: Bytes32
    device: Literal["cpu", "cuda"]
    memory_mb: Count
    sandbox: Word
    rate_micro_per_s: Amount
    region: Word
    datasets: Annotated[tuple[CidText, ...], Meta(max_length=DATASETS_MAX)]
    version: Word
    verifier: bool
    addresses: Addresses
    hardware: Annotated[dict[Word, Text], Meta(max_length=32)]
    models: Annotated[tuple[ModelOffer, ...], Meta(max_length=MODELS_OFFERED_MAX)] = ()


class PeersRequest(Message, frozen=True):
    """Ask a peer for the capability records that it knows; answered by a PeersAnswer."""

    capability: Evidence
    """The asker's own Capability envelope, empty when it offers nothing."""
    heartbeat: Evidence = b""
    """Its last Heartbeat envelope, empty while there is none."""
    execution_class: Annotated[bytes, Meta(max_length=ID_BYTES)] = b""
    """Nodes of this class first; empty for any."""
    wanted: Annotated[tuple[Bytes32, ...], Meta(max_length=PEERS_ASKED_MAX)] = ()
    """Nodes that are asked for by name: they come before all others."""


class PeersAnswer(Message, frozen=True):
    """Capability records and last heartbeats that the answerer knows, from a random node on; its own come first."""

    records: Annotated[tuple[Evidence, ...], Meta(max_length=RECORDS_MAX)]
    silent_ms: Annotated[tuple[Count, ...], Meta(max_length=RECORDS_MAX)]
    """For each record, how long the answerer has heard nothing of its author."""

    def __post_init__(self) -> None:
        if len(self.silent_ms) != len(self.records):
            raise ValueError("records and silent_ms have different lengths")


# --- market -----------------------------------------------------------------------------------------------------


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
    def price_limit(self) -> int:
        """Highest price that a bid may name."""
        return min(self.reserve, self.budget)


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


# --- the parties of a job -----------------------------------------------------------------------------------------


class SpecRequest(Message, frozen=True):
    """The winner or a member asks the requester for the spec; the answer is the encoded spec."""

    job: Bytes32
    certificate: Evidence
    """The AwardCertificate envelope, so that the requester learns of the award at the latest now."""


class StartNotice(Message, frozen=True):
    """The winner has begun."""

    job: Bytes32
    started_at_ms: Millis


class Progress(Message, frozen=True):
    """Live metrics from worker to requester, at most 10 Hz. Validation fields are -1 until an epoch has ended."""

    job: Bytes32
    sequence: Count
    progress_ppm: Ppm
    step: Count
    current_epoch: Count
    batch_loss_micro: Micro
    batch_accuracy_micro: Micro
    batch_time_us: Count
    learning_rate_micro: Micro
    validation_loss_micro: Micro
    validation_accuracy_micro: Micro


class TokensRequest(Message, frozen=True):
    """The requester asks the worker for its answer as it grows, from piece `start` on; Tokens come back."""

    job: Bytes32
    start: Count


class Tokens(Message, frozen=True):
    """One piece of an answer. Not verified yet: only the settled claim is."""

    job: Bytes32
    sequence: Count
    prompt_index: Annotated[int, Meta(ge=0, lt=PROMPTS_MAX)]
    generated: Count
    """Tokens of this prompt's answer so far, this piece included."""
    text: Annotated[str, Meta(max_length=TOKENS_TEXT_MAX_CHARS)]


class Claim(Message, frozen=True):
    """What every worker's signed result has. Its sha256, with a seal of zeros, is the result hash on chain."""

    job: Bytes32
    spec_hash: Bytes32
    execution_class: Bytes32
    final_status: Literal["completed", "failed", "unserved", "invalid"]
    """The last two blame the requester: it gave the worker no spec or data, or one that nobody could compute."""
    message: Text
    traces: Annotated[tuple[Bytes32, ...], Meta(max_length=SEGMENTS_MAX)]
    """For each segment or prompt: `hashing.trace_commitment` of what only who computed it knows."""
    seal: Sig
    """Over `hashing.claim_message`: what the escrow program checks before it takes a stake for fraud."""


class ResultClaim(Claim, frozen=True):
    """A training's result (FEATURES 13)."""

    model_weights_uri: Annotated[str, Meta(max_length=160)]
    model_weights_hash: Bytes32
    model_weights_bytes: Millis
    merkle_root: Bytes32
    states: Annotated[tuple[Bytes32, ...], Meta(max_length=SEGMENTS_MAX + 1)]
    final_loss_micro: Micro
    final_accuracy_micro: Micro
    best_epoch: Count
    total_compute_time_ms: Millis


class InferenceClaim(Claim, frozen=True):
    """An inference's result (FEATURES 41): the answers are a blob, `inference.Answers`, for the parties alone."""

    result_uri: Annotated[str, Meta(max_length=160)]
    result_hash: Bytes32
    result_bytes: Annotated[int, Meta(ge=0, le=ANSWERS_MAX_BYTES)]
    prompt_tokens: Count
    tokens_generated: Count
    compute_time_ms: Millis
    gpu_utilization_ppm: Ppm | None
    """Mean while it computed; absent without a GPU that tells."""

    @property
    def units(self) -> int:
        """What the escrow pays for."""
        return token_units(self.prompt_tokens, self.tokens_generated)


class VerdictCommit(Message, frozen=True):
    """A member's sealed verdict: `hashing.verdict_commitment`."""

    job: Bytes32
    commitment: Bytes32


class OpenRequest(Message, frozen=True):
    """Ask the worker to open its traces; the commits prove that nobody can copy any more."""

    job: Bytes32
    commits: Annotated[tuple[Evidence, ...], Meta(max_length=COMMITTEE_MAX)]


class Opening(Message, frozen=True):
    """The salt secret and the float32 bits behind the trace commitments: per-step losses, or a logit per token."""

    job: Bytes32
    secret: Bytes32
    bits: Annotated[bytes, Meta(max_length=4 * STEPS_MAX)]


class VerdictBody(Message, frozen=True):
    """What a member found. `mismatch_segment` is -1, or the segment whose replay gave other bits."""

    ok: bool
    mismatch_segment: Annotated[int, Meta(ge=-1, lt=SEGMENTS_MAX)]
    trace_digest: Bytes32
    reason: Text


class VerdictReveal(Message, frozen=True):
    """Opens a VerdictCommit: `body` is an encoded VerdictBody."""

    job: Bytes32
    nonce: Bytes32
    body: Annotated[bytes, Meta(max_length=2048)]


class SettleProposal(Message, frozen=True):
    """The leader asks for signatures under a settlement.

    FRAUD rests on a replay: `segment` (else -1) ended in a state with hash `replayed` (else zeros).
    """

    job: Bytes32
    round: Annotated[int, Meta(ge=0, lt=SETTLE_ROUNDS_MAX)]
    verdict: Annotated[int, Meta(ge=1, le=6)]
    worker: Bytes32
    price: Amount
    units: Count
    result_hash: Bytes32
    fee_mask: Annotated[int, Meta(ge=0, le=127)]
    segment: Annotated[int, Meta(ge=-1, lt=SEGMENTS_MAX)]
    replayed: Bytes32
    reason: Text


class SettleVote(Message, frozen=True):
    """A member's signature over the 40 bytes of a settlement."""

    job: Bytes32
    round: Annotated[int, Meta(ge=0, lt=SETTLE_ROUNDS_MAX)]
    signature: Sig


class BlobRequest(Message, frozen=True):
    """Ask for a blob by CID, or, with an empty `cid`, for the state of `job` at segment end `state`."""

    cid: Annotated[str, Meta(max_length=128)]
    job: Annotated[bytes, Meta(max_length=32)]
    state: Annotated[int, Meta(ge=0, le=SEGMENTS_MAX)]


class BlobHeader(Message, frozen=True):
    """First frame of an answer; `size` bytes follow in frames of at most BLOB_CHUNK_BYTES."""

    size: Annotated[int, Meta(ge=-1, le=2**53)]
    """-1: not held here."""


class SpecAnswer(Message, frozen=True):
    """The encoded spec."""

    spec: Annotated[bytes, Meta(max_length=SPEC_MAX_BYTES)]


_ALL: tuple[type[Message], ...] = (
    Heartbeat, Capability, PeersRequest, PeersAnswer, JobAnnounce, Decline, BidCommit, BidReveal, Tally, Proposal,
    AwardVote, AwardCertificate, Outcome, JobStatus, SpecRequest, SpecAnswer, StartNotice, Progress, TokensRequest,
    Tokens, ResultClaim, InferenceClaim, VerdictCommit, OpenRequest, Opening, VerdictReveal, SettleProposal, SettleVote,
    BlobRequest,
)  # fmt: skip
KINDS: dict[str, type[Message]] = {kind.__name__: kind for kind in _ALL}
"""Kind name on the wire -> message type. Everything here travels in a signed envelope."""


def kind_of(message: msgspec.Struct) -> str:
    """The wire name of a message's kind."""
    name = type(message).__name__
    if KINDS.get(name) is not type(message):
        raise TypeError(f"{name} does not travel in an envelope")
    return name
