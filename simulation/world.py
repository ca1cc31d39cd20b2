"""A world of real nodes on simulated ports, all in one process and in virtual time.

The nodes are those of `cyxnode run`: scheduler.node.open_node builds them, and every service, machine and message is
the real one. Only the ports differ: an in-memory network with the latencies of the globe, the escrow program in
LiteSVM, a runner that computes a cheap but real chain of states, and memory in place of disks. What survives a crash is
the journal and the blobs, as on a disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from random import Random
from typing import Any

import structlog
import trio

from ..executor.simulated import SimulatedRunner
from ..executor.simulated_inference import SimulatedModels
from ..ledger.addresses import LOCAL_PROGRAM_ID
from ..ledger.chain_client import ChainClient
from ..ledger.chain_service import tick
from ..ledger.cluster import LocalCluster
from ..ledger.direct_rpc import DirectRpc
from ..ledger.genesis import ensure_genesis
from ..ledger.journal import MemoryJournal
from ..ledger.local_faucet import airdrop, give_tokens
from ..p2p.blob_store import MemoryBlobs
from ..p2p.memory import MemoryTransport
from ..p2p.memory_network import MemoryNetwork
from ..protocol.errors import LocalError
from ..protocol.identity import KeyPair
from ..protocol.inference import ModelManifest
from ..protocol.limits import MICRO
from ..protocol.ports import Models, Runner
from ..protocol.units import NodeId
from ..scheduler.context import NodeSettings
from ..scheduler.node import Node, Ports, may_serve, open_node, open_presence
from ..scheduler.requester import open_requester
from ..scheduler.requester_service import News, RequesterService
from .clock import START_S, SeededRandomness, VirtualClock
from .geography import Geography
from .opened import OpenedMemo
from .plan import MODEL_NAME, PROFILES, SECONDS_PER_STEP, SECONDS_PER_TOKEN, Plan, place
from .trace import Trace
from .work import MeteredRunner, WorkLog

LAMPORTS = 10**10
NODE_MICRO_CYX = 300 * MICRO
REQUESTER_MICRO_CYX = 10_000 * MICRO
BLOB_QUOTA_BYTES = 1 << 30
MODEL = ModelManifest(
    name=MODEL_NAME, kind="gguf", digest=bytes(32), tokenizer="model", quantisation="Q4_1", context_length=4_096
)
GRAIN_S = 0.002
"""Arrivals happen at multiples of it: a tick of virtual time serves all nodes at once."""

log = structlog.get_logger()


@dataclass(slots=True)
class Peer:
    """One participant over all its lives. `cheat` names what is wrong with it, empty for the honest."""

    name: str
    key: KeyPair
    region: str
    clock: VirtualClock
    journal: MemoryJournal
    blobs: MemoryBlobs
    settings: NodeSettings
    class_name: str
    cheat: str = ""
    dress: Callable[[Peer, Ports, Runner], tuple[Ports, Runner]] = lambda peer, ports, runner: (ports, runner)
    """Where a cheater puts its hands on its own ports: identity for the honest."""
    dress_models: Callable[[Models], Models] = lambda models: models
    model_rate: int = 0
    """Micro-CYX for 1,000 tokens that are written; 0 for who serves no model."""
    node: Node | None = None
    scope: trio.CancelScope | None = None
    lives: int = 0

    @property
    def node_id(self) -> NodeId:
        return self.key.node_id


@dataclass(slots=True)
class World:
    """Everything that runs."""

    plan: Plan
    network: MemoryNetwork
    geography: Geography
    cluster: LocalCluster
    trace: Trace
    nursery: trio.Nursery
    rng: Random
    bootstrap: tuple[str, ...] = ()
    peers: list[Peer] = field(default_factory=list)
    requesters: list[Peer] = field(default_factory=list)
    work: WorkLog = field(default_factory=WorkLog)
    opened: OpenedMemo = field(default_factory=OpenedMemo)

    def new_peer(self, name: str, *, micro_cyx: int, class_name: str = "class0", **settings: Any) -> Peer:
        """A funded identity at a place that follows from the seed."""
        key = KeyPair(sha256(f"{self.plan.seed}/{name}".encode()).digest())
        where = place(self.plan, name)
        airdrop(self.cluster, key.node_id, LAMPORTS)
        if micro_cyx:
            give_tokens(self.cluster, key.node_id, micro_cyx)
        self.geography.region[key.node_id] = where.region
        self.geography.slow[key.node_id] = where.slow
        return Peer(
            name=name,
            key=key,
            region=where.region,
            clock=VirtualClock(where.skew_ms),
            journal=MemoryJournal(),
            blobs=MemoryBlobs(BLOB_QUOTA_BYTES),
            settings=NodeSettings(bootstrap=self.bootstrap, region=where.region, **settings),
            class_name=class_name,
        )

    def ports(self, peer: Peer) -> Ports:
        """A peer's real view of the world, for one life."""
        return Ports(
            key=peer.key,
            transport=MemoryTransport(self.network, peer.node_id),
            chain=ChainClient(DirectRpc(self.cluster), peer.key, LOCAL_PROGRAM_ID),
            blobs=peer.blobs,
            journal=peer.journal,
            clock=peer.clock,
            randomness=SeededRandomness(Random(f"{self.plan.seed}/{peer.name}/{peer.lives}")),
            opener=self.opened,
        )

    async def start(self, peer: Peer) -> None:
        """Begin a life of a provider and verifier; returns when it is ready. One that may not serve stays down."""
        if peer.lives and not await self._may_serve(peer):
            self.trace.event("stays down", peer.name)
            return
        await self.nursery.start(self._live, peer)

    async def _may_serve(self, peer: Peer) -> bool:
        """Whether the node would start again: not when it was retired, lost its stake, or asked to leave."""
        chain = self.ports(peer).chain
        account, config, now = await chain.node(peer.node_id), await chain.config(), await chain.time()
        try:
            if account is not None:
                may_serve(account, config, now.unix_s)
        except LocalError:
            return False
        return True

    async def _live(self, peer: Peer, task_status: Any) -> None:
        peer.lives += 1
        ports = self.ports(peer)
        assert isinstance(ports.transport, MemoryTransport)
        with trio.CancelScope() as peer.scope:
            async with ports.transport.run():
                metered = MeteredRunner(
                    SimulatedRunner(SECONDS_PER_STEP, class_name=peer.class_name), self.work, peer.name
                )
                dressed, runner = peer.dress(peer, ports, metered)
                async with open_node(dressed, runner, peer.settings, models_of(peer)) as peer.node:
                    self.trace.event("up", peer.name)
                    task_status.started()
                    await trio.sleep_forever()

    def kill(self, peer: Peer) -> None:
        """End a life at once, as a power cut does."""
        if peer.scope is not None and peer.node is not None:
            self.trace.event("down", peer.name)
            peer.node = None
            self.network.kill(peer.node_id)
            peer.scope.cancel()

    async def open_requester(self, peer: Peer, observe: Callable[[News], None]) -> RequesterService:
        """A requester that stays until the world ends."""
        service: RequesterService = await self.nursery.start(self._request, peer, observe)
        return service

    async def _request(self, peer: Peer, observe: Callable[[News], None], task_status: Any) -> None:
        ports = self.ports(peer)
        assert isinstance(ports.transport, MemoryTransport)
        async with ports.transport.run(), open_requester(ports, self.bootstrap, observe) as service:
            task_status.started(service)
            await trio.sleep_forever()

    async def _serve_bootstrap(self, peer: Peer, task_status: Any) -> None:
        ports = self.ports(peer)
        assert isinstance(ports.transport, MemoryTransport)
        async with (
            ports.transport.run(),
            open_presence(
                ports.key, ports.transport, self.cluster.genesis_hash, ports.clock, ports.randomness, (), ports.opener
            ) as presence,
        ):
            task_status.started(presence.wire.transport.addresses())
            await trio.sleep_forever()


@asynccontextmanager
async def open_world(plan: Plan) -> AsyncIterator[World]:
    """A chain, a network and a bootstrap node; peers are added by the caller."""
    rng = Random(f"{plan.seed}/world")
    cluster = LocalCluster(rng.randbytes, now_unix_s=START_S)
    await ensure_genesis(cluster)
    profile, trace = PROFILES[plan.faults], Trace()
    geography = Geography(jitter=profile.jitter)
    network = MemoryNetwork(
        Random(f"{plan.seed}/network"), latency=geography.latency, loss=profile.loss, grain_s=GRAIN_S
    )
    network.traffic = trace.traffic
    async with network.run(), trio.open_nursery() as nursery:
        nursery.start_soon(tick, cluster, lambda: START_S + int(trio.current_time()))
        world = World(plan, network, geography, cluster, trace, nursery, rng)
        lamp = world.new_peer("bootstrap", micro_cyx=0)
        world.bootstrap = await nursery.start(world._serve_bootstrap, lamp)
        yield world
        nursery.cancel_scope.cancel()


def models_of(peer: Peer) -> Models | None:
    """What a peer serves: the one model of these worlds, on a backend of its own class."""
    if not peer.model_rate:
        return None
    rates = (MODEL, peer.model_rate // 4, peer.model_rate)
    served = SimulatedModels([rates], seconds_per_token=SECONDS_PER_TOKEN, class_name=peer.class_name)
    return peer.dress_models(served)


def resettled(peer: Peer, **changes: Any) -> None:
    """Change a peer's settings before its first life."""
    peer.settings = replace(peer.settings, **changes)
