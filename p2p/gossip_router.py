"""The library's pubsub and router with the few rules of ours that hold on every path."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import structlog
import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub

from ..protocol.limits import GOSSIP_BACKOFFS_MAX, GOSSIP_JOINS_PER_PEER, TOPIC_MAX_CHARS
from .buckets import Buckets

_log = structlog.get_logger()


class QuietPubsub(Pubsub):
    """The library's pubsub, whose own delivery queue is not used, and which remembers no endless topic names."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._joins = Buckets[ID](GOSSIP_JOINS_PER_PEER)

    def notify_subscriptions(self, publish_message: Any) -> None:
        """Delivered already, by the validator."""

    def handle_subscription(self, origin_id: ID, sub_message: Any) -> None:
        """Take note of what a peer has joined or left. A name that cannot be a topic of ours is passed over, and so is
        one join too many: whoever joins is sent what was said last."""
        if len(sub_message.topicid) > TOPIC_MAX_CHARS:
            return
        if sub_message.subscribe and not self._joins.take(origin_id, trio.current_time()):
            _log.info("gossip_joins_too_many", peer=str(origin_id))
            return
        super().handle_subscription(origin_id, sub_message)

    async def _teardown_if_connected(self, peer_id: ID) -> None:
        """Forget a banned peer; the library trips over one that leaves in the same moment."""
        stream, queue = self.peers.pop(peer_id, None), self.peer_queues.pop(peer_id, None)
        self._forget_all_subscriptions(peer_id)
        self.router.remove_peer(peer_id)
        if queue is not None:
            queue.close()
        if stream is not None:
            with suppress(Exception):
                await stream.reset()


class FloodingRouter(GossipSub):
    """The library's router, which floods what we publish ourselves (GossipSub 1.1, "flood publishing").

    Peers refuse to be grafted for seconds after a prune: a node that leaves a topic and comes back would meanwhile have
    an empty mesh, and what it publishes would reach nobody. What others publish is forwarded along the mesh alone.
    """

    def _add_back_off(self, peer: ID, topic: str, is_unsubscribe: bool, backoff_duration: int = 0) -> None:
        """Note until when a peer is not grafted; the library forgets that only when it looks at the peer again."""
        super()._add_back_off(peer, topic, is_unsubscribe, backoff_duration)
        waiting = self.back_off[topic]
        if len(waiting) > GOSSIP_BACKOFFS_MAX:
            now_s = int(time.time())
            for over in [one for one, until_s in waiting.items() if until_s <= now_s]:
                del waiting[over]
            while len(waiting) > GOSSIP_BACKOFFS_MAX:
                del waiting[next(iter(waiting))]

    def _get_peers_to_send(
        self, topic_ids: Iterable[str], msg_forwarder: ID, origin: ID, msg_id: bytes | None = None
    ) -> Iterable[ID]:
        if self.pubsub is None or msg_forwarder != self.pubsub.my_id:
            return super()._get_peers_to_send(topic_ids, msg_forwarder, origin, msg_id)
        return {peer for topic in topic_ids for peer in self.pubsub.peer_topics.get(topic, ())}
