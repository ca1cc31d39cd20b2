"""Nodes that gossip over libp2p, and strangers who write what they like on a gossip stream or sit on the wire."""

from __future__ import annotations

from cyxnode.p2p import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX
from libp2p.utils import encode_varint_prefixed

from cyxnode.p2p.host import libp2p_id
from cyxnode.p2p.peer_id import peer_id_bytes
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.ports import GossipMessage, GossipVerdict
from transport_world import ECHO, echo, key, until

GOSSIP, TOPIC = "/meshsub/1.1.0", "t"


class Member:
    """A running node that has joined TOPIC; `heard` grows."""

    def __init__(self, number: int, fast: bool) -> None:
        self.node: Any = Libp2pTransport(key(number), fast_gossip=fast)
        self.node.serve(ECHO, echo)
        self.heard: list[GossipMessage] = []
        self._stop, self._stopped = trio.Event(), trio.Event()

    @property
    def pubsub(self) -> Any:
        return self.node._gossip._pubsub

    @property
    def data(self) -> list[bytes]:
        return [message.data for message in self.heard]

    def outbox(self, other: Member) -> Any:
        return self.pubsub.peer_queues[libp2p_id(other.node.node_id)]

    async def live(self, task_status: Any) -> None:
        async with self.node.run(), self.node.subscribe(TOPIC, lambda _message: GossipVerdict.ACCEPT) as messages:
            task_status.started(self)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, messages)
                await self._stop.wait()
                nursery.cancel_scope.cancel()
        self._stopped.set()

    async def stop(self) -> None:
        """End cleanly; a second time does nothing."""
        self._stop.set()
        await self._stopped.wait()

    async def vanish(self) -> None:
        """Break every connection without a word, then end."""
        for group in list(self.node._network.connections.values()):
            for connection in group:
                await trio.aclose_forcefully(_tcp(connection))
        await self.stop()

    async def _listen(self, messages: AsyncIterator[GossipMessage]) -> None:
        async for message in messages:
            self.heard.append(message)


def _tcp(connection: Any) -> trio.SocketStream:
    session = connection.muxed_conn.secured_conn
    stream: trio.SocketStream = session.conn.read_writer.read_write_closer.stream.stream
    return stream


class Village:
    """Starts members in tasks of their own."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.members: list[Member] = []

    async def member(self, number: int, *, fast: bool = True) -> Member:
        member: Member = await self._nursery.start(Member(number, fast).live)
        self.members.append(member)
        return member

    async def meet(self, *members: Member) -> None:
        """Connect everyone with everyone, and wait until all know who has joined."""
        for place, late in enumerate(members):
            for early in members[:place]:
                await late.node.connect(early.node.addresses()[0])
        for one in members:
            await until(lambda one=one: len(one.pubsub.peer_topics.get(TOPIC, ())) >= len(members) - 1)


@asynccontextmanager
async def village() -> AsyncIterator[Village]:
    async with trio.open_nursery() as nursery:
        one = Village(nursery)
        yield one
        for member in one.members:
            await member.stop()


def signed(pair: KeyPair, data: bytes, number: int, topic: str = TOPIC) -> rpc_pb2.Message:
    """A message that the library would publish."""
    message = rpc_pb2.Message(
        data=data, topicIDs=[topic], from_id=peer_id_bytes(pair.node_id), seqno=number.to_bytes(8, "big")
    )
    message.signature = pair.sign(PUBSUB_SIGNING_PREFIX.encode() + message.SerializeToString())
    return message


def frame(rpc: rpc_pb2.RPC) -> bytes:
    return encode_varint_prefixed(rpc.SerializeToString())


def publishing(*messages: rpc_pb2.Message) -> bytes:
    return frame(rpc_pb2.RPC(publish=messages))


async def gossip_stream(stranger: Member, victim: Member) -> Any:
    """A raw gossip stream to the victim, beside the stranger's own."""
    return await stranger.node._host.new_stream(libp2p_id(victim.node.node_id), [GOSSIP])


async def still_serves(victim: Member, friend: Member) -> None:
    """Requests are answered, and gossip passes both ways."""
    assert await friend.node.request(victim.node.node_id, ECHO, b"?", timeout_s=5) == b"?"
    for one, other in ((friend, victim), (victim, friend)):
        data = b"still here %d" % len(other.heard)
        await one.node.publish(TOPIC, data)
        await until(lambda other=other, data=data: data in other.data)


class Wire:
    """A TCP relay to `target` which passes bytes on as `pass_on(count)` says: how many, or 0 to break the line."""

    def __init__(self, target: str, pass_on: Callable[[int], int]) -> None:
        self._port, self._pass_on = int(target.split("/")[4]), pass_on
        self._node = target.rsplit("/", 1)[1]
        self.hold = trio.Event()
        self.hold.set()
        self.passed = 0

    async def serve(self, task_status: Any) -> None:
        """Relay connections; started with the address to dial instead."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        task_status.started(f"/ip4/127.0.0.1/tcp/{port}/p2p/{self._node}")
        await trio.serve_listeners(self._relay, [listener])

    async def _relay(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with near, far:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
                    nursery.start_soon(self._pump, far, near, nursery.cancel_scope)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, over: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(65536):
                while data:
                    await self.hold.wait()
                    count = self._pass_on(self.passed)
                    if not count:
                        break
                    await sink.send_all(data[:count])
                    self.passed += min(count, len(data))
                    data = data[count:]
                if data:
                    break
        over.cancel()
