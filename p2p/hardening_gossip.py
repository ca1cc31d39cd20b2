"""Cures for pubsub.

Rules: a malformed message costs its sender, never us; queues hold a burst; records do not travel with every message.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import structlog
from libp2p.pubsub import gossipsub as gossipsub_module
from libp2p.pubsub import pubsub as pubsub_module
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.rpc_queue import RpcQueue

from ..protocol.limits import (
    GOSSIP_ANSWER_MAX_BYTES,
    GOSSIP_BACKOFF_MAX_S,
    GOSSIP_CONTROL_ENTRIES_MAX,
    GOSSIP_CONTROL_IDS_MAX,
    GOSSIP_OUTBOUND_QUEUE_MAX,
    TOPIC_MAX_CHARS,
)

if TYPE_CHECKING:
    from .hardening import Patches

_log = structlog.get_logger()


def contain_rpc_errors(patches: Patches) -> None:
    """An RPC that cannot be parsed or handled ends the gossip stream of its sender, nothing else."""
    handle: Any = Pubsub.stream_handler

    async def contained_handler(self: Any, stream: Any) -> None:
        peer = stream.muxed_conn.peer_id
        try:
            await handle(self, stream)
        except Exception as error:
            # Any shape of garbage may arrive here; the sender loses its gossip stream for it.
            _log.warning("gossip_rpc_bad", peer=str(peer), cause=repr(error)[:200])
            with suppress(Exception):
                await stream.reset()
            self.add_to_blacklist(peer)

    patches.set(Pubsub, "stream_handler", contained_handler)


def contain_message_errors(patches: Patches) -> None:
    """A message whose key, author or validator raises is dropped; only our own publishing may raise."""
    push: Any = Pubsub.push_msg

    async def contained_push(self: Any, forwarder: Any, message: Any) -> None:
        try:
            await push(self, forwarder, message)
        except Exception as error:
            if forwarder == self.my_id:
                raise
            _log.warning("gossip_message_bad", peer=str(forwarder), cause=repr(error)[:200])

    patches.set(Pubsub, "push_msg", contained_push)


def bound_control(patches: Patches) -> None:
    """A control message is cut to what an honest peer sends: a message is asked for once, and no more of them than
    GOSSIP_ANSWER_MAX_BYTES; topics that we have not joined leave no trace; a prune brings no strangers to dial."""
    handle: Any = GossipSub.handle_rpc

    async def bounded_rpc(self: Any, rpc: Any, sender: Any) -> None:
        rpc.control.CopyFrom(_bounded(rpc.control, self.mesh, self.mcache))
        await handle(self, rpc, sender)

    patches.set(GossipSub, "handle_rpc", bounded_rpc)


def _bounded(control: Any, joined: Any, cache: Any) -> Any:
    bounded = rpc_pb2.ControlMessage(
        graft=[one for one in control.graft if len(one.topicID) <= TOPIC_MAX_CHARS][:GOSSIP_CONTROL_ENTRIES_MAX],
        idontwant=control.idontwant[:GOSSIP_CONTROL_ENTRIES_MAX],
    )
    for prune in [one for one in control.prune if one.topicID in joined][:GOSSIP_CONTROL_ENTRIES_MAX]:
        bounded.prune.add(topicID=prune.topicID, backoff=min(prune.backoff, GOSSIP_BACKOFF_MAX_S))
    left = GOSSIP_CONTROL_IDS_MAX
    for ihave in [one for one in control.ihave if one.topicID in joined][:GOSSIP_CONTROL_ENTRIES_MAX]:
        bounded.ihave.add(topicID=ihave.topicID, messageIDs=ihave.messageIDs[:left])
        left -= min(left, len(ihave.messageIDs))
    wanted: dict[bytes, None] = {}  # keeps the order, and each name once
    size = 0
    for name in islice((name for one in control.iwant for name in one.messageIDs), GOSSIP_CONTROL_IDS_MAX):
        message = None if name in wanted else cache.get(name)
        if message is not None and (size := size + len(message.data)) <= GOSSIP_ANSWER_MAX_BYTES:
            wanted[name] = None
    if wanted:
        bounded.iwant.add(messageIDs=wanted)
    return bounded


def longer_queues(patches: Patches) -> None:
    """GOSSIP_OUTBOUND_QUEUE_MAX messages may wait for one peer, and as many for one subscriber."""
    _, message_bytes = RpcQueue.__init__.__defaults__ or (0, 0)
    patches.set(RpcQueue.__init__, "__defaults__", (GOSSIP_OUTBOUND_QUEUE_MAX, message_bytes))
    patches.set(pubsub_module, "SUBSCRIPTION_CHANNEL_SIZE", GOSSIP_OUTBOUND_QUEUE_MAX)


def no_records(patches: Patches) -> None:
    """Signed peer records are neither attached nor verified here: the connection has authenticated the peer already."""

    def without_record(host: Any) -> tuple[bytes, bool]:
        return b"", False

    def accept(message: Any, host: Any, peer: Any) -> bool:
        return True

    patches.set(gossipsub_module, "env_to_send_in_RPC", without_record)
    for module in (pubsub_module, gossipsub_module):
        patches.set(module, "maybe_consume_signed_record", accept)
