"""Messages between the parties of a job, from the award to the settlement (DESIGN 6, 7)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .fields import Amount, Count, Evidence, Message, Micro, Millis, Ppm, Sig, Text
from .limits import (
    ANSWERS_MAX_BYTES,
    COMMITTEE_MAX,
    HANDOVER_ROUNDS_MAX,
    HANDOVERS_MAX,
    PROMPTS_MAX,
    SEGMENTS_MAX,
    SETTLE_ROUNDS_MAX,
    SPEC_MAX_BYTES,
    STEPS_MAX,
    TOKENS_TEXT_MAX_CHARS,
)
from .market_messages import token_units
from .spec import Bytes32


class SpecRequest(Message, frozen=True):
    """The winner or a member asks the requester for the spec; the answer is the encoded spec."""

    job: Bytes32
    certificate: Evidence
    """The AwardCertificate envelope, so that the requester learns of the award at the latest now."""
    handover: Evidence = b""
    """Of a worker that took over: the HandoverCertificate envelope."""


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
    """One piece of an answer. Not verified yet: only the settled claim is. Answers may interleave."""

    job: Bytes32
    sequence: Count
    prompt_index: Annotated[int, Meta(ge=0, lt=PROMPTS_MAX)]
    generated: Count
    """Tokens of this prompt's answer so far, this piece included."""
    text: Annotated[str, Meta(max_length=TOKENS_TEXT_MAX_CHARS)]
    last: bool
    """Whether the answer ends with this piece, whose text may be empty. Every finished answer has one, and no piece
    after it."""


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


class HandoverProposal(Message, frozen=True):
    """The leader asks for signatures under a hand-over; `digest` is `hashing.handover_digest`, equal in all rounds."""

    job: Bytes32
    rank: Annotated[int, Meta(ge=1, le=HANDOVERS_MAX)]
    round: Annotated[int, Meta(ge=0, lt=HANDOVER_ROUNDS_MAX)]
    digest: Bytes32


class HandoverVote(Message, frozen=True):
    """A member's signature over the 40 bytes of a hand-over."""

    job: Bytes32
    rank: Annotated[int, Meta(ge=1, le=HANDOVERS_MAX)]
    round: Annotated[int, Meta(ge=0, lt=HANDOVER_ROUNDS_MAX)]
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


class ResultRequest(Message, frozen=True):
    """The requester asks the winner or a member for what was claimed: it was gone when that was told."""

    job: Bytes32


class ResultAnswer(Message, frozen=True):
    """The envelopes of the AwardCertificate, of the claim, and of the HandoverCertificate to its author if that took
    over, as they were signed."""

    job: Bytes32
    certificate: Evidence
    claim: Evidence
    handover: Evidence = b""
