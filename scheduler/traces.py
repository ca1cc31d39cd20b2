"""What only who computed a job knows, bit by bit: sealed by the worker, opened after the verdicts (DESIGN 7).

A training seals the loss of each step, segment by segment; an inference the logit of each token, prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from blake3 import blake3

from ..protocol.errors import RemoteError
from ..protocol.hashing import trace_commitment
from ..protocol.messages import Opening
from ..protocol.units import JobId


def salt_of(secret: bytes, segment: int) -> bytes:
    """The salt of a segment's trace commitment, from the secret that the worker opens after the verdicts."""
    return blake3(b"cyx/salt" + secret + segment.to_bytes(4, "little")).digest()


@dataclass(slots=True)
class SealedTraces:
    """The traces of one job as they arise; `secret` salts their commitments until they are opened."""

    secret: bytes
    bits: list[bytes] = field(default_factory=list)
    commitments: list[bytes] = field(default_factory=list)

    def add(self, bits: bytes) -> None:
        """The trace of the next segment or prompt."""
        self.commitments.append(trace_commitment(salt_of(self.secret, len(self.bits)), bits))
        self.bits.append(bits)

    def opening(self, job: JobId) -> Opening:
        """What the members compare their own computations with."""
        return Opening(job=job, secret=self.secret, bits=b"".join(self.bits))


def traces_of(opening: Opening, sizes: Sequence[int]) -> list[bytes]:
    """The traces inside an opening, which must have `sizes` bytes; RemoteError when it has not as many in all."""
    if len(opening.bits) != sum(sizes):
        raise RemoteError(f"the opening has {len(opening.bits)} bytes, not {sum(sizes)}")
    return [opening.bits[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


def opening_fits(opening: Opening, sizes: Sequence[int], commitments: Sequence[bytes]) -> bool:
    """Whether an opening gives exactly the trace commitments of the claim."""
    try:
        traces = traces_of(opening, sizes)
    except RemoteError:
        return False
    return [trace_commitment(salt_of(opening.secret, i), one) for i, one in enumerate(traces)] == list(commitments)
