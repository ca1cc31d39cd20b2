"""Nodes that we could dial and do not hear: addresses in waiting, each with the class that it is said to be of.

Most are signed for: their own record told of them. Of some only a third party has spoken (the DHT, a rendezvous point,
the LAN): those are hints, and who turns out to offer nothing is no candidate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..protocol.limits import PEERS_KNOWN_MAX
from ..protocol.units import NodeId


@dataclass(slots=True)
class Candidates:
    """At most PEERS_KNOWN_MAX; who was found the longest ago goes first."""

    _classes: OrderedDict[NodeId, bytes] = field(default_factory=OrderedDict)
    _hints: set[NodeId] = field(default_factory=set)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._classes

    def __iter__(self) -> Iterator[NodeId]:
        return iter(tuple(self._classes))

    def __len__(self) -> int:
        return len(self._classes)

    def of(self, execution_class: bytes) -> set[NodeId]:
        """Those of a class; of any for the empty one."""
        return {node for node, name in self._classes.items() if not execution_class or name == execution_class}

    def is_hint(self, node: NodeId) -> bool:
        """Whether only somebody else has told of a node."""
        return node in self._hints

    def found(self, node: NodeId, execution_class: bytes) -> None:
        """A node's own record, or our own disk, tells of it."""
        self._classes[node] = execution_class
        self._classes.move_to_end(node)
        self._hints.discard(node)
        self._forget_oldest()

    def hinted(self, node: NodeId, execution_class: bytes) -> None:
        """Somebody else tells of a node that is not known."""
        self._classes[node] = execution_class
        self._hints.add(node)
        self._forget_oldest()

    def failed(self, node: NodeId) -> None:
        """It did not answer."""
        self._classes.pop(node, None)
        self._hints.discard(node)

    def answered(self, node: NodeId, *, offers: bool) -> None:
        """It answered; whether it offers anything decides about a hint."""
        if node in self._hints:
            self._hints.discard(node)
            if not offers:
                self._classes.pop(node, None)

    def _forget_oldest(self) -> None:
        while len(self._classes) > PEERS_KNOWN_MAX:
            node, _ = self._classes.popitem(last=False)
            self._hints.discard(node)
