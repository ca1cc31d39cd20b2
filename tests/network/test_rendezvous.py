"""Rendezvous points over real hosts: classes find themselves, restarts heal, floods end at bounds; and why the
library's service is not left alone with strangers."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import varint

from cyxnode.protocol.discovery import class_namespace, rendezvous_protocol
from cyxnode.protocol.errors import PeerUnreachable
from cyxnode.protocol.limits import (
    DISCOVERY_REJECTS_MAX,
    RENDEZVOUS_PER_PEER_MAX,
    RENDEZVOUS_TOLD_MAX,
    RENDEZVOUS_TTL_S,
)
from cyxnode.protocol.units import NodeId
from dht_hosts import GENESIS, Host, opened, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from libp2p.discovery.rendezvous import messages
    from libp2p.discovery.rendezvous import service as library
    from libp2p.discovery.rendezvous.config import RENDEZVOUS_PROTOCOL
    from libp2p.discovery.rendezvous.pb.rendezvous_pb2 import Message
    from libp2p.discovery.rendezvous.service import RegistrationRecord, RendezvousService
    from multiaddr import Multiaddr

    from cyxnode.p2p import rendezvous
    from cyxnode.p2p.host import libp2p_id
    from cyxnode.p2p.rendezvous import RendezvousPoint, discover, register

pytestmark = pytest.mark.slow
HERE, THERE = class_namespace(GENESIS, b"h" * 32), class_namespace(GENESIS, b"t" * 32)


@asynccontextmanager
async def lit(number: int = 1) -> AsyncIterator[tuple[Host, RendezvousPoint]]:
    async with opened(number) as lamp:
        yield lamp, RendezvousPoint(lamp.dht._raw, GENESIS)


async def found(asker: Host, lamp: Host, name: str = HERE) -> set[NodeId]:
    return set(await discover(asker.dht._raw, GENESIS, lamp.node, name))


async def test_nodes_of_a_class_find_one_another_and_no_others() -> None:
    async with lit() as (lamp, point), opened(2) as a, opened(3) as b, opened(4) as c:
        for host, name in ((a, HERE), (b, HERE), (c, THERE)):
            await host.transport.connect(lamp.address)
            await register(host.dht._raw, GENESIS, lamp.node, name)
        assert await found(a, lamp) == {b.node} and await found(b, lamp) == {a.node}
        assert await found(c, lamp, THERE) == set() and await found(c, lamp, HERE) == {a.node, b.node}
        assert (await discover(c.dht._raw, GENESIS, lamp.node, HERE))[a.node] == a.transport.addresses()
        await register(a.dht._raw, GENESIS, lamp.node, HERE)
        assert len(point) == 3 and point.gate.served == {"register": 4, "discover": 5} and not point.gate.refused


async def test_a_point_that_was_restarted_learns_again_who_is_there() -> None:
    async with lit() as (lamp, _), opened(2) as node:
        await node.transport.connect(lamp.address)
        await register(node.dht._raw, GENESIS, lamp.node, HERE)
    async with lit() as (lamp, point), opened(2) as node:
        assert len(point) == 0
        await node.transport.connect(lamp.address)
        await register(node.dht._raw, GENESIS, lamp.node, HERE)
        assert len(point) == 1


async def test_a_registration_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lit() as (lamp, point), opened(2) as node, opened(3) as other:
        for host in (node, other):
            await host.transport.connect(lamp.address)
        await register(node.dht._raw, GENESIS, lamp.node, HERE)
        plain = library.time.time
        monkeypatch.setattr(library.time, "time", lambda: plain() + RENDEZVOUS_TTL_S + 1)
        assert await found(other, lamp) == set()
        point.tidy()
        assert len(point) == 0 and not point._spaces


async def test_one_peer_registers_for_so_many_classes() -> None:
    async with lit() as (lamp, point), opened(2) as rogue:
        await rogue.transport.connect(lamp.address)
        for number in range(RENDEZVOUS_PER_PEER_MAX + 3):
            try:
                await register(rogue.dht._raw, GENESIS, lamp.node, class_namespace(GENESIS, bytes([number]) * 32))
            except PeerUnreachable:
                continue
        assert len(point) == RENDEZVOUS_PER_PEER_MAX and point.gate.refused == {"full": 3}


async def test_a_full_point_takes_nobody_and_tells_of_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async with lit() as (lamp, point), opened(2) as node:
        crowd = [libp2p_id(NodeId(number.to_bytes(32, "big"))) for number in range(3_000)]
        address = Multiaddr("/ip4/127.0.0.1/tcp/9").to_bytes()
        point._spaces[HERE] = {
            peer: RegistrationRecord(peer, [address], HERE, RENDEZVOUS_TTL_S) for peer in crowd[:200]
        }
        await node.transport.connect(lamp.address)
        first, second = await found(node, lamp), await found(node, lamp)
        assert len(first) == len(second) == RENDEZVOUS_TOLD_MAX and first != second
        monkeypatch.setattr(rendezvous, "RENDEZVOUS_PER_NAMESPACE_MAX", 200)
        with pytest.raises(PeerUnreachable):
            await register(node.dht._raw, GENESIS, lamp.node, HERE)
        await register(node.dht._raw, GENESIS, lamp.node, THERE)
        monkeypatch.setattr(rendezvous, "RENDEZVOUS_REGISTRATIONS_MAX", 201)
        with pytest.raises(PeerUnreachable):
            await register(node.dht._raw, GENESIS, lamp.node, class_namespace(GENESIS, b"x" * 32))


def registration(host: Host, **change: object) -> bytes:
    message = messages.create_register_message(HERE, libp2p_id(host.node), [Multiaddr(host.address)], RENDEZVOUS_TTL_S)
    for name, value in change.items():
        target = message.register.peer if name in ("id", "addrs") else message.register
        if name == "addrs":
            target.addrs[:] = value
        else:
            setattr(target, name, value)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("cause", "change"),
    {
        "peer": {"id": b"\0$\x08\1\x12 " + b"\7" * 32},
        "namespace": {"ns": "cyx/1/class/other/0000000000000000"},
        "namespace too long": {"ns": HERE + "0" * 3_000},
        "ttl": {"ttl": RENDEZVOUS_TTL_S + 1},
        "ttl of nothing": {"ttl": 0},
        "address": {"addrs": [b"\xff" * 40]},
        "oversized": {"addrs": [b"\xff" * 5_000]},
    }.items(),
)
async def test_what_no_honest_node_registers_is_refused(cause: str, change: dict[str, object]) -> None:
    async with lit() as (lamp, point), opened(2) as rogue:
        await rogue.transport.connect(lamp.address)
        await send(rogue, lamp, registration(rogue, **change))
        assert len(point) == 0 and point.gate.refused == {cause.partition(" ")[0]: 1}


async def test_names_that_nobody_registered_leave_no_trace_and_garbage_bans() -> None:
    async with lit() as (lamp, point), opened(2) as rogue:
        await rogue.transport.connect(lamp.address)
        for number in range(20):
            name = class_namespace(GENESIS, bytes([number]) * 32)
            await send(rogue, lamp, messages.create_discover_message(name, 10**6).SerializeToString())
        assert not point._spaces and point.gate.served["discover"] == 20
        huge = messages.create_discover_message(HERE, 1, b"c" * 1_000).SerializeToString()
        await send(rogue, lamp, huge)
        for _ in range(DISCOVERY_REJECTS_MAX - 1):
            await send(rogue, lamp, b"\xff" * 30)
        await until(lambda: rogue.node not in lamp.transport.connected())
        assert point.gate.refused == {"cookie": 1, "malformed": DISCOVERY_REJECTS_MAX - 1}


async def send(rogue: Host, lamp: Host, raw: bytes, protocol: str = rendezvous_protocol(GENESIS)) -> bytes:
    """One request, to the end of its stream; what came back first."""
    with trio.move_on_after(3):
        try:
            stream = await rogue.dht._raw.open(lamp.node, protocol)
            await stream.write(varint.encode(len(raw)) + raw)
            return bytes(await stream.read(4096))
        except Exception:
            return b""
    return b""


async def test_a_lying_point_costs_a_client_nothing_but_time() -> None:
    async def lying(_peer: NodeId, stream: object) -> None:
        entries = [
            Message.Register(ns=HERE, peer=Message.PeerInfo(id=b"\1" * 3, addrs=[b"\xff"])),
            Message.Register(ns=HERE, peer=Message.PeerInfo(id=b"\2" * 3)),
        ]
        raw = messages.create_discover_response_message(entries).SerializeToString()
        await stream.write(varint.encode(len(raw)) + raw)  # type: ignore[attr-defined]

    async def endless(_peer: NodeId, stream: object) -> None:
        await stream.write(varint.encode(4 * 1024 * 1024))  # type: ignore[attr-defined]
        for _ in range(1024):
            await stream.write(bytes(4096))  # type: ignore[attr-defined]

    for handler in (lying, endless):
        async with opened(1) as lamp, opened(2) as node:
            lamp.dht._raw.accept(rendezvous_protocol(GENESIS), handler)
            await node.transport.connect(lamp.address)
            with trio.fail_after(5):
                try:
                    assert await found(node, lamp) == set()
                except PeerUnreachable:
                    assert handler is endless


async def test_the_library_remembers_every_name_that_anybody_asks_about() -> None:
    """Why its service stands behind a door: this fails when it has been cured."""
    async with opened(1) as lamp, opened(2) as rogue:
        service = RendezvousService(lamp.transport._host)
        await rogue.transport.connect(lamp.address)
        for number in range(20):
            raw = messages.create_discover_message(f"name {number}").SerializeToString()
            await send(rogue, lamp, raw, str(RENDEZVOUS_PROTOCOL))
        assert len(service.registrations) == 20
