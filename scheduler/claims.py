"""A worker's signed result, from what its work reported, and the claim of who has none (FEATURES 13, 41)."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

from ..protocol import codec
from ..protocol.award import JobTerms
from ..protocol.errors import ExecutionFailed
from ..protocol.hashing import leaf_chain, merkle_root
from ..protocol.inference import Answers, Generated, answer_of
from ..protocol.limits import ANSWERS_MAX_BYTES, SEGMENTS_MAX
from ..protocol.messages import Claim, InferenceClaim, ResultClaim
from ..protocol.ports import SegmentDone, TrainDone
from ..protocol.settlement import NO_SEAL
from .traces import SealedTraces

Failure = Literal["failed", "unserved", "invalid"]


@dataclass(slots=True)
class Transcript:
    """States and traces of one training as they arise."""

    sealed: SealedTraces
    states: list[bytes] = field(default_factory=list)

    def add(self, done: SegmentDone) -> None:
        """The end of a segment; ExecutionFailed when it is out of order."""
        if done.index != len(self.states) or done.index > SEGMENTS_MAX:
            raise ExecutionFailed(f"the worker process reported segment {done.index} out of order")
        self.states.append(done.state_hash)
        if done.index:
            self.sealed.add(done.losses)


def training_claim(
    terms: JobTerms, execution_class: bytes, transcript: Transcript, done: TrainDone, cid: str
) -> ResultClaim:
    """A whole training, not sealed yet; ExecutionFailed when segments are missing."""
    states, traces, segments = transcript.states, transcript.sealed.commitments, terms.announce.segments
    if len(states) != segments + 1:
        raise ExecutionFailed(f"the worker process ended after {len(states) - 1} of {segments} segments")
    return ResultClaim(
        **_common(terms, execution_class, "completed", ""),
        model_weights_uri=f"ipfs://{cid}",
        model_weights_hash=sha256(done.weights).digest(),
        model_weights_bytes=len(done.weights),
        merkle_root=merkle_root(leaf_chain(states, traces)),
        states=tuple(states),
        traces=tuple(traces),
        final_loss_micro=done.final_loss_micro,
        final_accuracy_micro=done.final_accuracy_micro,
        best_epoch=done.best_epoch,
        total_compute_time_ms=done.total_time_ms,
    )


def encoded_answers(generated: tuple[Generated, ...], prompts: int) -> bytes:
    """What is delivered; ExecutionFailed when the backend left prompts out, or said more than anyone may send."""
    if [one.prompt_index for one in generated] != list(range(prompts)):
        raise ExecutionFailed(f"the backend answered {len(generated)} of {prompts} prompts")
    encoded = codec.encode(Answers(answers=tuple(answer_of(one) for one in generated)))
    if len(encoded) > ANSWERS_MAX_BYTES:
        raise ExecutionFailed(f"the answers have {len(encoded)} bytes, at most {ANSWERS_MAX_BYTES} are allowed")
    return encoded


def inference_claim(
    terms: JobTerms,
    execution_class: bytes,
    traces: SealedTraces,
    generated: tuple[Generated, ...],
    result: tuple[str, bytes],
    gpu_utilization_ppm: int | None,
) -> InferenceClaim:
    """All prompts answered, not sealed yet. `result` is the CID of the encoded answers, and those."""
    cid, encoded = result
    return InferenceClaim(
        **_common(terms, execution_class, "completed", ""),
        traces=tuple(traces.commitments),
        result_uri=f"ipfs://{cid}",
        result_hash=sha256(encoded).digest(),
        result_bytes=len(encoded),
        prompt_tokens=sum(one.prompt_tokens for one in generated),
        tokens_generated=sum(one.generated_tokens for one in generated),
        compute_time_ms=sum(one.compute_ms for one in generated),
        gpu_utilization_ppm=gpu_utilization_ppm,
    )


def failed_claim(terms: JobTerms, execution_class: bytes, message: str, status: Failure = "failed") -> Claim:
    """The worker's own word that there is no result, and why; all but `failed` say that the requester is to blame."""
    common = {**_common(terms, execution_class, status, message[:500]), "traces": ()}
    if terms.announce.kind == "infer":
        return InferenceClaim(
            **common,
            result_uri="",
            result_hash=bytes(32),
            result_bytes=0,
            prompt_tokens=0,
            tokens_generated=0,
            compute_time_ms=0,
            gpu_utilization_ppm=None,
        )
    return ResultClaim(
        **common,
        model_weights_uri="",
        model_weights_hash=bytes(32),
        model_weights_bytes=0,
        merkle_root=bytes(32),
        states=(),
        final_loss_micro=0,
        final_accuracy_micro=0,
        best_epoch=0,
        total_compute_time_ms=0,
    )


def _common(terms: JobTerms, execution_class: bytes, status: str, message: str) -> dict[str, Any]:
    return {
        "job": terms.job,
        "spec_hash": terms.announce.spec_hash,
        "execution_class": execution_class,
        "final_status": status,
        "message": message,
        "seal": NO_SEAL,
    }
