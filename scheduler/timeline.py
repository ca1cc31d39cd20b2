"""The measured story of a job: how long it was in each state, and what each part of its way took (FEATURES 48)."""

from __future__ import annotations

from dataclasses import dataclass

from .chronicle import Chronicle
from .chronicle_facts import Moved
from .job import JobPhase

PARTS = (
    ("queue", "submitted"),
    ("funding", "named"),
    ("auction", "funded"),
    ("work", "awarded"),
    ("verification", "claimed"),
    ("settlement", "settled"),
)
"""Each part begins at a stage and ends where the next one begins, or the job. Verification holds the transaction that
settles, of which a requester hears last; settlement is closing the escrow and fetching the result."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A job in one state: `id` names the record of the transition to it. `lasted_ms` is None for the last state."""

    id: str
    at_ms: int
    state: str
    cause: str
    lasted_ms: int | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a job's way, in Unix ms; `began_ms` and `ended_ms` may be equal."""

    name: str
    began_ms: int
    ended_ms: int

    @property
    def lasted_ms(self) -> int:
        return self.ended_ms - self.began_ms


def stays(told: Chronicle, now_ms: int) -> list[Stay]:
    """Each transition with its cause, and how long the job stayed: in its present state, until `now_ms`."""
    steps = [(f"{told.number}.1", told.placed_at_ms, JobPhase.DRAFT.value, "the order was placed")]
    for place, record in zip(told.places, told.records, strict=True):
        if isinstance(record.fact, Moved):
            steps.append((f"{told.number}.{place}", record.at_ms, record.fact.phase, record.fact.cause))
    ends: list[int | None] = [at_ms for _, at_ms, _, _ in steps[1:]]
    ends.append(None if told.ended else now_ms)
    return [
        Stay(name, at_ms, state, cause, max(0, end - at_ms) if end is not None else None)
        for (name, at_ms, state, cause), end in zip(steps, ends, strict=True)
    ]


def parts(told: Chronicle, now_ms: int) -> list[Part]:
    """The parts of its way that a job has begun."""
    begun = [(name, told.stages[stage]) for name, stage in PARTS if stage in told.stages]
    last_ms = max([told.ended_at_ms, *told.stages.values()]) if told.ended else now_ms
    ends = [at_ms for _, at_ms in begun[1:]] + [last_ms]
    return [Part(name, at_ms, max(at_ms, end)) for (name, at_ms), end in zip(begun, ends, strict=False)]
