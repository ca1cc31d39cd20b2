"""The life of a job as its requester sees it (DESIGN 4): the transitions stand in one table.

Every transition has a cause, so that the whole story can be replayed from the journal. An illegal step leaves the
state untouched and says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ..protocol.chain import Verdict


class JobPhase(Enum):
    """States of a job."""

    DRAFT = "draft"
    QUEUED = "queued"
    OPENED = "opened"
    BIDDING = "bidding"
    AWARDED = "awarded"
    RUNNING = "running"
    CLAIMED = "claimed"
    SETTLED = "settled"
    UNSOLD = "unsold"
    FAILED = "failed"
    FRAUD = "fraud"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class JobEvent(Enum):
    """What moves a job."""

    QUEUED = "queued"
    ESCROW_CONFIRMED = "escrow confirmed"
    ANNOUNCED = "announced"
    AWARDED = "awarded"
    STARTED = "started"
    CLAIMED = "claimed"
    HANDED_OVER = "handed over"
    SETTLED = "settled"
    UNSOLD = "unsold"
    FAILED = "failed"
    FRAUD = "found to be fraud"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


_OPEN = (JobPhase.OPENED, JobPhase.BIDDING, JobPhase.AWARDED, JobPhase.RUNNING, JobPhase.CLAIMED)
TRANSITIONS: dict[tuple[JobPhase, JobEvent], JobPhase] = {
    (JobPhase.DRAFT, JobEvent.QUEUED): JobPhase.QUEUED,
    (JobPhase.DRAFT, JobEvent.ESCROW_CONFIRMED): JobPhase.OPENED,
    (JobPhase.QUEUED, JobEvent.ESCROW_CONFIRMED): JobPhase.OPENED,
    (JobPhase.QUEUED, JobEvent.UNSOLD): JobPhase.UNSOLD,
    (JobPhase.OPENED, JobEvent.ANNOUNCED): JobPhase.BIDDING,
    (JobPhase.BIDDING, JobEvent.AWARDED): JobPhase.AWARDED,
    (JobPhase.AWARDED, JobEvent.STARTED): JobPhase.RUNNING,
    (JobPhase.AWARDED, JobEvent.CLAIMED): JobPhase.CLAIMED,
    (JobPhase.RUNNING, JobEvent.CLAIMED): JobPhase.CLAIMED,
    (JobPhase.AWARDED, JobEvent.HANDED_OVER): JobPhase.AWARDED,
    (JobPhase.RUNNING, JobEvent.HANDED_OVER): JobPhase.AWARDED,
    (JobPhase.CLAIMED, JobEvent.HANDED_OVER): JobPhase.AWARDED,
    **{(phase, JobEvent.SETTLED): JobPhase.SETTLED for phase in _OPEN},
    **{(phase, JobEvent.UNSOLD): JobPhase.UNSOLD for phase in _OPEN},
    **{(phase, JobEvent.FAILED): JobPhase.FAILED for phase in _OPEN},
    **{(phase, JobEvent.FRAUD): JobPhase.FRAUD for phase in _OPEN},
    **{(phase, JobEvent.CANCELLED): JobPhase.CANCELLED for phase in (JobPhase.DRAFT, JobPhase.QUEUED, *_OPEN[:4])},
    **{(phase, JobEvent.EXPIRED): JobPhase.EXPIRED for phase in _OPEN},
}
ENDS = {
    Verdict.OK: JobPhase.SETTLED,
    Verdict.FAILED: JobPhase.FAILED,
    Verdict.UNSOLD: JobPhase.UNSOLD,
    Verdict.CANCELLED: JobPhase.CANCELLED,
    Verdict.FRAUD: JobPhase.FRAUD,
}
"""How a job ends by its last settlement; PARTIAL ends none."""
FINAL = frozenset(
    {JobPhase.SETTLED, JobPhase.UNSOLD, JobPhase.FAILED, JobPhase.FRAUD, JobPhase.CANCELLED, JobPhase.EXPIRED}
)


@dataclass(frozen=True, slots=True)
class Transition:
    """One step taken: when (Unix ms), to which state, and why."""

    at_ms: int
    phase: JobPhase
    cause: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job's state and its story so far."""

    phase: JobPhase = JobPhase.DRAFT
    story: tuple[Transition, ...] = ()


def step(job: Job, event: JobEvent, at_ms: int, cause: str) -> tuple[Job, str]:
    """Apply an event; the text is empty, or says why the step is illegal (the job is then unchanged)."""
    phase = TRANSITIONS.get((job.phase, event))
    if phase is None:
        return job, f"a job that is {job.phase.value} cannot be {event.value}"
    return replace(job, phase=phase, story=(*job.story, Transition(at_ms, phase, cause))), ""
