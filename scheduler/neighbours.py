"""Whom a node wants connections to, as rules over what it knows at a moment (DESIGN 3).

Kin are the nodes of its class; for who offers nothing, those of any. Enough connections are PEERS_WANTED of them. In a
class of several cells some must lead out of our own, or the gossip of its market would end where the cell does.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from hashlib import sha256

from ..protocol.limits import PEERS_OF_CELL, PEERS_WANTED
from ..protocol.units import NodeId
from .cells import Cell


def nearness(me: NodeId, node: NodeId) -> bytes:
    """An order of our own, so that not everybody dials the same nodes."""
    return sha256(me + node).digest()


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What a node knows: itself, its kin, whom it is connected to, and its cell, which a mere observer has not."""

    me: NodeId
    kin: Set[NodeId]
    connected: Set[NodeId]
    cell: Cell | None

    @property
    def short(self) -> bool:
        """Whether there are fewer connections than half of those wanted, however many nodes are known."""
        return len(self.connected & self.kin) < PEERS_WANTED // 2

    @property
    def lonely(self) -> bool:
        """Whether nobody whom we want a connection to is known."""
        return not any(map(self.cell.holds, self.kin)) if self.cell is not None else not self.kin

    def missing(self) -> list[NodeId]:
        """Whom to dial, so that there are enough connections to our cell, and beyond it."""
        parts: list[tuple[Set[NodeId], int]] = [(self.kin, PEERS_WANTED)]
        if self.cell is not None and self.cell.shards > 1:
            mates = {node for node in self.kin if self.cell.holds(node)}
            parts = [(mates, PEERS_OF_CELL), (self.kin - mates, PEERS_WANTED - PEERS_OF_CELL)]
        wanted: list[NodeId] = []
        for nodes, most in parts:
            missing = min(most, len(nodes)) - len(nodes & self.connected)
            if missing > 0:
                wanted += sorted(nodes - self.connected, key=lambda node: nearness(self.me, node))[:missing]
        return wanted
