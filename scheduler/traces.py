"""The per-step losses of a training: sealed by the worker, opened after the verdicts (DESIGN 7)."""

from __future__ import annotations

from blake3 import blake3

from ..protocol.errors import RemoteError
from ..protocol.hashing import trace_commitment
from ..protocol.messages import Opening
from ..protocol.spec import TrainSpec


def salt_of(secret: bytes, segment: int) -> bytes:
    """The salt of a segment's trace commitment, from the secret that the worker opens after the verdicts."""
    return blake3(b"cyx/salt" + secret + segment.to_bytes(4, "little")).digest()


def traces_of(opening: Opening, spec: TrainSpec) -> list[bytes]:
    """The per-segment losses inside an opening; RemoteError when their number is wrong."""
    if len(opening.losses) != 4 * spec.steps:
        raise RemoteError(f"the opening has {len(opening.losses) // 4} losses, not {spec.steps}")
    ranges = [spec.segment_steps(segment) for segment in range(spec.segments)]
    return [opening.losses[4 * steps.start : 4 * steps.stop] for steps in ranges]


def opening_fits(opening: Opening, spec: TrainSpec, traces: tuple[bytes, ...]) -> bool:
    """Whether an opening gives exactly the trace commitments of the claim."""
    try:
        losses = traces_of(opening, spec)
    except RemoteError:
        return False
    committed = [trace_commitment(salt_of(opening.secret, i), one) for i, one in enumerate(losses)]
    return committed == list(traces)
