"""What a gossip node remembers of messages: their names for two minutes, their bytes for a few heartbeats.

Both are bounded by size as well as by age: who floods us with valid messages costs no more memory than that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libp2p.pubsub.mcache import MessageCache

from ...protocol.limits import GOSSIP_CACHE_MAX_BYTES, GOSSIP_SEEN_IDS_MAX, GOSSIP_SEEN_S


class SeenIds:
    """The names of messages that were seen, in two generations; the older one goes when the newer one is full or old.

    Has the methods of the library's own, which needs a thread of its own for each node and has no bound.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()
        self._turned = clock()

    def has(self, name: bytes) -> bool:
        """Whether `name` was added in the last GOSSIP_SEEN_S seconds (at most twice that)."""
        return name in self._new or name in self._old

    def add(self, name: bytes) -> bool:
        """Remember `name`; whether it is new."""
        is_new = not self.has(name)
        now = self._clock()
        if len(self._new) >= GOSSIP_SEEN_IDS_MAX // 2 or now - self._turned >= GOSSIP_SEEN_S:
            self._old = self._new if now - self._turned < 2 * GOSSIP_SEEN_S else set()
            self._new, self._turned = set(), now
        self._new.add(name)
        return is_new

    def length(self) -> int:
        """How many names are remembered."""
        return len(self._new) + len(self._old)

    def stop(self) -> None:
        """Nothing to stop."""


class BoundedCache(MessageCache):
    """The library's cache of recent messages, of at most GOSSIP_CACHE_MAX_BYTES; what does not fit is not kept."""

    _bytes = 0

    def put(self, msg: Any) -> None:
        """Keep `msg` for the next heartbeats, if there is room."""
        size = len(msg.data)
        if self._bytes + size <= GOSSIP_CACHE_MAX_BYTES:
            self._bytes += size
            super().put(msg)

    def shift(self) -> None:
        """A heartbeat has passed: the oldest messages go."""
        super().shift()
        self._bytes = sum(len(one.data) for one in self.msgs.values())
