"""Gossip on our side of the wire: validators, bounded queues, and what a rejected message costs its forwarder.

A message is judged once, before it is delivered or forwarded, unless there are too many (p2p.gossip_rates). IGNORE
drops it silently; REJECT, or a validator that raises, also counts against the peer that handed it to us, and
GOSSIP_REJECTS_MAX of those ban it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol.errors import LocalError
from ..protocol.limits import (
    GOSSIP_MESSAGE_MAX_BYTES,
    GOSSIP_QUEUE_MAX,
    GOSSIP_REJECTS_MAX,
    PEERS_KNOWN_MAX,
    TOPIC_MAX_CHARS,
)
from ..protocol.ports import GossipMessage, GossipValidator, GossipVerdict
from ..protocol.units import NodeId, base58
from .gossip_rates import GossipRates

_log = structlog.get_logger()
HEARD = (GossipVerdict.ACCEPT, GossipVerdict.TAKEN)
"""Verdicts upon which a message is also passed on."""
_MESSAGES_AT_ONCE = 32


@dataclass(slots=True)
class _Subscription:
    validator: GossipValidator
    send: trio.MemorySendChannel[GossipMessage]
    dropped: int = 0


class _Messages:
    """What a subscriber iterates; it ends when the subscription does, also under a waiting reader."""

    def __init__(self, receive: trio.MemoryReceiveChannel[GossipMessage]) -> None:
        self._receive, self._at_once = receive, 0

    def __aiter__(self) -> AsyncIterator[GossipMessage]:
        return self

    async def __anext__(self) -> GossipMessage:
        try:
            if self._at_once < _MESSAGES_AT_ONCE:  # one a turn would fall behind a peer that sends many
                self._at_once += 1
                with suppress(trio.WouldBlock):
                    return self._receive.receive_nowait()
            self._at_once = 0
            return await self._receive.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise StopAsyncIteration from None


@dataclass(slots=True)
class Misbehaviour:
    """Rejected messages per forwarder; the oldest entries go."""

    rejects: OrderedDict[NodeId, int] = field(default_factory=OrderedDict)

    def count(self, peer: NodeId) -> bool:
        """Count one rejected message; True when this one bans the peer, whose count then begins anew."""
        self.rejects[peer] = self.rejects.get(peer, 0) + 1
        self.rejects.move_to_end(peer)
        while len(self.rejects) > PEERS_KNOWN_MAX:
            self.rejects.popitem(last=False)
        if self.rejects[peer] < GOSSIP_REJECTS_MAX:
            return False
        _log.warning("peer_banned", peer=base58(peer), rejected=self.rejects.pop(peer))
        return True


class Subscriptions:
    """The topics that this node has joined, at most one subscription each."""

    def __init__(self) -> None:
        self._topics: dict[str, _Subscription] = {}
        self._rates = GossipRates()

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def __bool__(self) -> bool:
        return bool(self._topics)

    @contextmanager
    def open(self, topic: str, validator: GossipValidator) -> Iterator[AsyncIterator[GossipMessage]]:
        """Register a subscription while the context is open; LocalError when the topic is joined already."""
        check_topic(topic)
        if topic in self._topics:
            raise LocalError(f"{topic} is subscribed already", field="topic", fix="share the first subscription")
        send, receive = trio.open_memory_channel[GossipMessage](GOSSIP_QUEUE_MAX)
        self._topics[topic] = _Subscription(validator, send)
        try:
            yield _Messages(receive)
        finally:
            del self._topics[topic]
            send.close()
            receive.close()

    def judge(self, message: GossipMessage) -> GossipVerdict:
        """Run the topic's validator; a raising one rejects. IGNORE for a topic that we have not joined, and for what
        is too much of somebody."""
        subscription, now_s = self._topics.get(message.topic), trio.current_time()
        if subscription is None:
            return GossipVerdict.IGNORE
        verdict = self._rates.admit(message, now_s)
        if verdict is not GossipVerdict.ACCEPT:
            _log.info("gossip_too_much", topic=message.topic, peer=base58(message.forwarder), verdict=verdict.name)
            return verdict
        try:
            verdict = subscription.validator(message)
        except Exception:
            # The message that breaks a validator must not break the node, nor travel on.
            _log.exception("validator_raised", topic=message.topic, peer=base58(message.forwarder))
            return GossipVerdict.REJECT
        if verdict in HEARD:
            self._rates.charge(message, now_s)
        return verdict

    def deliver(self, message: GossipMessage) -> None:
        """Queue an accepted message for its subscriber; a full queue drops it and says so."""
        subscription = self._topics[message.topic]
        try:
            subscription.send.send_nowait(message)
        except trio.WouldBlock:
            subscription.dropped += 1
            _log.warning("gossip_queue_full", topic=message.topic, dropped=subscription.dropped)


def check_topic(topic: str) -> None:
    """LocalError when `topic` is not a printable ASCII name of at most TOPIC_MAX_CHARS."""
    if not topic or len(topic) > TOPIC_MAX_CHARS or not (topic.isascii() and topic.isprintable()):
        raise LocalError(f"{topic[:64]!r} is not a topic name", field="topic", fix="use 'cyx/1/name'")


def check_message(topic: str, data: bytes) -> None:
    """LocalError when a message cannot be published."""
    check_topic(topic)
    if len(data) > GOSSIP_MESSAGE_MAX_BYTES:
        raise LocalError(
            f"{len(data)} bytes are more than {GOSSIP_MESSAGE_MAX_BYTES}", field="gossip message", fix="split it"
        )
