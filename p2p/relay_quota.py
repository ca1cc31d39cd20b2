"""What a relay gives to whom: reservations and circuits, counted. Pure: time is an argument.

Rule 1: a reservation lasts RELAY_RESERVATION_S and is renewed in its place; at most RELAY_RESERVATIONS_MAX stand, of
one host at most RELAY_RESERVATIONS_PER_HOST (loopback counts as any host: a relay for programs of its own machine is a
test).
Rule 2: circuits lead to holders of reservations only, so a relay cannot be used to call anybody else.
Rule 3: circuits are bounded in all, to one target and from one source; no circuit outlives RELAY_CIRCUIT_S or carries
more than RELAY_CIRCUIT_MAX_BYTES, and all together RELAY_BYTES_PER_S.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..protocol.limits import (
    RELAY_BYTES_PER_S,
    RELAY_CIRCUITS_MAX,
    RELAY_CIRCUITS_PER_SOURCE,
    RELAY_CIRCUITS_PER_TARGET,
    RELAY_RESERVATION_S,
    RELAY_RESERVATIONS_MAX,
    RELAY_RESERVATIONS_PER_HOST,
)
from ..protocol.units import NodeId


@dataclass(slots=True)
class RelayQuota:
    """The books of one relay."""

    _reserved: dict[NodeId, tuple[str, float]] = field(default_factory=dict)
    _targets: Counter[NodeId] = field(default_factory=Counter)
    _sources: Counter[NodeId] = field(default_factory=Counter)
    _owed_until_s: float = 0.0

    def reserve(self, node: NodeId, host: str, now_s: float) -> str:
        """Give or renew a reservation; returns why not, empty when given."""
        self._expire(now_s)
        others = [held for holder, (held, _) in self._reserved.items() if holder != node]
        if len(others) >= RELAY_RESERVATIONS_MAX:
            return "total"
        if others.count(host) >= RELAY_RESERVATIONS_PER_HOST:
            return "host"
        self._reserved[node] = host, now_s + RELAY_RESERVATION_S
        return ""

    def cancel(self, node: NodeId) -> None:
        """The holder's connection has ended, and its reservation with it."""
        self._reserved.pop(node, None)

    def holders(self, now_s: float) -> list[NodeId]:
        """Who holds a reservation now."""
        self._expire(now_s)
        return list(self._reserved)

    def open_circuit(self, source: NodeId, target: NodeId, now_s: float) -> str:
        """Count a circuit in; returns why not, empty when it may be made."""
        self._expire(now_s)
        if target not in self._reserved:
            return "reservation"
        if self._targets.total() >= RELAY_CIRCUITS_MAX:
            return "total"
        if self._targets[target] >= RELAY_CIRCUITS_PER_TARGET:
            return "target"
        if self._sources[source] >= RELAY_CIRCUITS_PER_SOURCE:
            return "source"
        self._targets[target] += 1
        self._sources[source] += 1
        return ""

    def close_circuit(self, source: NodeId, target: NodeId) -> None:
        """Count it out again."""
        for counts, node in ((self._targets, target), (self._sources, source)):
            counts[node] -= 1
            if counts[node] <= 0:
                del counts[node]

    @property
    def circuits(self) -> int:
        """Circuits that stand or are being made."""
        return self._targets.total()

    def delay_s(self, count: int, now_s: float) -> float:
        """How long to wait before `count` bytes are passed on, so that all stay within RELAY_BYTES_PER_S."""
        self._owed_until_s = max(self._owed_until_s, now_s - 1.0) + count / RELAY_BYTES_PER_S
        return max(0.0, self._owed_until_s - now_s)

    def _expire(self, now_s: float) -> None:
        for node in [node for node, (_, until_s) in self._reserved.items() if until_s <= now_s]:
            del self._reserved[node]
