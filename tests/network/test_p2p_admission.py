"""Who may open connections and streams: bounds for all, for a host, for a peer; and that places come free."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import trio

from cyxnode.protocol.errors import PeerUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import BAN_FIRST_MS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p import bans, doors, inbound
    from cyxnode.p2p.doors import host_of, is_own_machine
    from cyxnode.p2p.transport import Libp2pTransport

pytestmark = pytest.mark.slow
SERVER = KeyPair(b"\1" * 32)


def client(number: int) -> Libp2pTransport:
    return Libp2pTransport(KeyPair(bytes([number]) * 32))


async def refuses(server: Libp2pTransport, number: int) -> None:
    """A client that is let in to nothing."""
    async with client(number).run() as one:
        with pytest.raises(PeerUnreachable):
            await one.connect(server.addresses()[0])


async def echo(_peer: bytes, payload: bytes) -> bytes:
    return payload


@pytest.fixture
def bounded_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Loopback counts as any other host."""
    monkeypatch.setattr(doors, "is_own_machine", lambda host: False)
    yield


async def until(condition: object, within_s: float = 5) -> None:
    with trio.fail_after(within_s):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 -- the library has no event for it
            await trio.sleep(0.01)


async def test_a_place_comes_free_when_its_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "INBOUND_CONNECTIONS_MAX", 2)
    async with Libp2pTransport(SERVER).run() as server:
        for number in range(2, 8):
            async with client(number).run() as one:
                await one.connect(server.addresses()[0])
            await until(lambda: server.figures().inbound_open == 0)
        assert server.figures().inbound_refused == {}


async def test_the_library_alone_never_frees_a_place() -> None:
    """Why there is an admission of our own: this fails when the library has been cured."""
    async with Libp2pTransport(SERVER).run() as server:
        del server._network._handle_inbound_connection
        async with client(2).run() as one:
            await one.connect(server.addresses()[0])
        await until(lambda: not server.connected())
        assert server._network._inbound_limiter.borrowed_tokens == 1


async def test_all_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "INBOUND_CONNECTIONS_MAX", 1)
    async with Libp2pTransport(SERVER).run() as server, client(2).run() as first:
        await first.connect(server.addresses()[0])
        await refuses(server, 3)
        assert server.figures().inbound_refused == {"total": 1}


async def test_a_host_is_bounded(bounded_host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "CONNECTIONS_PER_HOST_MAX", 1)
    async with Libp2pTransport(SERVER).run() as server:
        async with client(2).run() as first:
            await first.connect(server.addresses()[0])
            await refuses(server, 3)
            assert server.figures().inbound_refused == {"host": 1}
        await until(lambda: server.figures().inbound_open == 0)
        async with client(3).run() as again:
            await again.connect(server.addresses()[0])


async def test_a_host_may_not_knock_all_the_time(bounded_host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "CONNECTIONS_PER_HOST", (0.001, 2))
    async with Libp2pTransport(SERVER).run() as server:
        for number in (2, 3):
            async with client(number).run() as one:
                await one.connect(server.addresses()[0])
        await refuses(server, 4)
        assert server.figures().inbound_refused == {"rate": 1}


async def test_a_socket_that_says_nothing_holds_its_place_for_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Libp2pTransport(SERVER).run() as server:
        server._network.connection_config.inbound_upgrade_timeout = 0.2
        port = int(server.addresses()[0].split("/")[4])
        silent = await trio.open_tcp_stream("127.0.0.1", port)
        await until(lambda: server.figures().inbound_open == 1)
        await until(lambda: server.figures().inbound_open == 0)
        await silent.aclose()
        garbled = await trio.open_tcp_stream("127.0.0.1", port)
        await garbled.send_all(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
        await until(lambda: server.figures().inbound_open == 0)
        await garbled.aclose()


async def test_who_drains_finishes_what_it_serves_and_lets_nobody_in() -> None:
    async with Libp2pTransport(SERVER).run() as server, client(2).run() as near:
        released = trio.Event()

        async def slow(_peer: bytes, payload: bytes) -> bytes:
            await released.wait()
            return payload

        server.serve("/slow", slow)
        node, answers = await near.connect(server.addresses()[0]), []

        async def ask() -> None:
            answers.append(await near.request(node, "/slow", b"x", timeout_s=5))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: server.figures().streams_open == 1)
            nursery.start_soon(server.drain)
            await until(lambda: server.draining)
            await refuses(server, 3)
            released.set()
        assert answers == [b"x"]


async def test_a_peer_may_open_so_many_streams_of_a_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "STREAMS_PER_PEER", {"/few": (0.001, 3)})
    async with Libp2pTransport(SERVER).run() as server, client(2).run() as near, client(3).run() as other:
        server.serve("/few", echo)
        server.serve("/many", echo)
        node = await near.connect(server.addresses()[0])
        for _ in range(3):
            assert await near.request(node, "/few", b"x", timeout_s=5) == b"x"
        with pytest.raises(PeerUnreachable):
            await near.request(node, "/few", b"x", timeout_s=5)
        assert await near.request(node, "/many", b"x", timeout_s=5) == b"x"
        await other.connect(server.addresses()[0])
        assert await other.request(node, "/few", b"x", timeout_s=5) == b"x"
        assert server.figures().streams_refused == {"rate": 1}
        assert server.figures().streams_served == {"/few": 4, "/many": 1}


@pytest.mark.parametrize(
    ("remote", "host"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (("::ffff:192.0.2.7", 5), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("::1", 5), "::1"),
        (("nonsense", 5), "unknown"),
        (None, "unknown"),
    ],
)
def test_hosts_are_counted_by_address_or_by_their_network(remote: tuple[str, int] | None, host: str) -> None:
    assert host_of(remote) == host
    assert is_own_machine(host) == (host == "::1")


async def test_a_banned_peer_has_no_connection_until_its_ban_ends() -> None:
    now_ms, rogue = [1_000_000_000_000], KeyPair(bytes([2]) * 32).node_id
    kept = bans.Bans(None, lambda: now_ms[0])
    async with Libp2pTransport(SERVER, bans=kept).run() as server, client(2).run() as near:
        node = await near.connect(server.addresses()[0])
        server.serve("/echo", echo)
        assert await near.request(node, "/echo", b"x", timeout_s=5) == b"x"
        server.ban(rogue)
        await until(lambda: not server.connected() and not near.connected())
        assert server.figures().banned == 1
        with pytest.raises(PeerUnreachable):
            await near.request(node, "/echo", b"x", timeout_s=2)
        server.learn(rogue, near.addresses())
        with pytest.raises(PeerUnreachable, match="is banned here"):
            await server.open_stream(rogue, "/echo")
    async with Libp2pTransport(SERVER, bans=kept).run() as again, client(2).run() as near:
        with pytest.raises(PeerUnreachable):
            await near.request(await near.connect(again.addresses()[0]), "/echo", b"x", timeout_s=2)
        await until(lambda: not again.connected())
        now_ms[0] += BAN_FIRST_MS
        await until(lambda: not near.connected())
        again.serve("/echo", echo)
        await near.connect(again.addresses()[0])
        assert await near.request(SERVER.node_id, "/echo", b"x", timeout_s=5) == b"x"
