"""One suite for every transport: what the port promises must hold in memory and over libp2p, with the fast path for
gossip and without it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from cyxnode.p2p.memory import MemoryNetwork, MemoryTransport
from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.errors import LocalError, PeerUnreachable, Refusal
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import (
    FRAME_MAX_BYTES,
    GOSSIP_MESSAGE_MAX_BYTES,
    GOSSIP_REJECTS_MAX,
    REQUEST_MAX_BYTES,
    STREAMS_PER_PEER_MAX,
    TEXT_MAX_CHARS,
)
from cyxnode.protocol.ports import GossipMessage, GossipVerdict, Stream
from cyxnode.protocol.units import NodeId

ECHO, SINK = "/cyx/1/echo", "/cyx/1/sink"
Start = Callable[[int], Awaitable[Any]]


def key(number: int) -> KeyPair:
    return KeyPair(number.to_bytes(32, "big"))


def accept(_message: GossipMessage) -> GossipVerdict:
    return GossipVerdict.ACCEPT


async def echo(_peer: NodeId, payload: bytes) -> bytes:
    return payload


async def until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- any state of any object
            await trio.sleep(0.02)


class World:
    """Starts transports of one kind, each in a task of its own. `stop` ends one of them alone, cleanly."""

    def __init__(self, make: Callable[[KeyPair, int], Any], nursery: trio.Nursery) -> None:
        self.make, self._nursery = make, nursery
        self._stops: dict[NodeId, tuple[trio.Event, trio.Event]] = {}

    async def start(self, number: int, port: int = 0) -> Any:
        return await self._nursery.start(self._run, self.make(key(number), port))

    async def stop(self, transport: Any) -> None:
        stop, stopped = self._stops[transport.node_id]
        stop.set()
        await stopped.wait()

    async def stop_all(self) -> None:
        for stop, _ in self._stops.values():
            stop.set()
        for _, stopped in self._stops.values():
            await stopped.wait()

    async def _run(self, transport: Any, task_status: Any) -> None:
        stop, stopped = self._stops[transport.node_id] = trio.Event(), trio.Event()
        async with transport.run():
            task_status.started(transport)
            await stop.wait()
        stopped.set()


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    async with MemoryNetwork(random.Random(7)).run() as network, trio.open_nursery() as nursery:
        world = World(lambda pair, _port: MemoryTransport(network, pair.node_id), nursery)
        yield world
        await world.stop_all()


@asynccontextmanager
async def libp2p_world(*, fast: bool) -> AsyncIterator[World]:
    from cyxnode.p2p.transport import Libp2pTransport

    async with trio.open_nursery() as nursery:
        world = World(lambda pair, port: Libp2pTransport(pair, port=port, fast_gossip=fast), nursery)
        yield world
        await world.stop_all()


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("fast", "library"))])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    async with memory_world() if request.param == "memory" else libp2p_world(fast=request.param == "fast") as one:
        yield one


async def pair(world: World) -> tuple[Any, Any]:
    near, far = await world.start(1), await world.start(2)
    near.learn(far.node_id, far.addresses())
    return near, far


# requests


async def test_request_returns_the_answer_of_the_handler(world: World) -> None:
    near, far = await pair(world)
    far.serve(ECHO, echo)
    for payload in (b"", b"hello", random.Random(1).randbytes(3 * FRAME_MAX_BYTES + 5), bytes(REQUEST_MAX_BYTES)):
        assert await near.request(far.node_id, ECHO, payload, timeout_s=5) == payload
    assert near.connected() == {far.node_id}
    assert far.connected() == {near.node_id}


async def test_request_tells_the_handler_who_asks(world: World) -> None:
    near, far = await pair(world)

    async def who(peer: NodeId, _payload: bytes) -> bytes:
        return peer

    far.serve(ECHO, who)
    assert await near.request(far.node_id, ECHO, b"", timeout_s=5) == near.node_id


async def test_refusal_travels_as_its_text_and_a_defect_as_internal_error(world: World) -> None:
    near, far = await pair(world)

    async def refuse(_peer: NodeId, payload: bytes) -> bytes:
        if payload:
            raise ValueError("a secret of the server")
        raise Refusal("not today: " + "x" * 2 * TEXT_MAX_CHARS)

    far.serve(ECHO, refuse)
    with pytest.raises(Refusal, match="not today") as refused:
        await near.request(far.node_id, ECHO, b"", timeout_s=5)
    assert len(str(refused.value)) == TEXT_MAX_CHARS
    assert refused.value.peer == far.node_id
    with pytest.raises(Refusal, match=r"^internal error$"):
        await near.request(far.node_id, ECHO, b"bug", timeout_s=5)
    with pytest.raises(Refusal):
        await near.request(far.node_id, ECHO, b"", timeout_s=5)


async def test_request_that_is_not_answered_in_time_is_unreachable(world: World) -> None:
    near, far = await pair(world)

    async def never(_peer: NodeId, _payload: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    far.serve(ECHO, never)
    with pytest.raises(PeerUnreachable, match="did not answer"):
        await near.request(far.node_id, ECHO, b"", timeout_s=0.3)


async def test_handler_is_cancelled_when_its_asker_gives_up(world: World) -> None:
    near, far = await pair(world)
    cancelled = 0

    async def never(_peer: NodeId, _payload: bytes) -> bytes:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        finally:
            cancelled += 1
        raise AssertionError

    async def ask() -> None:
        with pytest.raises(PeerUnreachable):
            await near.request(far.node_id, ECHO, b"", timeout_s=0.5)

    far.serve(ECHO, never)
    await near.connect(far.addresses()[0])
    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS_PER_PEER_MAX // 2):
            nursery.start_soon(ask)
    await until(lambda: cancelled)
    await until(lambda: cancelled == STREAMS_PER_PEER_MAX // 2)


async def test_oversized_requests_and_answers_are_refused(world: World) -> None:
    near, far = await pair(world)

    async def bloat(_peer: NodeId, _payload: bytes) -> bytes:
        return bytes(4 * 1024 * 1024 + 1)

    far.serve(ECHO, bloat)
    with pytest.raises(LocalError):
        await near.request(far.node_id, ECHO, bytes(REQUEST_MAX_BYTES + 1), timeout_s=5)
    with pytest.raises(Refusal, match="internal error"):
        await near.request(far.node_id, ECHO, b"", timeout_s=5)


async def test_many_requests_at_once_are_all_answered(world: World) -> None:
    near, far = await pair(world)
    far.serve(ECHO, echo)
    answers: list[bytes] = []

    async def ask(number: int) -> None:
        answers.append(await near.request(far.node_id, ECHO, bytes([number]), timeout_s=8))

    async with trio.open_nursery() as nursery:
        for number in range(STREAMS_PER_PEER_MAX // 2):
            nursery.start_soon(ask, number)
    assert sorted(answers) == [bytes([number]) for number in range(STREAMS_PER_PEER_MAX // 2)]


async def test_a_peer_may_not_open_more_streams_than_its_share(world: World) -> None:
    near, far = await pair(world)
    served: list[Stream] = []

    async def hold(stream: Stream) -> None:
        served.append(stream)
        await trio.sleep_forever()

    far.serve_stream(SINK, hold)
    streams = [await near.open_stream(far.node_id, SINK) for _ in range(STREAMS_PER_PEER_MAX)]
    await until(lambda: len(served) == STREAMS_PER_PEER_MAX)
    one_too_many = await near.open_stream(far.node_id, SINK)
    with pytest.raises(PeerUnreachable), trio.fail_after(5):
        await one_too_many.receive()
    assert len(served) == STREAMS_PER_PEER_MAX
    for stream in streams:
        await stream.reset()


# streams


async def test_stream_carries_frames_both_ways_and_ends_cleanly(world: World) -> None:
    near, far = await pair(world)
    received: list[bytes] = []

    async def serve(stream: Stream) -> None:
        while (frame := await stream.receive()) is not None:
            received.append(frame)
        await stream.send(b"thanks")

    far.serve_stream(SINK, serve)
    stream = await near.open_stream(far.node_id, SINK)
    assert stream.peer == far.node_id
    sent = [b"", b"one", bytes(FRAME_MAX_BYTES)]
    for frame in sent:
        await stream.send(frame)
    await stream.close()
    assert await stream.receive() == b"thanks"
    assert await stream.receive() is None
    assert await stream.receive() is None
    assert received == sent
    with pytest.raises(LocalError):
        await stream.send(b"after the end")


async def test_stream_that_breaks_is_told_apart_from_a_clean_end(world: World) -> None:
    near, far = await pair(world)

    async def serve(stream: Stream) -> None:
        await stream.send(b"first")
        await stream.receive()
        raise RuntimeError("a defect of the handler")

    far.serve_stream(SINK, serve)
    far.serve(ECHO, echo)
    stream = await near.open_stream(far.node_id, SINK)
    assert await stream.receive() == b"first"
    await stream.send(b"go on")
    with pytest.raises(PeerUnreachable), trio.fail_after(5):
        await stream.receive()
    assert await near.request(far.node_id, ECHO, b"still alive", timeout_s=5) == b"still alive"


async def test_reset_reaches_the_peer(world: World) -> None:
    near, far = await pair(world)
    ended: list[str] = []

    async def serve(stream: Stream) -> None:
        try:
            await stream.receive()
        except PeerUnreachable:
            ended.append("broken")

    far.serve_stream(SINK, serve)
    stream = await near.open_stream(far.node_id, SINK)
    await stream.reset()
    await until(lambda: ended)
    with pytest.raises(PeerUnreachable):
        await stream.send(b"x")
    await stream.reset()


async def test_peer_that_goes_away_breaks_its_streams(world: World) -> None:
    near, far = await pair(world)

    async def hold(stream: Stream) -> None:
        await stream.send(b"here")
        await trio.sleep_forever()

    far.serve_stream(SINK, hold)
    stream = await near.open_stream(far.node_id, SINK)
    assert await stream.receive() == b"here"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.stop, far)
        with pytest.raises(PeerUnreachable), trio.fail_after(5):
            await stream.receive()


async def test_oversized_frame_is_refused_before_it_is_sent(world: World) -> None:
    near, far = await pair(world)
    far.serve_stream(SINK, lambda stream: stream.receive())
    stream = await near.open_stream(far.node_id, SINK)
    with pytest.raises(LocalError, match="frame"):
        await stream.send(bytes(FRAME_MAX_BYTES + 1))
    await stream.reset()


async def test_reader_holds_its_sender_back(world: World) -> None:
    near, far = await pair(world)
    read_on, total = trio.Event(), 0

    async def serve(stream: Stream) -> None:
        nonlocal total
        await read_on.wait()
        while (frame := await stream.receive()) is not None:
            total += len(frame)

    far.serve_stream(SINK, serve)
    stream = await near.open_stream(far.node_id, SINK)
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(64):
            await stream.send(bytes(FRAME_MAX_BYTES // 2))
            sent += 1
        await stream.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(0.3)
        held_back_at = sent
        assert held_back_at < 32
        read_on.set()
    await until(lambda: total == 64 * (FRAME_MAX_BYTES // 2))


@pytest.mark.slow
async def test_reader_may_pause_for_eight_seconds(world: World) -> None:
    near, far = await pair(world)
    total = 0

    async def serve(stream: Stream) -> None:
        nonlocal total
        await trio.sleep(8)
        while (frame := await stream.receive()) is not None:
            total += len(frame)

    far.serve_stream(SINK, serve)
    stream = await near.open_stream(far.node_id, SINK)
    for _ in range(16):
        await stream.send(bytes(FRAME_MAX_BYTES))
    await stream.close()
    await until(lambda: total == 16 * FRAME_MAX_BYTES)


# dialling


async def test_unknown_peers_and_protocols_are_unreachable(world: World) -> None:
    near, far = await pair(world)
    with pytest.raises(PeerUnreachable, match="no address"):
        await near.request(key(99).node_id, ECHO, b"", timeout_s=5)
    with pytest.raises(PeerUnreachable):
        await near.open_stream(far.node_id, "/cyx/1/unknown")
    with pytest.raises(LocalError):
        await near.request(near.node_id, ECHO, b"", timeout_s=5)


async def test_dialling_another_node_than_the_address_names_fails(world: World) -> None:
    near, far = await pair(world)
    lie = far.addresses()[0].rsplit("/", 1)[0] + "/" + peer_id_text(key(99).node_id)
    with pytest.raises(PeerUnreachable):
        await near.connect(lie)
    near.learn(key(99).node_id, [lie])
    with pytest.raises(PeerUnreachable):
        await near.request(key(99).node_id, ECHO, b"", timeout_s=5)
    assert key(99).node_id not in near.connected()


async def test_learning_drops_hostile_addresses_and_a_later_good_one_works(world: World) -> None:
    near, far = await world.start(1), await world.start(2)
    good = far.addresses()[0]
    hostile = ["", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/1.2.3.4/tcp/99999/p2p/x", good + "/p2p-circuit", "x" * 10_000]
    near.learn(far.node_id, hostile)
    near.learn(key(50).node_id, [good])
    far.serve(ECHO, echo)
    for node in (far.node_id, key(50).node_id):
        with pytest.raises(PeerUnreachable, match="no address"):
            await near.request(node, ECHO, b"", timeout_s=5)
    near.learn(far.node_id, [*hostile, good])
    assert await near.request(far.node_id, ECHO, b"x", timeout_s=5) == b"x"


async def test_connect_returns_who_answered_and_refuses_malformed_addresses(world: World) -> None:
    near, far = await pair(world)
    assert await near.connect(far.addresses()[0]) == far.node_id
    assert await near.connect(far.addresses()[0]) == far.node_id
    with pytest.raises(LocalError, match="address"):
        await near.connect("http://example.org")


async def test_disconnect_ends_the_connection_on_both_sides(world: World) -> None:
    near, far = await pair(world)
    await near.connect(far.addresses()[0])
    await until(lambda: near.node_id in far.connected())
    await near.disconnect(far.node_id)
    await until(lambda: not near.connected() and not far.connected())
    await near.disconnect(far.node_id)


async def test_a_node_that_stops_is_nobodys_peer_any_more(world: World) -> None:
    nodes = [await world.start(number) for number in range(1, 4)]
    for node in nodes[1:]:
        await node.connect(nodes[0].addresses()[0])
    await until(lambda: len(nodes[0].connected()) == 2)
    await world.stop(nodes[0])
    await until(lambda: not nodes[1].connected() and not nodes[2].connected(), seconds=3)


async def test_serving_twice_or_under_a_bad_name_is_refused(world: World) -> None:
    node = await world.start(1)
    node.serve(ECHO, echo)
    for protocol in (ECHO, "no-slash", "/" + "x" * 1000):
        with pytest.raises(LocalError, match="protocol"):
            node.serve(protocol, echo)


# gossip


async def star(world: World, count: int) -> list[Any]:
    nodes = [await world.start(number) for number in range(1, count + 1)]
    for node in nodes[1:]:
        await node.connect(nodes[0].addresses()[0])
    await until(lambda: len(nodes[0].connected()) == count - 1)
    return nodes


@asynccontextmanager
async def joined(
    nodes: list[Any], topic: str, validator: Callable[[GossipMessage], GossipVerdict] = accept
) -> AsyncIterator[list[list[GossipMessage]]]:
    """Subscribe all nodes; yields one growing list of messages for each."""
    heard: list[list[GossipMessage]] = [[] for _ in nodes]

    async def listen(messages: AsyncIterator[GossipMessage], into: list[GossipMessage]) -> None:
        async for message in messages:
            into.append(message)

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for node, into in zip(nodes, heard, strict=True):
            nursery.start_soon(listen, await stack.enter_async_context(node.subscribe(topic, validator)), into)
        await trio.sleep(0.3)
        yield heard
        nursery.cancel_scope.cancel()


async def test_gossip_reaches_every_subscriber_once_and_not_its_author(world: World) -> None:
    nodes = await star(world, 5)
    async with joined(nodes, "t") as heard:
        for number in range(10):
            await nodes[number % 5].publish("t", bytes([number]))
        await until(lambda: sum(map(len, heard)) >= 40)
        await trio.sleep(0.3)
    for index, messages in enumerate(heard):
        assert sorted(message.data[0] for message in messages) == [n for n in range(10) if n % 5 != index]
        assert all(message.author == nodes[message.data[0] % 5].node_id for message in messages)
        assert all(message.topic == "t" for message in messages)
    assert {message.forwarder for message in heard[1]} == {nodes[0].node_id}


async def test_a_burst_is_delivered_whole(world: World) -> None:
    nodes = await star(world, 2)
    async with joined(nodes, "t") as heard:
        for number in range(300):
            await nodes[0].publish("t", number.to_bytes(2, "big"))
        await until(lambda: len(heard[1]) == 300)


async def test_a_node_that_leaves_a_topic_and_comes_back_is_heard_and_hears_at_once(world: World) -> None:
    nodes = await star(world, 3)
    async with joined(nodes[:1], "t") as others:
        for number in range(4):
            async with joined(nodes[1:2], "t") as own:
                await nodes[1].publish("t", bytes([1, number]))
                await nodes[0].publish("t", bytes([0, number]))
                await until(lambda own=own, number=number: len(others[0]) == number + 1 and len(own[0]) == 1, 2)


async def test_publishing_works_without_a_subscription(world: World) -> None:
    nodes = await star(world, 3)
    async with joined(nodes[:2], "t") as heard:
        await nodes[2].publish("t", b"from outside")
        await until(lambda: heard[0] and heard[1])
    assert heard[0][0].author == nodes[2].node_id
    await nodes[0].publish("nobody-listens", b"x")


async def test_only_accepted_messages_are_delivered_and_forwarded(world: World) -> None:
    nodes = await star(world, 3)
    verdicts = {b"accept": GossipVerdict.ACCEPT, b"ignore": GossipVerdict.IGNORE, b"reject": GossipVerdict.REJECT}
    async with (
        joined([nodes[0]], "t", lambda message: verdicts[message.data]) as (at_hub,),
        joined(nodes[2:], "t") as (at_leaf,),
    ):
        for data in (b"ignore", b"reject", b"raises KeyError", b"accept"):
            await nodes[1].publish("t", data)
        await until(lambda: at_hub and at_leaf)
        await trio.sleep(0.2)
    assert [message.data for message in at_hub] == [message.data for message in at_leaf] == [b"accept"]


async def test_a_forwarder_of_many_rejected_messages_is_banned(world: World) -> None:
    nodes = await star(world, 2)
    async with joined([nodes[0]], "t", lambda _message: GossipVerdict.REJECT):
        for number in range(GOSSIP_REJECTS_MAX):
            await nodes[1].publish("t", bytes([number]))
        await until(lambda: not nodes[0].connected())
    with pytest.raises(PeerUnreachable):
        await nodes[0].connect(nodes[1].addresses()[0])


async def test_gossip_refuses_what_is_too_large_or_subscribed_already(world: World) -> None:
    node = await world.start(1)
    with pytest.raises(LocalError):
        await node.publish("t", bytes(GOSSIP_MESSAGE_MAX_BYTES + 1))
    async with node.subscribe("t", accept):
        with pytest.raises(LocalError, match="already"):
            async with node.subscribe("t", accept):
                pass
    async with node.subscribe("t", accept):
        pass


async def test_the_largest_gossip_message_arrives(world: World) -> None:
    nodes = await star(world, 2)
    async with joined(nodes, "t") as heard:
        for number in range(8):
            await nodes[0].publish("t", bytes([number]) * GOSSIP_MESSAGE_MAX_BYTES)
        await until(lambda: len(heard[1]) == 8)


# the context


async def test_a_node_may_return_under_its_old_address(world: World) -> None:
    near, far = await pair(world)
    address = far.addresses()[0]
    for _ in range(3):
        await world.stop(far)
        with pytest.raises(PeerUnreachable):
            await near.request(far.node_id, ECHO, b"x", timeout_s=5)
        far = await world.start(2, port=int(address.split("/")[4]))
        assert far.addresses() == (address,)
        far.serve(ECHO, echo)
        assert await near.request(far.node_id, ECHO, b"x", timeout_s=5) == b"x"


async def test_an_error_of_the_body_comes_out_as_itself(world: World) -> None:
    transport = world.make(key(1), 0)
    with pytest.raises(ZeroDivisionError):
        async with transport.run():
            raise ZeroDivisionError


async def test_a_transport_runs_once(world: World) -> None:
    transport = world.make(key(1), 0)
    with pytest.raises(LocalError, match="not running"):
        await transport.open_stream(key(2).node_id, ECHO)
    async with transport.run():
        pass
    with pytest.raises(LocalError, match="already"):
        async with transport.run():
            pass
