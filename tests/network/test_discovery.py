"""The whole of discovery over real hosts: who knows one stranger finds its class, without anybody's list; what an
operator reads of it; what a doctor finds."""

from __future__ import annotations

import time
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from cyxnode.cli.checkup import Level
from cyxnode.cli.metrics import METRICS, of_discovery
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import Capability
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler import connections, peer_exchange
from cyxnode.scheduler.presence_service import Load, PresenceService
from cyxnode.scheduler.wire import Wire
from dht_hosts import GENESIS, capability, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.bootstrap import discovery as service
    from cyxnode.bootstrap.discovery import Discovery, Ways, open_discovery
    from cyxnode.cli.checks_discovery import DhtCheck, judged
    from cyxnode.cli.world import SystemClock, SystemRandomness
    from cyxnode.p2p.dht import node as dht_node
    from cyxnode.p2p.transport import Libp2pTransport

pytestmark = pytest.mark.slow
HERE, THERE = b"h" * 32, b"t" * 32


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "DISCOVERY_TICK_S", 0.2)
    monkeypatch.setattr(dht_node, "DHT_LINGER_S", 0.1)
    monkeypatch.setattr(connections, "EXCHANGE_SHORT_S", 0.5)
    monkeypatch.setattr(connections, "LONELY_S", 0.2)


@dataclass
class Peer:
    transport: Libp2pTransport
    presence: PresenceService
    discovery: Discovery

    @property
    def node(self) -> NodeId:
        return self.transport.node_id

    @property
    def address(self) -> str:
        return self.transport.addresses()[0]


@asynccontextmanager
async def peer(number: int, execution_class: bytes, *bootstrap: str, **ways: bool) -> AsyncIterator[Peer]:
    """A node of a class without a market, or, with no class, a bootstrap node; its peer exchange runs when it has
    bootstrap addresses."""
    key = KeyPair(number.to_bytes(32, "big"))
    transport = Libp2pTransport(key)
    async with transport.run(), trio.open_nursery() as nursery:

        def offer(sequence: int, now_ms: int) -> Capability:
            import msgspec

            record = capability(now_ms, transport.addresses())
            return msgspec.structs.replace(record, sequence=sequence, execution_class=execution_class)

        presence = PresenceService(
            wire=Wire(transport, key, GENESIS, SystemClock()),
            randomness=SystemRandomness(),
            bootstrap=bootstrap,
            offer=offer if execution_class else None,
            load=lambda: Load("idle", 0, 0, 0),
        )
        await nursery.start(presence.run)
        async with open_discovery(transport, presence, Ways(**ways), execution_class) as discovery:
            yield Peer(transport, presence, discovery)
        nursery.cancel_scope.cancel()


def unless(quiet: set[NodeId], ask: Any) -> Any:
    """Peer exchange of all but those."""

    async def asked(self: peer_exchange.PeerExchange, *arguments: Any, **more: Any) -> bool:
        return self.presence.wire.me not in quiet and await ask(self, *arguments, **more)

    return asked


async def test_a_class_is_found_through_strangers_after_the_bootstrap_node_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    death = trio.Event()

    async def live(task_status: trio.TaskStatus[Peer]) -> None:
        async with peer(1, b"", point=True) as lamp:
            task_status.started(lamp)
            await death.wait()

    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        lamp = await nursery.start(live)
        strangers = [await stack.enter_async_context(peer(n, THERE, lamp.address)) for n in (2, 3, 4)]
        kin = [await stack.enter_async_context(peer(n, HERE, lamp.address)) for n in (5, 6, 7)]
        nodes = {one.node for one in kin}
        for one in kin:
            await until(lambda one=one: nodes - {one.node} <= one.presence.alive(HERE).keys(), 30)
        for one in (*kin, *strangers):
            await until(lambda one=one: one.discovery.dht.gate.served["add_provider"] > 0, 30)
        await until(lambda: len(lamp.discovery.point) == 6, 30)
        death.set()
        for one in (*kin, *strangers):
            await until(lambda one=one: lamp.node not in one.transport.connected())
        # a newcomer knows one stranger, and asks it for nothing but the DHT
        quiet = {KeyPair((9).to_bytes(32, "big")).node_id}
        dials = connections.Connections._dials
        monkeypatch.setattr(
            connections.Connections, "_dials", lambda self: self.presence.wire.me not in quiet and dials(self)
        )
        monkeypatch.setattr(peer_exchange.PeerExchange, "ask", unless(quiet, peer_exchange.PeerExchange.ask))
        async with peer(9, HERE) as newcomer:
            await newcomer.transport.connect(strangers[0].address)
            await until(lambda: newcomer.discovery.suggested.get("dht", 0) >= 3, 30)
            heard = {*newcomer.presence.exchange.candidates, *newcomer.presence.alive(HERE)}
            assert nodes <= heard
            quiet.clear()
            await until(lambda: nodes <= newcomer.presence.alive(HERE).keys(), 30)
            assert not any(map(newcomer.presence.exchange.candidates.is_hint, nodes))


async def test_who_is_suggested_and_offers_nothing_is_forgotten() -> None:
    async with peer(1, b"") as observer, peer(2, HERE) as node:
        exchange = node.presence.exchange
        assert exchange.suggest(observer.node, [observer.address], HERE)
        assert not exchange.suggest(observer.node, [observer.address], HERE)
        assert not exchange.suggest(node.node, [node.address], HERE)
        await until(lambda: observer.node in node.transport.connected())
        await until(lambda: observer.node not in exchange.candidates)
        dead = KeyPair(b"\7" * 32).node_id
        exchange.suggest(dead, [observer.address], HERE)
        await until(lambda: dead not in exchange.candidates, 30)
        node.transport.ban(observer.node)
        await until(lambda: observer.node not in node.transport.connected())
        exchange.suggest(observer.node, [observer.address], HERE)
        await until(lambda: observer.node not in exchange.candidates, 30)
        assert observer.node not in node.transport.connected()


async def test_every_figure_of_discovery_is_told() -> None:
    async with peer(1, b"", point=True, lan=False) as lamp, peer(2, HERE, lamp.address) as node:
        await until(lambda: lamp.discovery.point is not None and len(lamp.discovery.point) == 1, 20)
        await until(lambda: lamp.discovery.dht.gate.served["put_value"] == 1, 20)
        told = of_discovery(lamp.discovery)
        of_all = ("cyxnode_dht_", "cyxnode_rendezvous_", "cyxnode_lan_", "cyxnode_peers_found_")
        assert set(told) == {name for name in METRICS if name.startswith(of_all)}
        assert told["cyxnode_rendezvous_registrations"] == {(): 1}
        assert told["cyxnode_dht_peers"] == told["cyxnode_dht_providers"] == told["cyxnode_dht_records"] == {(): 1}
        assert told["cyxnode_dht_requests_served_total"][("add_provider",)] == 1
        assert told["cyxnode_rendezvous_requests_served_total"][("register",)] == 1
        record = await lamp.discovery.dht.find_record(node.node)
        assert record is None or record.sender == node.node


async def test_the_doctor_tells_of_the_dht() -> None:
    @asynccontextmanager
    async def genesis() -> AsyncIterator[bytes]:
        yield GENESIS

    @asynccontextmanager
    async def open_transport(key: KeyPair) -> AsyncIterator[Libp2pTransport]:
        async with Libp2pTransport(key).run() as transport:
            yield transport

    async with peer(1, b"") as lamp, peer(2, HERE, lamp.address):
        await until(lambda: lamp.discovery.dht.table.size() == 1, 20)
        (found,) = await DhtCheck(open_transport, genesis, lambda: (lamp.address,)).dht()
        assert found.level is Level.OK and found.text.startswith("2 peers in the table; a look-up asked 2, 2 answered")
        (nobody,) = await DhtCheck(open_transport, genesis, lambda: ()).dht()
        lamp.discovery.dht.serve(False)
        (silent,) = await DhtCheck(open_transport, genesis, lambda: (lamp.address,)).dht()
        assert nobody.level is silent.level is Level.WARNING and nobody.fix and "serves the DHT" in silent.fix
    assert judged(3, 0, 3, 0.1).level is judged(3, 3, 3, 60.0).level is Level.WARNING


async def test_an_idle_node_looks_up_little() -> None:
    """A minute of the plan's time passes in which everything was done: nothing is asked of anybody."""
    async with peer(1, b"", point=True) as lamp, peer(2, HERE, lamp.address) as node:
        await until(lambda: lamp.discovery.dht.gate.served["put_value"] == 1, 20)
        await until(lambda: lamp.discovery.dht.gate.served["get_providers"] >= 1, 20)
        node.discovery.plan._due_s = {step: time.monotonic() + 1e9 for step in node.discovery.plan._due_s}
        before = lamp.discovery.dht.gate.served.total()
        await trio.sleep(1)
        assert lamp.discovery.dht.gate.served.total() == before
