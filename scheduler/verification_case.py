"""What a committee member remembers of one job between award and settlement: data only (DESIGN 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from ..protocol.limits import START_LEASE_MS
from ..protocol.settlement import NO_RESULT, Settlement
from ..protocol.units import JobId, NodeId
from .verification_events import Conviction, Finding


class Phase(Enum):
    """Where a case stands."""

    AWARDED = auto()
    RUNNING = auto()
    SEEKING = auto()
    REPLAYING = auto()
    COMMITTED = auto()
    REVEALED = auto()
    DISPUTED = auto()
    DECIDED = auto()
    CLOSED = auto()
    GIVEN_UP = auto()


@dataclass(frozen=True, slots=True)
class CaseTerms:
    """What is fixed by the award. `deadline_ms` is the work deadline on our monotonic clock; the winner must start
    within `lease_ms`."""

    job: JobId
    me: NodeId
    committee: tuple[NodeId, ...]
    m: int
    worker: NodeId
    price: int
    units: int
    deadline_ms: int
    lease_ms: int = START_LEASE_MS


@dataclass(frozen=True, slots=True)
class Case:
    """State."""

    terms: CaseTerms
    phase: Phase
    since_ms: int
    result_hash: bytes = NO_RESULT
    units: int = 0
    """What OK would pay for."""
    own: Finding | None = None
    commits: Mapping[NodeId, bytes] = field(default_factory=dict)
    lost: frozenset[NodeId] = frozenset()
    """Members that died since the award."""
    opened: bool = False
    asked_opening: bool = False
    findings: Mapping[NodeId, Finding] = field(default_factory=dict)
    disputes: Mapping[int, bool | None] = field(default_factory=dict)
    """Segments that others accuse: whether our replay differs from the claim, None while it runs."""
    decision: Settlement | None = None
    provisional: bool = False
    """Decided by silence alone: a sign of life before the settlement undoes it."""
    reason: str = ""
    convictions: Mapping[int, Conviction] = field(default_factory=dict)
    """What our own replays of bad segments gave, by segment."""
    round: int = 0
    round_started_ms: int = 0
    signed: Mapping[int, bytes] = field(default_factory=dict)

    def leader(self, round_: int) -> NodeId:
        """The member that leads a settlement round."""
        return self.terms.committee[round_ % len(self.terms.committee)]
