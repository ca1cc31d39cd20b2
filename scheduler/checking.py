"""How a committee member checks a claim: one port, and one checker for each kind of job (DESIGN 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..protocol.award import JobTerms
from ..protocol.envelope import Signed
from ..protocol.hashing import sample_segments
from ..protocol.messages import Claim
from ..protocol.units import NodeId
from .verification_events import Conviction


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found. `traces` are those of the checked segments or prompts, in ascending order, as computed here."""

    ok: bool
    mismatch_segment: int = -1
    reason: str = ""
    traces: list[bytes] = field(default_factory=list)
    conviction: Conviction | None = None


class Checker(Protocol):
    """Checks one claim; each check is one single-use session. Raises ExecutionFailed or LocalError when our own side
    failed, RemoteError or PeerUnreachable when the worker does not show what it claims."""

    @property
    def claim(self) -> Signed[Claim]: ...
    async def check(self, segments: list[int]) -> CheckReport:
        """All that is always checked, and the samples."""

    async def check_segment(self, segment: int) -> CheckReport:
        """One that another member accuses."""

    def sizes(self) -> list[int]:
        """Bytes of the trace of each segment or prompt. Callable once `check` was."""


def samples_of(terms: JobTerms, member: NodeId, nonce: bytes) -> list[int]:
    """What a member must compute again: segments that its nonce draws, or every prompt, which costs little."""
    announce = terms.announce
    if announce.kind == "infer":
        return list(range(announce.segments))
    return sample_segments(terms.job, member, nonce, announce.segments, announce.samples)
