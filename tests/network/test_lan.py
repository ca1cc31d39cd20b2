"""mDNS with real datagrams on this machine: hosts of one network hear one another, those of two do not, and what floods
the LAN does not flood a node."""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
from zeroconf import ServiceInfo, Zeroconf

from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.discovery import lan_service
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import ADDRESSES_MAX
from cyxnode.protocol.units import NodeId
from dht_hosts import GENESIS, until
from multicast import needs_multicast

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p import lan
    from cyxnode.p2p.lan import Lan, announced

pytestmark = pytest.mark.slow
SERVICE = lan_service(GENESIS)
A, B, C = (KeyPair(bytes([number]) * 32).node_id for number in (1, 2, 3))


def at(node: NodeId, port: int = 4001, host: str = "127.0.0.1") -> str:
    return f"/ip4/{host}/tcp/{port}/p2p/{peer_id_text(node)}"


@asynccontextmanager
async def listening(
    node: NodeId, *addresses: str, service: str = SERVICE
) -> AsyncIterator[tuple[Lan, dict[NodeId, tuple[str, ...]]]]:
    """A node on the LAN, and whom it has heard."""
    heard: dict[NodeId, tuple[str, ...]] = {}
    one = Lan(service, node, lambda: addresses, heard.__setitem__)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        yield one, heard
        nursery.cancel_scope.cancel()


def announce(zeroconf: Zeroconf, name: str, *values: bytes) -> ServiceInfo:
    """What any machine may say."""
    info = ServiceInfo(
        SERVICE,
        f"{name}.{SERVICE}",
        port=1,
        addresses=[socket.inet_aton("127.0.0.1")],
        properties={f"dnsaddr{number or ''}".encode(): value for number, value in enumerate(values)},
        server=f"{name}.local.",
    )
    zeroconf.registry.async_add(info)
    zeroconf.send(zeroconf.generate_service_broadcast(info, 120))
    return info


@needs_multicast
async def test_two_of_one_network_hear_one_another_and_a_third_of_another_neither() -> None:
    before = threading.active_count()
    async with (
        listening(A, at(A)) as (_, by_a),
        listening(B, at(B, 4002), at(B, 4003)) as (_, by_b),
        listening(C, at(C), service=lan_service(b"h" * 32)) as (_, by_c),
    ):
        await until(lambda: by_a and by_b)
        assert by_a == {B: (at(B, 4002), at(B, 4003))} and by_b == {A: (at(A),)} and by_c == {}
    # trio keeps idle threads for ten seconds; those of zeroconf are gone
    names = [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 6 and not [one for one in names if "zeroconf" in one.lower()]


@needs_multicast
async def test_strangers_announcements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan, "LAN_NAMES", (0.001, 8))
    stranger = await trio.to_thread.run_sync(Zeroconf)
    try:
        async with listening(A) as (one, heard):
            await trio.sleep(0.5)
            announce(stranger, "garbage", b"\xff\xff")
            announce(stranger, "two-peers", at(B).encode(), at(C).encode())
            announce(stranger, "name", f"/dns4/example.org/tcp/1/p2p/{peer_id_text(C)}".encode())
            announce(stranger, "many", *(at(B, port).encode() for port in range(1, 40)))
            await until(lambda: one.counts["malformed"] == 3 and heard)
            assert list(heard) == [B] and len(heard[B]) == ADDRESSES_MAX
            for number in range(40):
                announce(stranger, f"flood{number}", at(NodeId(KeyPair(bytes([number + 9]) * 32).node_id)).encode())
            await until(lambda: one.counts["rate"] >= 30)
            assert len(heard) <= 8
    finally:
        await trio.to_thread.run_sync(stranger.close)


@needs_multicast
async def test_a_flood_of_records_ends_the_session_and_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan, "LAN_RECORDS_MAX", 64)
    monkeypatch.setattr(lan, "LAN_PAUSE_S", 0.2)
    stranger = await trio.to_thread.run_sync(Zeroconf)
    sessions = []
    plain = Lan._open

    def counted(self: Lan, *arguments: object) -> object:
        sessions.append(self)
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Lan, "_open", counted)
    try:
        async with listening(A) as (_, heard):
            await trio.sleep(0.5)
            for number in range(200):
                announce(stranger, f"flood{number}", b"x" * 100)
                await trio.lowlevel.checkpoint()
            await until(lambda: len(sessions) >= 2, 20)
            stranger.registry.async_remove(stranger.registry.async_get_service_infos())
            monkeypatch.setattr(lan, "LAN_RECORDS_MAX", 8_192)
            async with listening(B, at(B)):
                await until(lambda: B in heard, 20)
    finally:
        await trio.to_thread.run_sync(stranger.close)


async def test_a_machine_without_multicast_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Zeroconf:
        raise OSError(19, "No such device")

    monkeypatch.setattr(lan, "Zeroconf", refuse)
    with trio.fail_after(5):
        await Lan(SERVICE, A, lambda: (at(A),), lambda node, addresses: None).run()


def test_announcements_name_one_peer_at_addresses_of_its_own() -> None:
    assert announced([at(B).encode(), b"junk", None, at(B).encode()]) == (B, (at(B),))
    for values in ([], [b""], [None], [at(B).encode()[:-3]], [at(A).encode(), at(B).encode()], [b"/ip4/1.2.3.4/tcp/1"]):
        assert announced(values) is None
