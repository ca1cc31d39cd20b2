"""A whole market in one process and in virtual time: the real nodes, the real program, no socket, no process."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any

import trio
import trio._core._run

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.faucet import request_airdrop, request_tokens
from cyxnode.ledger.genesis import ensure_genesis
from cyxnode.ledger.journal import MemoryJournal
from cyxnode.p2p.blob_store import MemoryBlobs
from cyxnode.p2p.memory import MemoryTransport
from cyxnode.p2p.memory_network import Latency, MemoryNetwork
from cyxnode.protocol.errors import ChainUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.ports import Journal, Models, Runner, Transport
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.context import NodeSettings
from cyxnode.scheduler.node import Node, Ports, open_node
from cyxnode.scheduler.requester import open_requester
from cyxnode.scheduler.requester_service import JobResult, News, RequesterService, TrainOrder
from cyxnode.simulation.desk import simulated_spec

START_S = 1_800_000_000


class VirtualClock:
    """Wall time that moves with trio's clock, `ahead_ms` of the right one."""

    ahead_ms = 0

    def unix_ms(self) -> int:
        return START_S * 1000 + self.monotonic_ms() + self.ahead_ms

    def monotonic_ms(self) -> int:
        return round(trio.current_time() * 1000)


@dataclass(slots=True)
class SeededRandomness:
    """Secrets of a simulated node."""

    rng: random.Random

    def bytes(self, count: int) -> bytes:
        return self.rng.randbytes(count)


class FlakyRpc:
    """The chain's RPC as long as the world says that it answers."""

    def __init__(self, world: World, cluster: LocalCluster) -> None:
        self._world, self._rpc = world, DirectRpc(cluster)
        self.policy = self._rpc.policy

    def __getattr__(self, name: str) -> Any:
        if self._world.chain_away:
            return self._away
        return partial(self._slowly, getattr(self._rpc, name))

    async def _slowly(self, call: Callable[..., Any], *arguments: object, **named: object) -> Any:
        await trio.sleep(self._world.chain_latency_s)
        return await call(*arguments, **named)

    async def _away(self, *arguments: object, **named: object) -> Any:
        await trio.lowlevel.checkpoint()
        raise ChainUnreachable("the RPC server is away")


@dataclass(slots=True)
class World:
    """A running market."""

    seed: int
    network: MemoryNetwork
    cluster: LocalCluster
    nursery: trio.Nursery
    bootstrap: tuple[str, ...] = ()
    scopes: dict[NodeId, trio.CancelScope] = field(default_factory=dict)
    journals: dict[NodeId, Journal] = field(default_factory=dict)
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    tamper: Callable[[Transport], Transport] = lambda transport: transport
    """Wraps the transport of every node that is added: the door for saboteurs."""
    chain_away: bool = False
    chain_latency_s: float = 0.0

    def key(self, name: str) -> KeyPair:
        return KeyPair(sha256(f"{self.seed}/{name}".encode()).digest())

    async def ports(self, name: str, *, micro_cyx: int) -> Ports:
        """A funded identity with its own view of the world; its transport is not running yet."""
        key, rpc = self.key(name), DirectRpc(self.cluster)
        client = ChainClient(FlakyRpc(self, self.cluster), key, LOCAL_PROGRAM_ID)
        await request_airdrop(rpc, key.node_id, 10**9)
        if micro_cyx:
            await request_tokens(rpc, key.node_id, micro_cyx)
        self.journals.setdefault(key.node_id, MemoryJournal())
        return Ports(
            key=key,
            transport=MemoryTransport(self.network, key.node_id),
            chain=client,
            blobs=MemoryBlobs(quota_bytes=2**30),
            journal=self.journals[key.node_id],
            clock=VirtualClock(),
            randomness=SeededRandomness(random.Random(f"{self.seed}/{name}")),
        )

    async def add_node(
        self, name: str, runner: Runner | None = None, models: Models | None = None, **settings: Any
    ) -> Node:
        """A staked provider and verifier, in a task of its own; `kill` ends it."""
        ports = await self.ports(name, micro_cyx=0 if self.key(name).node_id in self.scopes else 200 * MICRO)
        chosen = NodeSettings(bootstrap=self.bootstrap, **settings)
        node: Node = await self.nursery.start(self._live, ports, runner or SimulatedRunner(), chosen, models)
        self.nodes[ports.key.node_id] = node
        return node

    async def add_nodes(self, count: int, runner: Callable[[], Runner] = SimulatedRunner, **settings: Any) -> None:
        """`count` nodes named node0, node1 ..., the later the dearer."""
        for number in range(count):
            chosen = {"rate_micro_per_s": 20_000 + 5_000 * number, **settings}
            await self.add_node(f"node{number}", runner(), **chosen)

    async def balance(self, node: NodeId) -> int:
        """Micro-CYX."""
        ports = await self.ports("reader", micro_cyx=0)
        return (await ports.chain.balance(node)).micro_cyx

    def winner(self) -> NodeId | None:
        """Who won the first job, as soon as anybody knows."""
        rooms = [room for node in self.nodes.values() for room in node.market.rooms.by_job.values()]
        return next((room.awarded.certified.winner for room in rooms if room.awarded is not None), None)

    async def failures(self) -> dict[NodeId, int]:
        """Settlements with verdict FAILED by worker, as the chain counts them; workers without one are left out."""
        ports = await self.ports("reader", micro_cyx=0)
        return {account.node: account.failures for account in await ports.chain.nodes() if account.failures}

    async def slashed(self) -> dict[NodeId, int]:
        """What each node's stake has lost, in micro-CYX; nodes that lost nothing are left out."""
        ports = await self.ports("reader", micro_cyx=0)
        return {account.node: account.slashed for account in await ports.chain.nodes() if account.slashed}

    async def _live(
        self, ports: Ports, runner: Runner, settings: NodeSettings, models: Models | None, task_status: Any
    ) -> None:
        with trio.CancelScope() as scope:
            self.scopes[ports.key.node_id] = scope
            async with ports.transport.run():  # type: ignore[attr-defined]
                tampered = replace(ports, transport=self.tamper(ports.transport))
                async with open_node(tampered, runner, settings, models) as node:
                    task_status.started(node)
                    await trio.sleep_forever()

    def kill(self, node: NodeId) -> None:
        """End a node at once, as a power cut does."""
        self.scopes[node].cancel()
        self.network.kill(node)

    def kill_requester(self, name: str) -> None:
        """Cut a requester off the network; its process goes on in the dark."""
        self.network.kill(self.key(name).node_id)

    async def chain_outage(self, seconds: float) -> None:
        """No node and no requester can reach the chain for a while."""
        self.chain_away = True
        await trio.sleep(seconds)
        self.chain_away = False

    async def add_requester(
        self,
        name: str = "requester",
        *,
        micro_cyx: int = 50 * MICRO,
        observe: Callable[[News], None] = lambda news: None,
    ) -> RequesterService:
        """A funded requester, in a task of its own."""
        ports = await self.ports(name, micro_cyx=micro_cyx)
        service: RequesterService = await self.nursery.start(self._request, ports, observe)
        return service

    async def _request(self, ports: Ports, observe: Callable[[News], None], task_status: Any) -> None:
        bootstrap = self.bootstrap
        async with ports.transport.run(), open_requester(ports, bootstrap, observe) as service:  # type: ignore[attr-defined]
            task_status.started(service)
            await trio.sleep_forever()


async def _tick(cluster: LocalCluster) -> None:
    while True:
        await trio.sleep(0.4)
        cluster.advance(START_S + int(trio.current_time()))


@asynccontextmanager
async def open_world(seed: int = 1, *, latency: Latency | None = None, loss: float = 0.0) -> AsyncIterator[World]:
    """A chain, a network and a bootstrap node; add nodes as wished. All that happens follows from `seed`."""
    trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio._core._run._r.seed(seed)
    cluster = LocalCluster(random.Random(seed).randbytes, now_unix_s=START_S)
    await ensure_genesis(cluster)
    network = MemoryNetwork(random.Random(seed), latency=latency, loss=loss)
    async with network.run(), trio.open_nursery() as nursery:
        nursery.start_soon(_tick, cluster)
        world = World(seed, network, cluster, nursery)
        bootstrap = await world.add_requester("bootstrap", micro_cyx=0)
        world.bootstrap = bootstrap.wire.transport.addresses()
        yield world
        nursery.cancel_scope.cancel()


def simple_order(service: RequesterService, *, steps: int = 64, budget: int = 5 * MICRO, **changes: Any) -> TrainOrder:
    """An order for the simulated runner, its data in the requester's store."""
    train, validation = service.blobs.put(b"training data"), service.blobs.put(b"validation data")
    spec = simulated_spec(train, validation, steps, 16, seed=7, secret=bytes(32))
    return TrainOrder(
        **{"spec": spec, "budget": budget, "work_mflop": 5_000, "k": 3, "unsandboxed_ok": True, **changes}
    )


async def run_job(service: RequesterService, *, within_s: float = 900, **changes: Any) -> JobResult:
    """Submit a simple order; fails the test when nothing comes of it within the (virtual) time."""
    with trio.fail_after(within_s):
        return await service.submit(simple_order(service, **changes))


async def winner_of(world: World) -> NodeId:
    """Wait for the first award."""
    while (winner := world.winner()) is None:  # noqa: ASYNC110
        await trio.sleep(0.02)
    return winner


async def kill_winner(world: World, after_s: float) -> None:
    """Wait for the first award, and kill its winner so many seconds later."""
    winner = await winner_of(world)
    await trio.sleep(after_s)
    world.kill(winner)
