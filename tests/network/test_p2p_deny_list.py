"""A deny list on real connections: they are cut, and refused in both directions, until the list lets them back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cyxnode.p2p.deny_list import DenyList
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.errors import PeerUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.ports import GossipMessage, GossipVerdict
from cyxnode.protocol.units import NodeId, base58

pytestmark = pytest.mark.slow
ECHO, TOPIC = "/cyx/1/echo", "cyx/1/presence/test"
WITHIN_S = 8.0


async def echo(_peer: NodeId, payload: bytes) -> bytes:
    return payload


async def until(condition: object) -> None:
    assert callable(condition)
    with trio.fail_after(WITHIN_S):
        while not condition():  # noqa: ASYNC110 -- any state of a transport
            await trio.sleep(0.02)


def deny(path: Path, *nodes: NodeId) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(f"{base58(node)}\n" for node in nodes))
    fresh.replace(path)


@asynccontextmanager
async def warden_and_guest(tmp_path: Path) -> AsyncIterator[tuple[Libp2pTransport, Libp2pTransport, Path]]:
    """Two transports that know each other; the first has a deny list."""
    path = tmp_path / "deny"
    deny(path)
    warden = Libp2pTransport(KeyPair(b"w" * 32), deny_list=DenyList(path))
    guest = Libp2pTransport(KeyPair(b"g" * 32))
    async with warden.run(), guest.run():
        for one, other in ((warden, guest), (guest, warden)):
            one.serve(ECHO, echo)
            one.learn(other.node_id, other.addresses())
        yield warden, guest, path


async def test_a_listed_peer_is_cut_off_and_refused_both_ways(tmp_path: Path) -> None:
    async with warden_and_guest(tmp_path) as (warden, guest, path):
        assert await guest.request(warden.node_id, ECHO, b"hello", timeout_s=5) == b"hello"
        deny(path, guest.node_id)
        await until(lambda: not warden.connected() and not guest.connected())
        with pytest.raises(PeerUnreachable, match="deny list"):
            await warden.request(guest.node_id, ECHO, b"out", timeout_s=5)
        with pytest.raises(PeerUnreachable):
            await guest.request(warden.node_id, ECHO, b"in", timeout_s=5)
        assert not warden.connected()
        deny(path)
        await until(lambda: not warden._denied or not warden._denied.nodes)
        assert await guest.request(warden.node_id, ECHO, b"again", timeout_s=5) == b"again"


async def test_a_listed_peer_is_not_heard(tmp_path: Path) -> None:
    """Not even for a moment: the connection never stands, so gossip has nobody to send to."""
    heard: list[bytes] = []

    def hear(message: GossipMessage) -> GossipVerdict:
        heard.append(message.data)
        return GossipVerdict.ACCEPT

    async with warden_and_guest(tmp_path) as (warden, guest, path):
        deny(path, guest.node_id)
        await until(lambda: warden._denied is not None and guest.node_id in warden._denied)
        async with warden.subscribe(TOPIC, hear), guest.subscribe(TOPIC, hear):
            for number in range(3):
                with pytest.raises(PeerUnreachable):
                    await guest.request(warden.node_id, ECHO, b"in", timeout_s=2)
                await guest.publish(TOPIC, b"psst %d" % number)
            assert not warden.connected()
    assert heard == []
