"""What a committee member remembers of one job between award and settlement: data only (DESIGN 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from ..protocol.handover import Successor
from ..protocol.limits import START_LEASE_MS
from ..protocol.settlement import NO_RESULT, Settlement
from ..protocol.units import JobId, NodeId
from .verification_events import Conviction, Finding


class Phase(Enum):
    """Where a case stands."""

    AWARDED = auto()
    RUNNING = auto()
    HANDING_OVER = auto()
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
    """What is fixed by the award. `deadline_ms` is the work deadline on our monotonic clock; a worker must start within
    `lease_ms`. `worker` and `price` are the present ones; `ladder` has all who may ever work, by rank."""

    job: JobId
    me: NodeId
    committee: tuple[NodeId, ...]
    m: int
    worker: NodeId
    price: int
    units: int
    deadline_ms: int
    lease_ms: int = START_LEASE_MS
    ladder: tuple[Successor, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """State."""

    terms: CaseTerms
    phase: Phase
    since_ms: int
    rank: int = 0
    """Of the present worker: how many may have worked before it."""
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
    """The worker is lost by silence alone: a sign of life undoes that, before the settlement, or before we sign a
    hand-over."""
    reason: str = ""
    convictions: Mapping[int, Conviction] = field(default_factory=dict)
    """What our own replays of bad segments gave, by segment."""
    round: int = 0
    round_started_ms: int = 0
    signed: Mapping[int, bytes] = field(default_factory=dict)
    handover_round: int = 0
    handover_round_started_ms: int = 0
    handover_signed: int = 0
    """The highest rank that we signed a hand-over to."""

    def leader(self, round_: int) -> NodeId:
        """The member that leads a round of settlement or hand-over."""
        return self.terms.committee[round_ % len(self.terms.committee)]
