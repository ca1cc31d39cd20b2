"""Running transports of one kind, in memory or over libp2p, and how tests bring them together."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from cyxnode.p2p.memory import MemoryNetwork, MemoryTransport
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.ports import GossipMessage, GossipVerdict
from cyxnode.protocol.units import NodeId

ECHO, SINK = "/cyx/1/echo", "/cyx/1/sink"


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


async def pair(world: World) -> tuple[Any, Any]:
    near, far = await world.start(1), await world.start(2)
    near.learn(far.node_id, far.addresses())
    return near, far


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
