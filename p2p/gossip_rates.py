"""How much gossip anybody may cause: token buckets per author and kind of topic, and per forwarder.

Rule 1: what a forwarder hands us beyond GOSSIP_PER_FORWARDER is dropped unread.
Rule 2: what an author says beyond its topic's rate is neither delivered nor passed on, so a flood ends at the flooder's
own neighbours. Only what the validator accepts is charged: old words played again by others use up nobody's tokens.
Rule 3: an author that hands us GOSSIP_GROSS times as much of its own is no accident and costs it, as garbage does.
A forwarder is never charged for what others wrote: it may have let pass what it could not know to be too much for us.
Rule 4: what counts are records, and bytes: a message of several records, or of heavy ones, counts for several.
Pure: `now_s` is the caller's clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.bundle import weight
from ..protocol.limits import (
    GOSSIP_GROSS,
    GOSSIP_PER_AUTHOR,
    GOSSIP_PER_AUTHOR_ELSEWHERE,
    GOSSIP_PER_FORWARDER,
    GOSSIP_RECORD_BYTES,
)
from ..protocol.ports import GossipMessage, GossipVerdict
from ..protocol.units import NodeId
from .buckets import Buckets

TOPICS_REMEMBERED = 64


@dataclass(slots=True)
class _Authors:
    """Of one kind of topic."""

    accepted: Buckets[NodeId]
    own: Buckets[NodeId]
    """What authors hand us themselves."""


class GossipRates:
    """The buckets of one node."""

    def __init__(self) -> None:
        self._forwarders = Buckets[NodeId](GOSSIP_PER_FORWARDER)
        self._authors: dict[str, _Authors] = {}
        self._by_topic: dict[str, _Authors] = {}

    def admit(self, message: GossipMessage, now_s: float) -> GossipVerdict:
        """ACCEPT when the message may be judged."""
        authors, author, count = self._of(message.topic), message.author, weight(message.data, GOSSIP_RECORD_BYTES)
        # [REJECT] from an author that hands us far more of its own than it may say
        if author == message.forwarder and not authors.own.take(author, now_s, count):
            return GossipVerdict.REJECT
        # [IGNORE] more than one peer may hand us
        if not self._forwarders.take(message.forwarder, now_s, count):
            return GossipVerdict.IGNORE
        # [IGNORE] more than one author may say
        return GossipVerdict.ACCEPT if authors.accepted.left(author, now_s) >= count else GossipVerdict.IGNORE

    def charge(self, message: GossipMessage, now_s: float) -> None:
        """The message was accepted."""
        self._of(message.topic).accepted.take(message.author, now_s, weight(message.data, GOSSIP_RECORD_BYTES))

    def _of(self, topic: str) -> _Authors:
        """The buckets of a topic's kind; they are looked up by the topic as long as those are few."""
        found = self._by_topic.get(topic)
        if found is not None:
            return found
        kind = topic.split("/", 3)[2] if topic.count("/") > 1 else ""
        kind = kind if kind in GOSSIP_PER_AUTHOR else ""
        if kind not in self._authors:
            per_s, burst = GOSSIP_PER_AUTHOR.get(kind, GOSSIP_PER_AUTHOR_ELSEWHERE)
            gross = (per_s * GOSSIP_GROSS, burst * GOSSIP_GROSS)
            self._authors[kind] = _Authors(Buckets((per_s, burst)), Buckets(gross))
        if len(self._by_topic) >= TOPICS_REMEMBERED:
            self._by_topic.clear()
        self._by_topic[topic] = self._authors[kind]
        return self._authors[kind]
