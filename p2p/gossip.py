"""GossipSub with our parameters: signed messages, a heartbeat of one second, no silent spam filter of the library.

The library's validators know only yes and no; IGNORE and REJECT both say no to it, and REJECT is counted here. Messages
are delivered from the validator, where the forwarder is still known; our own are accepted unseen and not delivered.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio
from libp2p.abc import IHost
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11
from libp2p.tools.anyio_service import background_trio_service

from ..protocol.limits import (
    GOSSIP_DEGREE,
    GOSSIP_DEGREE_HIGH,
    GOSSIP_DEGREE_LOW,
    GOSSIP_HEARTBEAT_S,
    GOSSIP_MESSAGE_MAX_BYTES,
    SHUTDOWN_TIMEOUT_S,
)
from ..protocol.ports import GossipMessage, GossipValidator, GossipVerdict
from ..protocol.units import NodeId
from .fast_gossip.pubsub import FastPubsub, FastRouter
from .gossip_router import FloodingRouter, QuietPubsub
from .host import node_of
from .peer_id import node_of_bytes
from .subscriptions import HEARD, Misbehaviour, Subscriptions, check_message

_log = structlog.get_logger()


class Gossip:
    """Topics of one host. `on_ban` is called, synchronously, with a forwarder that must go. `fast` for a host whose
    connections are those of the fast path."""

    def __init__(self, host: IHost, on_ban: Callable[[NodeId], None], *, fast: bool = False) -> None:
        self._on_ban = on_ban
        self._own = host.get_id()
        self._subscriptions = Subscriptions()
        self.misbehaviour = Misbehaviour()
        self._router: FloodingRouter
        self._pubsub: QuietPubsub
        if fast:
            fast_router = FastRouter(**_router_parameters())
            self._router, self._pubsub = fast_router, FastPubsub(host, fast_router)
        else:
            self._router = FloodingRouter(**_router_parameters())
            self._pubsub = QuietPubsub(host, self._router, strict_signing=True)
        # Sequence numbers name messages: they must not repeat after a restart within the same second.
        self._pubsub.counter = time.time_ns()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve while the context is open; the host must be running."""
        async with background_trio_service(self._pubsub), background_trio_service(self._router):
            await self._pubsub.wait_until_ready()
            yield

    @asynccontextmanager
    async def subscribe(self, topic: str, validator: GossipValidator) -> AsyncIterator[AsyncIterator[GossipMessage]]:
        """Join a topic while the context is open."""
        with self._subscriptions.open(topic, validator) as messages:
            self._pubsub.set_topic_validator(topic, self._validate, False)
            try:
                await self._pubsub.subscribe(topic)
                yield messages
            finally:
                self._pubsub.remove_topic_validator(topic)
                if self._pubsub.manager.is_running:
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S):
                        await self._pubsub.unsubscribe(topic)

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data`. A topic that no connected peer has joined is logged, since the message may reach nobody."""
        check_message(topic, data)
        heard = len(self._pubsub.peer_topics.get(topic, ()))
        await self._pubsub.publish(topic, data)
        if not heard:
            _log.warning("gossip_unheard", topic=topic, peers=len(self._pubsub.peers))

    def _validate(self, forwarder: ID, message: Any) -> bool:
        if forwarder == self._own:
            return True
        author, sender = node_of_bytes(message.from_id), node_of(forwarder)
        if author is None or sender is None or author == node_of(self._own):
            return False
        if len(message.topicIDs) != 1 or len(message.data) > GOSSIP_MESSAGE_MAX_BYTES:
            return self._reject(sender)
        delivered = GossipMessage(message.topicIDs[0], author, sender, message.data)
        verdict = self._subscriptions.judge(delivered)
        if verdict is GossipVerdict.REJECT:
            return self._reject(sender)
        if verdict is GossipVerdict.ACCEPT:
            self._subscriptions.deliver(delivered)
        return verdict in HEARD

    def _reject(self, forwarder: NodeId) -> bool:
        if self.misbehaviour.count(forwarder):
            self._on_ban(forwarder)
        return False


def _router_parameters() -> dict[str, Any]:
    return {
        "protocols": [TProtocol(PROTOCOL_ID_V11)],
        "degree": GOSSIP_DEGREE,
        "degree_low": GOSSIP_DEGREE_LOW,
        "degree_high": GOSSIP_DEGREE_HIGH,
        "heartbeat_interval": GOSSIP_HEARTBEAT_S,
        "prune_back_off": 5,
        "unsubscribe_back_off": 1,
        "spam_protection_enabled": False,
        "eclipse_protection_enabled": False,
        "adaptive_gossip_enabled": False,
    }
