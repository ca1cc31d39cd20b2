"""One iterative look-up as a pure machine: whom to ask next, and when it is over.

Rule 1: the closest ones that were not asked yet come first, at most DHT_PARALLEL at a time.
Rule 2: it is over when the `width` closest of all that did not fail have answered, or DHT_QUESTIONS_MAX were asked.
Rule 3: of one answer at most `width` names count, so that nobody can lead a look-up through names without end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from ...protocol.limits import DHT_BUCKET_SIZE, DHT_PARALLEL, DHT_QUESTIONS_MAX
from ...protocol.units import NodeId
from ..peer_id import peer_id_bytes


def distance(node: NodeId, target: bytes) -> int:
    """How far a node is from a key, as libp2p's DHT measures it: XOR of the SHA-256 of both."""
    return int.from_bytes(sha256(peer_id_bytes(node)).digest(), "big") ^ int.from_bytes(target, "big")


@dataclass(slots=True)
class Lookup:
    """Of `key` (its bytes as they travel), by `me`, who is never asked."""

    key: bytes
    me: NodeId
    width: int = DHT_BUCKET_SIZE
    questions: int = DHT_QUESTIONS_MAX
    asked: int = 0
    hops: dict[NodeId, int] = field(default_factory=dict)
    """Everybody heard of: 0 for who was known at the start, else one more than who told."""
    _distance: dict[NodeId, int] = field(default_factory=dict)
    _waiting: set[NodeId] = field(default_factory=set)
    _answered: set[NodeId] = field(default_factory=set)
    _failed: set[NodeId] = field(default_factory=set)

    def begin(self, known: Iterable[NodeId]) -> None:
        """From whom the look-up starts."""
        for node in known:
            self._hear_of(node, 0)

    def next(self) -> NodeId | None:
        """Whom to ask now; None when nobody is to be asked until an answer comes, or it is over."""
        if self.over or len(self._waiting) >= DHT_PARALLEL or self.asked >= self.questions:
            return None
        unasked = (node for node in self._nearest() if node not in self._answered | self._waiting)
        chosen = next(unasked, None)
        if chosen is not None:
            self._waiting.add(chosen)
            self.asked += 1
        return chosen

    def answered(self, node: NodeId, closer: Iterable[NodeId]) -> None:
        """`node` has told whom it knows near the key."""
        self._waiting.discard(node)
        self._answered.add(node)
        for count, told in enumerate(dict.fromkeys(closer)):
            if count >= self.width:
                break
            self._hear_of(told, self.hops[node] + 1)

    def failed(self, node: NodeId) -> None:
        """`node` did not answer."""
        self._waiting.discard(node)
        self._failed.add(node)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to ask or to wait for."""
        if self._waiting:
            return False
        return self.asked >= self.questions or all(node in self._answered for node in self._nearest())

    def closest(self) -> list[NodeId]:
        """Who answered, the closest first, at most `width`."""
        return sorted(self._answered, key=self._distance.__getitem__)[: self.width]

    def _nearest(self) -> list[NodeId]:
        return sorted(self._distance.keys() - self._failed, key=self._distance.__getitem__)[: self.width]

    def _hear_of(self, node: NodeId, hops: int) -> None:
        if node != self.me and node not in self.hops:
            self.hops[node] = hops
            self._distance[node] = distance(node, sha256(self.key).digest())
