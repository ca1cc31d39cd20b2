"""Cells of presence: who hears whose heartbeats (DESIGN 3).

A cell is an execution class, or, when more than CELL_NODES_MAX of its nodes are registered, one of its shards. Everyone
derives the number of shards from the same number on the chain, and a node's shard from its id. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from ..protocol.limits import CELL_NODES_MAX, PEERS_KNOWN_MAX
from ..protocol.units import NodeId
from ..protocol.validation import presence_topic


@dataclass(frozen=True, slots=True)
class Cell:
    """One of the `shards` parts of a class; `shards` is a power of two."""

    execution_class: bytes
    shards: int = 1
    shard: int = 0

    @property
    def topic(self) -> str:
        """Where its nodes speak."""
        return presence_topic(self.execution_class, self.shards, self.shard)

    def holds(self, node: NodeId) -> bool:
        """Whether a node of the class speaks here."""
        return self.shards == 1 or shard_of(node, self.shards) == self.shard


def shards_for(registered: int) -> int:
    """The smallest power of two that leaves at most CELL_NODES_MAX registered nodes to a shard, on average."""
    shards = 1
    while registered > shards * CELL_NODES_MAX:
        shards *= 2
    return shards


@lru_cache(maxsize=2 * PEERS_KNOWN_MAX)
def place_of(node: NodeId) -> int:
    """The first 64 bits of sha256 of the node's id: cells are cut by it."""
    return int.from_bytes(sha256(node).digest()[:8], "big")


def shard_of(node: NodeId, shards: int) -> int:
    """The first bits of the node's place."""
    return place_of(node) * shards >> 64


def cell_of(node: NodeId, execution_class: bytes, registered: int) -> Cell:
    """Where a node speaks and listens while so many nodes of its class are registered."""
    shards = shards_for(registered)
    return Cell(execution_class, shards, shard_of(node, shards))


def coarser(cell: Cell, registered_before: int = 0) -> list[Cell]:
    """The cells that `cell` was cut from since so many were registered, the largest first. Nobody speaks in those from
    before: joined by every newcomer, they would load each with a share of the whole class."""
    halvings = range(cell.shards.bit_length() - 1, 0, -1)
    cells = [Cell(cell.execution_class, cell.shards >> by, cell.shard >> by) for by in halvings]
    return [one for one in cells if one.shards >= shards_for(registered_before)]
