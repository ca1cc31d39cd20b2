"""How much gossip anybody may cause: token buckets per author and kind of topic, and per forwarder.

Rule 1: what a forwarder hands us beyond GOSSIP_PER_FORWARDER is dropped unread.
Rule 2: what an author says beyond its topic's rate is neither delivered nor passed on, so a flood ends at the flooder's
own neighbours. Only what the validator accepts is charged: old words played again by others use up nobody's tokens.
Rule 3: an author that hands us GOSSIP_GROSS times as much of its own is no accident and costs it, as garbage does.
A forwarder is never charged for what others wrote: it may have let pass what it could not know to be too much for us.
Pure: `now_s` is the caller's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..protocol.limits import (
    GOSSIP_GROSS,
    GOSSIP_PER_AUTHOR,
    GOSSIP_PER_AUTHOR_ELSEWHERE,
    GOSSIP_PER_FORWARDER,
    PEERS_KNOWN_MAX,
)
from ..protocol.ports import GossipMessage, GossipVerdict
from ..protocol.units import NodeId

Rate = tuple[float, int]
"""Messages a second, and how many may come at once."""


@dataclass(slots=True)
class Buckets:
    """Tokens by peer; the oldest entries go, and whoever is forgotten begins with a full bucket."""

    rate: Rate
    _tokens: dict[NodeId, tuple[float, float]] = field(default_factory=dict)

    def left(self, peer: NodeId, now_s: float) -> float:
        """Tokens of a peer."""
        per_s, burst = self.rate
        tokens, at_s = self._tokens.get(peer, (burst, now_s))
        return min(burst, tokens + (now_s - at_s) * per_s)

    def take(self, peer: NodeId, now_s: float) -> bool:
        """Use a token up; False when there is none."""
        left = self.left(peer, now_s)
        if left < 1:
            return False
        if peer not in self._tokens and len(self._tokens) >= PEERS_KNOWN_MAX:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[peer] = (left - 1, now_s)
        return True


@dataclass(slots=True)
class _Authors:
    """Of one kind of topic."""

    accepted: Buckets
    own: Buckets
    """What authors hand us themselves."""


class GossipRates:
    """The buckets of one node."""

    def __init__(self) -> None:
        self._forwarders = Buckets(GOSSIP_PER_FORWARDER)
        self._authors: dict[str, _Authors] = {}

    def admit(self, message: GossipMessage, now_s: float) -> GossipVerdict:
        """ACCEPT when the message may be judged."""
        authors, author = self._of(message.topic), message.author
        # [REJECT] from an author that hands us far more of its own than it may say
        if author == message.forwarder and not authors.own.take(author, now_s):
            return GossipVerdict.REJECT
        # [IGNORE] more than one peer may hand us
        if not self._forwarders.take(message.forwarder, now_s):
            return GossipVerdict.IGNORE
        # [IGNORE] more than one author may say
        return GossipVerdict.ACCEPT if authors.accepted.left(author, now_s) >= 1 else GossipVerdict.IGNORE

    def charge(self, message: GossipMessage, now_s: float) -> None:
        """The message was accepted."""
        self._of(message.topic).accepted.take(message.author, now_s)

    def _of(self, topic: str) -> _Authors:
        kind = topic.split("/", 3)[2] if topic.count("/") > 1 else ""
        if kind not in GOSSIP_PER_AUTHOR:
            kind = ""
        authors = self._authors.get(kind)
        if authors is None:
            per_s, burst = GOSSIP_PER_AUTHOR.get(kind, GOSSIP_PER_AUTHOR_ELSEWHERE)
            gross = (per_s * GOSSIP_GROSS, burst * GOSSIP_GROSS)
            authors = self._authors[kind] = _Authors(Buckets((per_s, burst)), Buckets(gross))
        return authors
