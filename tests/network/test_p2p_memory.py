"""What only the in-memory network can do: virtual time, loss, partitions, sudden death, and the same run again."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio
from trio.testing import MockClock

from cyxnode.p2p import doors
from cyxnode.p2p.memory import MemoryNetwork, MemoryTransport, constant_latency
from cyxnode.protocol.errors import LocalError, PeerUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import BAN_FIRST_MS, GOSSIP_REJECTS_MAX
from cyxnode.protocol.ports import GossipMessage, GossipVerdict, Stream
from cyxnode.protocol.units import NodeId

ECHO = "/cyx/1/echo"


def nodes_of(network: MemoryNetwork, count: int) -> list[MemoryTransport]:
    return [MemoryTransport(network, KeyPair(number.to_bytes(32, "big")).node_id) for number in range(1, count + 1)]


def accept(_message: GossipMessage) -> GossipVerdict:
    return GossipVerdict.ACCEPT


async def echo(_peer: NodeId, payload: bytes) -> bytes:
    return payload


async def test_time_is_virtual_and_latency_is_paid(autojump_clock: MockClock) -> None:
    async with MemoryNetwork(random.Random(1), latency=constant_latency(1)).run() as network:
        near, far = nodes_of(network, 2)
        far.serve(ECHO, echo)
        async with near.run(), far.run():
            await near.connect(far.addresses()[0])
            start = trio.current_time()
            assert await near.request(far.node_id, ECHO, b"x", timeout_s=9) == b"x"
            assert trio.current_time() - start == pytest.approx(4)


async def test_killed_node_breaks_its_streams_and_may_come_back(autojump_clock: MockClock) -> None:
    async with MemoryNetwork(random.Random(1)).run() as network:
        near, far = nodes_of(network, 2)
        cancelled = trio.Event()

        async def hold(stream: Stream) -> None:
            await stream.send(b"here")
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        far.serve_stream("/hold", hold)
        async with near.run(), far.run():
            await near.connect(far.addresses()[0])
            stream = await near.open_stream(far.node_id, "/hold")
            assert await stream.receive() == b"here"
            network.kill(far.node_id)
            with pytest.raises(PeerUnreachable):
                await stream.receive()
            await cancelled.wait()
            assert near.connected() == far.connected() == frozenset()
            with pytest.raises(LocalError, match="not running"):
                await far.connect(near.addresses()[0])
            with pytest.raises(PeerUnreachable):
                await near.request(far.node_id, ECHO, b"", timeout_s=5)
            reborn = MemoryTransport(network, far.node_id)
            reborn.serve(ECHO, echo)
            async with reborn.run():
                assert reborn.addresses() == far.addresses()
                assert await near.request(far.node_id, ECHO, b"x", timeout_s=5) == b"x"


async def test_a_stalled_node_hears_and_says_nothing_until_it_goes_on(autojump_clock: MockClock) -> None:
    heard: list[tuple[float, bytes]] = []

    def hear(message: GossipMessage) -> GossipVerdict:
        heard.append((round(trio.current_time(), 1), message.data))
        return GossipVerdict.ACCEPT

    async with MemoryNetwork(random.Random(1)).run() as network:
        near, far, late = nodes_of(network, 3)
        for one in (near, far):
            one.serve(ECHO, echo)
        async with near.run(), far.run(), late.run(), near.subscribe("t", hear), far.subscribe("t", hear):
            await near.connect(far.addresses()[0])
            start = round(trio.current_time(), 1)
            network.stall(far.node_id, 20)
            await near.publish("t", b"to it")
            await far.publish("t", b"from it")
            with pytest.raises(PeerUnreachable, match="within 5 s"):
                await near.request(far.node_id, ECHO, b"x", timeout_s=5)
            with pytest.raises(PeerUnreachable, match="in time"):
                await late.connect(far.addresses()[0])
            assert heard == [] and near.connected() == {far.node_id}, "the connection stands and carries nothing"
            await trio.sleep(start + 19.5 - trio.current_time())
            assert heard == []
            assert await near.request(far.node_id, ECHO, b"x", timeout_s=5) == b"x"
            assert sorted(heard) == [(start + 20, b"from it"), (start + 20, b"to it")]


async def test_a_stall_ends_with_the_life_of_the_node(autojump_clock: MockClock) -> None:
    async with MemoryNetwork(random.Random(1)).run() as network:
        near, far = nodes_of(network, 2)
        async with near.run(), far.run():
            network.stall(far.node_id, 1_000)
            network.kill(far.node_id)
            reborn = MemoryTransport(network, far.node_id)
            async with reborn.run():
                assert await near.connect(far.addresses()[0]) == far.node_id


async def test_partition_separates_and_heals(autojump_clock: MockClock) -> None:
    async with MemoryNetwork(random.Random(1)).run() as network, AsyncExitStack() as stack:
        nodes = nodes_of(network, 3)
        for node in nodes:
            node.serve(ECHO, echo)
            await stack.enter_async_context(node.run())
        a, b, c = nodes
        await a.connect(b.addresses()[0])
        await a.connect(c.addresses()[0])
        network.partition([[a.node_id, b.node_id], [c.node_id]])
        assert (a.connected(), c.connected()) == ({b.node_id}, frozenset())
        assert await a.request(b.node_id, ECHO, b"x", timeout_s=5) == b"x"
        with pytest.raises(PeerUnreachable):
            await a.request(c.node_id, ECHO, b"x", timeout_s=20)
        network.heal()
        assert await a.request(c.node_id, ECHO, b"x", timeout_s=5) == b"x"


async def test_loss_drops_gossip_but_never_a_frame(autojump_clock: MockClock) -> None:
    async with MemoryNetwork(random.Random(3), loss=0.5).run() as network:
        near, far = nodes_of(network, 2)
        far.serve(ECHO, echo)
        async with near.run(), far.run():
            await near.connect(far.addresses()[0])
            heard = 0
            async with far.subscribe("t", accept) as messages:
                for number in range(200):
                    await near.publish("t", bytes([number]))
                with trio.move_on_after(5):
                    async for _ in messages:
                        heard += 1
            assert 60 < heard < 140
            for number in range(50):
                assert await near.request(far.node_id, ECHO, bytes([number]), timeout_s=60) == bytes([number])


async def transcript(seed: int) -> list[tuple[float, bytes, bytes]]:
    """Who heard what when, in a small world with random delays and loss."""
    lines: list[tuple[float, bytes, bytes]] = []

    async def listen(node: MemoryTransport, messages: AsyncIterator[GossipMessage]) -> None:
        async for message in messages:
            lines.append((trio.current_time(), node.node_id, message.data))

    network = MemoryNetwork(random.Random(seed), latency=lambda _a, _b, rng: rng.uniform(0.01, 0.2), loss=0.1)
    async with network.run(), trio.open_nursery() as nursery, AsyncExitStack() as stack:
        nodes = nodes_of(network, 12)
        for node in nodes:
            await stack.enter_async_context(node.run())
        for index, node in enumerate(nodes):
            for step in (1, 3):
                await node.connect(nodes[(index + step) % len(nodes)].addresses()[0])
            nursery.start_soon(listen, node, await stack.enter_async_context(node.subscribe("t", accept)))
        for number in range(20):
            await nodes[number % len(nodes)].publish("t", bytes([number]))
            await trio.sleep(0.05)
        await trio.sleep(5)
    return lines


def test_the_same_seed_gives_the_same_run() -> None:
    runs = [trio.run(transcript, seed, clock=MockClock(autojump_threshold=0)) for seed in (1, 1, 2)]
    base = [sorted((round(at - run[0][0], 9), node, data) for at, node, data in run) for run in runs]
    assert base[0] == base[1]
    assert base[0] != base[2]
    assert len(runs[0]) > 150
    assert len({(node, data) for _, node, data in runs[0]}) == len(runs[0]), "a message was delivered twice"


@pytest.mark.slow
def test_two_hundred_nodes_are_cheap() -> None:
    async def world() -> int:
        heard = 0

        async def listen(messages: AsyncIterator[GossipMessage]) -> None:
            nonlocal heard
            async for _ in messages:
                heard += 1

        network = MemoryNetwork(random.Random(1))
        async with network.run(), trio.open_nursery() as nursery, AsyncExitStack() as stack:
            nodes = nodes_of(network, 200)
            for node in nodes:
                await stack.enter_async_context(node.run())
                nursery.start_soon(listen, await stack.enter_async_context(node.subscribe("t", accept)))
            for index, node in enumerate(nodes):
                for step in (1, 2, 5, 11, 29, 73):
                    await node.connect(nodes[(index + step) % 200].addresses()[0])
            for node in nodes[:100]:
                await node.publish("t", b"x")
            await trio.sleep(5)
        return heard

    start = time.process_time()
    assert trio.run(world, clock=MockClock(autojump_threshold=0)) == 100 * 199
    assert time.process_time() - start < 20


def test_the_in_memory_transport_does_not_load_libp2p() -> None:
    import subprocess

    code = "import sys, cyxnode.p2p.memory, cyxnode.p2p.blob_store; sys.exit('libp2p' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_node_lets_in_so_many_and_a_host_may_not_knock_all_the_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "INBOUND_CONNECTIONS_MAX", 2)
    monkeypatch.setattr(doors, "CONNECTIONS_PER_HOST", (1.0, 3))
    async with MemoryNetwork(random.Random(1)).run() as network, AsyncExitStack() as stack:
        near, second, third, far = nodes_of(network, 4)
        for node in (near, second, third, far):
            await stack.enter_async_context(node.run())
        for node in (near, second):
            await node.connect(far.addresses()[0])
        with pytest.raises(PeerUnreachable):
            await third.connect(far.addresses()[0])
        await second.disconnect(far.node_id)
        await third.connect(far.addresses()[0])
        for _ in range(2):
            await near.disconnect(far.node_id)
            await near.connect(far.addresses()[0])
        await near.disconnect(far.node_id)
        with pytest.raises(PeerUnreachable):
            await near.connect(far.addresses()[0])
        await trio.sleep(1)
        await near.connect(far.addresses()[0])
        assert far._doors.refused == {"total": 1, "rate": 1}


async def test_a_ban_ends_by_itself(autojump_clock: MockClock) -> None:
    async with MemoryNetwork(random.Random(1)).run() as network, AsyncExitStack() as stack:
        near, far = nodes_of(network, 2)
        for node in (near, far):
            await stack.enter_async_context(node.run())
        far.serve("/echo", echo)
        await stack.enter_async_context(far.subscribe("t", lambda _message: GossipVerdict.REJECT))
        await stack.enter_async_context(near.subscribe("t", accept))
        await near.connect(far.addresses()[0])
        for number in range(GOSSIP_REJECTS_MAX):
            await near.publish("t", b"%d" % number)
        await trio.sleep(1)
        assert not near.connected()
        with pytest.raises(PeerUnreachable):
            await near.connect(far.addresses()[0])
        await trio.sleep(BAN_FIRST_MS / 1000)
        await near.connect(far.addresses()[0])
        assert await near.request(far.node_id, "/echo", b"x", timeout_s=5) == b"x"
