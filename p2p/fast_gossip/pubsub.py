"""Pubsub and router that judge, deliver and forward a message in the step that read it.

The rules are the library's, in its order: known messages and strangers' topics first, signatures late, validators last.
Left out are its features that this network does not use: IDONTWANT (GossipSub 1.2), topic observers, peer scores (ours
are reputation and bans), validators that wait, and a queue for peers whose topics are not known yet: as soon as they
are, the messages of the last heartbeats are sent to them.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import structlog
import trio
from libp2p.abc import IHost, INetStream
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.utils import encode_varint_prefixed

from ...protocol.errors import LocalError, RemoteError
from ...protocol.identity import verify
from ...protocol.limits import (
    GOSSIP_CONTROL_QUEUE_MAX,
    GOSSIP_ENVELOPE_MAX_BYTES,
    GOSSIP_RETRY_S,
    GOSSIP_STREAMS_PER_PEER_MAX,
    SHUTDOWN_TIMEOUT_S,
)
from ..gossip_router import FloodingRouter, QuietPubsub
from ..peer_id import node_of_bytes
from .connection import FastYamux
from .outbox import Outbox
from .reader import FrameReader
from .rpc_stream import RpcStream
from .seen import BoundedCache, SeenIds

_log = structlog.get_logger()
_RPCS_PER_STEP = 16
_SIGNED_PREFIX = PUBSUB_SIGNING_PREFIX.encode()


class FastRouter(FloodingRouter):
    """The library's router: its meshes, heartbeats and control messages, with our own bounded cache."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.mcache = BoundedCache(self.mcache.window_size, self.mcache.history_size)

    def recipients(self, message: Any, forwarder: ID | None) -> set[ID]:
        """Who gets `message`: everyone in the topic when it is our own (no forwarder), else the mesh."""
        pubsub, topics = self.pubsub, message.topicIDs
        if pubsub is None:
            return set()
        if forwarder is None:
            return {peer for topic in topics for peer in pubsub.peer_topics.get(topic, ())}
        mesh = {peer for topic in topics for peer in self.mesh.get(topic, ())}
        mesh.discard(forwarder)
        mesh.discard(ID(message.from_id))
        return mesh


class FastPubsub(QuietPubsub):
    """The library's pubsub with its own ways in (`_Inlet`) and out (`Outbox`)."""

    def __init__(self, host: IHost, router: FastRouter) -> None:
        super().__init__(host, router, strict_signing=True)
        self._fast_router = router
        self._own = self.my_id
        self.seen_messages.stop()
        self.seen_messages = SeenIds(time.monotonic)  # type: ignore[assignment]
        self._inlets: dict[ID, int] = {}
        self._outboxes: dict[ID, Outbox] = {}

    def set_topic_validator(self, topic: str, validator: Any, is_async_validator: bool) -> None:
        """Validators are functions that do not wait."""
        if is_async_validator:
            raise LocalError("it must not wait", field="validator", fix="give a plain function")
        super().set_topic_validator(topic, validator, is_async_validator)

    async def push_msg(self, msg_forwarder: ID, msg: Any) -> None:
        """Publish a message of ours, or take one that came by the library's way. Cancelled, nothing of it is sent."""
        await trio.lowlevel.checkpoint()
        if msg_forwarder == self._own:
            self.seen_messages.add(msg.from_id + msg.seqno)
            if self._validators_accept(msg_forwarder, msg):
                self._send(msg, None)
        else:
            self._take(msg_forwarder, msg)

    # in

    async def continuously_read_stream(self, stream: INetStream) -> None:
        """Serve one inbound gossip stream until it ends; RemoteError when its peer must lose it."""
        connection = stream.muxed_conn
        if not isinstance(connection, FastYamux) or connection.reader is None:
            await super().continuously_read_stream(stream)
            return
        peer, open_streams = connection.peer_id, self._inlets.get(connection.peer_id, 0)
        if self.is_peer_blacklisted(peer):
            raise RemoteError("a banned peer opened a gossip stream")
        if open_streams >= GOSSIP_STREAMS_PER_PEER_MAX:
            await stream.reset()
            return
        self._inlets[peer] = open_streams + 1
        inlet = _Inlet(self, connection, connection.reader, stream)
        try:
            with connection.reader.sink(inlet.muxed, inlet.feed):
                await inlet.serve()
        finally:
            self._inlets[peer] -= 1
            if not self._inlets[peer]:
                del self._inlets[peer]

    def take_rpc(self, peer: ID, rpc: Any) -> None:
        """Handle the messages and subscriptions of an RPC; its control message is the caller's."""
        for message in rpc.publish:
            try:
                self._take(peer, message)
            except Exception as error:
                # Of any shape: whoever wrote it, its forwarder may be honest, and the node must live on.
                _log.warning("gossip_message_bad", peer=str(peer), cause=repr(error)[:200])
        if len(rpc.subscriptions) <= self.max_subscriptions_per_rpc:
            for subscription in rpc.subscriptions:
                self.handle_subscription(peer, subscription)

    def _take(self, peer: ID, message: Any) -> None:
        topics, name = self.subscribed_topics_receive, message.from_id + message.seqno
        # [IGNORE] the topic is one that we have joined
        if not any(topic in topics for topic in message.topicIDs):
            return
        # [IGNORE] the message is new, and not our own come back
        if self.seen_messages.has(name) or message.from_id == self._own.to_bytes():
            return
        # [IGNORE] neither its forwarder nor its author is banned
        if self.blacklisted_peers and not self.blacklisted_peers.isdisjoint((peer, ID(message.from_id))):
            return
        # [IGNORE] it carries no ballast beside its data
        message.DiscardUnknownFields()
        if message.ByteSize() - len(message.data) > GOSSIP_ENVELOPE_MAX_BYTES:
            return
        # [IGNORE] its author has signed it; only then may its name be remembered
        if not _signed(message):
            return
        self.seen_messages.add(name)
        # [IGNORE/REJECT] our validator accepts it
        if self._validators_accept(peer, message):
            self._send(message, peer)

    def _validators_accept(self, forwarder: ID, message: Any) -> bool:
        return all(one.validator(forwarder, message) for one in self.get_msg_validators(message))

    # out

    def _send(self, message: Any, forwarder: ID | None) -> None:
        self._fast_router.mcache.put(message)
        frame = encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())
        for peer in self._fast_router.recipients(message, forwarder):
            queue = self.peer_queues.get(peer)
            if isinstance(queue, Outbox):
                queue.send(frame)
            elif queue is not None:  # its sending task is about to start
                queue.push(rpc_pb2.RPC(publish=[message]))

    async def write_msg(self, stream: INetStream, rpc_msg: Any) -> bool:
        """Send an RPC in its turn; False when it was dropped."""
        queue = self.peer_queues.get(stream.muxed_conn.peer_id)
        return queue is not None and queue.push(rpc_msg)

    async def handle_sending_messages(self, peer_id: ID, stream: INetStream, queue: RpcQueue) -> None:
        """Serve the outbox of one peer until it is closed; a peer that takes nothing is disconnected."""
        if self.peer_queues.get(peer_id) is not queue:
            return  # gone, or a second stream has taken its place
        outbox = self.peer_queues[peer_id] = Outbox(stream)
        if (replaced := self._outboxes.get(peer_id)) is not None:
            replaced.close()
        self._outboxes[peer_id] = outbox
        while (rpc := queue._queue.pop()) is not None:
            outbox.push(rpc)
        self.manager.run_task(outbox.close_with_stream)
        try:
            await outbox.serve()
        except trio.TooSlowError:
            _log.warning("gossip_peer_stalled", peer=str(peer_id), waiting=len(outbox), dropped=outbox.dropped)
            with trio.move_on_after(SHUTDOWN_TIMEOUT_S):
                await self.host.get_network().close_peer(peer_id)
        except Exception as error:
            # The stream broke, in one of the library's dozen ways.
            _log.info("gossip_stream_ended", peer=str(peer_id), cause=repr(error)[:200])
        finally:
            outbox.close()
            if self._outboxes.get(peer_id) is outbox:
                del self._outboxes[peer_id]
        if not stream.muxed_conn.is_closed:  # the peer has reset our stream: it may do so again at once
            await trio.sleep(GOSSIP_RETRY_S)
        if self.peer_queues.get(peer_id) is outbox:
            self._handle_dead_peer(peer_id)  # opens another stream when there is another connection


class _Inlet:
    """One inbound gossip stream. `feed` runs in the task that reads the connection, and never raises; what is more than
    _RPCS_PER_STEP at once is left to the task of the stream, between whose steps others have their turns, and the
    peer's window stays shut until it is done. So are control messages, in a bounded queue."""

    def __init__(self, pubsub: FastPubsub, connection: FastYamux, reader: FrameReader, stream: Any) -> None:
        self._pubsub, self._connection, self._reader, self.muxed = pubsub, connection, reader, stream.muxed_stream
        self._peer = connection.peer_id
        self._rpcs = RpcStream(pubsub.max_inbound_rpc_size)
        self._behind, self._owed = False, 0
        self._control: deque[Any] = deque()
        self._error: Exception | None = None
        self.dropped = 0

    def feed(self, data: bytes) -> None:
        """Handle the RPCs that `data` completes, now or in a later step."""
        if self._error is None:
            self._owed += len(data)
            self._rpcs.add(data)
            if not self._behind:
                self._step()

    def _step(self) -> None:
        try:
            for _ in range(_RPCS_PER_STEP):
                raw = self._rpcs.take()
                if raw is None:
                    self._behind = False
                    owed, self._owed = self._owed, 0
                    self._reader.give_back(self.muxed, owed)
                    return
                rpc = rpc_pb2.RPC.FromString(raw)
                self._pubsub.take_rpc(self._peer, rpc)
                if rpc.HasField("control"):
                    self._queue_control(rpc)
        except Exception as error:
            # Whatever the peer has sent: its stream ends with it, the connection's other streams do not.
            self._error = error
            self._wake()
            return
        if not self._behind:
            self._behind = True
            self._wake()

    async def serve(self) -> None:
        """Handle control messages until the stream ends; raises what `feed` has met."""
        stream_id, muxed, router = self.muxed.stream_id, self.muxed, self._pubsub._fast_router
        while True:
            event = self._connection.stream_events.get(stream_id)
            while self._control:
                await router.handle_rpc(self._control.popleft(), self._peer)
            if self._error is not None:
                raise self._error
            if self._behind:
                await trio.lowlevel.checkpoint()
                self._step()
                continue
            if event is None or muxed.recv_closed or muxed.closed or muxed.reset_received:
                return
            await event.wait()
            if self._connection.stream_events.get(stream_id) is event:
                self._connection.stream_events[stream_id] = trio.Event()

    def _queue_control(self, rpc: Any) -> None:
        if len(self._control) >= GOSSIP_CONTROL_QUEUE_MAX:
            if not self.dropped:
                _log.warning("gossip_control_flood", peer=str(self._peer))
            self.dropped += 1
            return
        self._control.append(rpc_pb2.RPC(control=rpc.control))
        self._wake()

    def _wake(self) -> None:
        if (event := self._connection.stream_events.get(self.muxed.stream_id)) is not None:
            event.set()


def _signed(message: Any) -> bool:
    """Whether the ed25519 key that its author's id holds has signed the message."""
    author = node_of_bytes(message.from_id)
    if author is None:
        return False
    signed = rpc_pb2.Message(
        data=message.data, topicIDs=message.topicIDs, from_id=message.from_id, seqno=message.seqno
    ).SerializeToString()
    return verify(author, _SIGNED_PREFIX + signed, message.signature)
