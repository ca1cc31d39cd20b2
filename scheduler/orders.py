"""What a user asks for, what it hears while it waits, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..protocol.limits import CLASS_WAIT_MS, COMMIT_WINDOW_MS, REVEAL_WINDOW_MS, ROUND_MS
from ..protocol.messages import Progress, ScoreWeights
from ..protocol.spec import TrainSpec
from ..protocol.units import JobId, MicroCyx
from .job import Job, JobPhase
from .requirements import Requirements


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What the user wants. The spec's data is already in the blob store under its CIDs."""

    spec: TrainSpec
    budget: MicroCyx
    work_mflop: int
    mflop_per_s: int = 5_000
    device: Literal["any", "cpu", "cuda"] = "any"
    memory_mb: int = 0
    region: str = ""
    unsandboxed_ok: bool = False
    k: Literal[3, 5, 7] = 5
    samples: int = 2
    work_seconds: int = 600
    class_wait_ms: int = CLASS_WAIT_MS
    commit_window_ms: int = COMMIT_WINDOW_MS
    reveal_window_ms: int = REVEAL_WINDOW_MS
    round_ms: int = ROUND_MS
    weights: ScoreWeights = field(default_factory=ScoreWeights)

    @property
    def requirements(self) -> Requirements:
        """What the order asks of nodes."""
        return Requirements(self.device, self.memory_mb, self.region, self.unsandboxed_ok)


@dataclass(frozen=True, slots=True)
class Stage:
    """News: the job reached a stage."""

    name: str
    at_ms: int
    detail: str


News = Stage | Progress


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended. `weights` is None unless it ended OK; `receipt` is None when no quorum settled it (never
    funded, or expired and refunded). `declines` counts the nodes that would not bid, by reason."""

    job: JobId
    phase: JobPhase
    reason: str
    weights: bytes | None
    receipt: dict[str, Any] | None
    story: Job
    declines: dict[str, int] = field(default_factory=dict)
