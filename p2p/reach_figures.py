"""How a node is reached and what it does for others, in words and numbers, for an operator to look at."""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass, field

from ..protocol.units import NodeId
from .reachability import Mapping, Verdict


@dataclass(frozen=True, slots=True)
class ReachReport:
    """How a node can be reached now: the verdict and what it leans on, the relays that hold a place for it."""

    verdict: Verdict = Verdict.UNKNOWN
    leaning: Verdict = Verdict.UNKNOWN
    mapping: Mapping = Mapping.UNKNOWN
    relays: tuple[NodeId, ...] = ()
    seen_as: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReachFigures:
    """Gauges, and counts since the start, of how a node is reached and what it does for others."""

    report: ReachReport = field(default_factory=ReachReport)
    called_back: Map[str, int] = field(default_factory=dict)
    upgraded: Map[str, int] = field(default_factory=dict)
    reservations: int = 0
    circuits: int = 0
    relayed_bytes: int = 0
    relay_granted: Map[str, int] = field(default_factory=dict)
    relay_refused: Map[str, int] = field(default_factory=dict)
