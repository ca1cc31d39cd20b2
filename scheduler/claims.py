"""The worker's signed result, from what its training reported (FEATURES 13)."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

from ..protocol.award import JobTerms
from ..protocol.errors import ExecutionFailed
from ..protocol.hashing import leaf_chain, merkle_root, trace_commitment
from ..protocol.limits import SEGMENTS_MAX
from ..protocol.messages import Opening, ResultClaim
from ..protocol.ports import SegmentDone, TrainDone
from ..protocol.settlement import NO_SEAL
from .traces import salt_of


@dataclass(slots=True)
class Transcript:
    """Leaves of one training as they arise; `secret` salts the trace commitments until they are opened."""

    secret: bytes
    states: list[bytes] = field(default_factory=list)
    traces: list[bytes] = field(default_factory=list)
    losses: list[bytes] = field(default_factory=list)

    def add(self, done: SegmentDone) -> None:
        """The end of a segment; ExecutionFailed when it is out of order."""
        if done.index != len(self.states) or done.index > SEGMENTS_MAX:
            raise ExecutionFailed(f"the worker process reported segment {done.index} out of order")
        self.states.append(done.state_hash)
        if done.index:
            self.losses.append(done.losses)
            self.traces.append(trace_commitment(salt_of(self.secret, done.index - 1), done.losses))

    def opening(self, terms: JobTerms) -> Opening:
        """What the members compare their replays with."""
        return Opening(job=terms.job, secret=self.secret, losses=b"".join(self.losses))


def completed_claim(
    terms: JobTerms, execution_class: bytes, transcript: Transcript, done: TrainDone, cid: str
) -> ResultClaim:
    """A whole training, not sealed yet; ExecutionFailed when segments are missing."""
    states, traces, segments = transcript.states, transcript.traces, terms.announce.segments
    if len(states) != segments + 1:
        raise ExecutionFailed(f"the worker process ended after {len(states) - 1} of {segments} segments")
    return ResultClaim(
        job=terms.job,
        spec_hash=terms.announce.spec_hash,
        execution_class=execution_class,
        final_status="completed",
        message="",
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
        seal=NO_SEAL,
    )


def failed_claim(
    terms: JobTerms, execution_class: bytes, message: str, status: Literal["failed", "unserved"] = "failed"
) -> ResultClaim:
    """The worker's own word that there is no result, and why; `unserved` says that the requester is to blame."""
    return ResultClaim(
        job=terms.job,
        spec_hash=terms.announce.spec_hash,
        execution_class=execution_class,
        final_status=status,
        message=message[:500],
        model_weights_uri="",
        model_weights_hash=bytes(32),
        model_weights_bytes=0,
        merkle_root=bytes(32),
        states=(),
        traces=(),
        final_loss_micro=0,
        final_accuracy_micro=0,
        best_epoch=0,
        total_compute_time_ms=0,
        seal=NO_SEAL,
    )
