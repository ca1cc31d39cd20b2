"""What strangers may try with dial-back and relays: to call others, to hold everything, to lie."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import pytest
import trio

from cyxnode.p2p.reachability import Verdict
from cyxnode.protocol import codec
from cyxnode.protocol.errors import CyxError, PeerUnreachable, Refusal, RemoteError
from cyxnode.protocol.limits import (
    DIAL_BACK_MAX_BYTES,
    DIAL_BACK_PORTS_MAX,
    RELAY_CIRCUITS_PER_SOURCE,
    RELAY_MESSAGE_MAX_BYTES,
    RELAY_PENDING_MAX,
    RELAY_STREAMS,
    STREAM_WINDOW_MAX_BYTES,
    STREAMS_PER_PEER,
)
from reach_world import ECHO, kinds, reach_world, through, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from libp2p.host.autonat import AutoNATService
    from libp2p.host.autonat.pb.autonat_pb2 import Message
    from multiaddr import Multiaddr

    from cyxnode.p2p import circuit_wire, dial_back, relay, relay_quota, upgrade
    from cyxnode.p2p.circuit_wire import (
        HOP,
        STOP,
        HopMessage,
        Status,
        StopMessage,
        called_by,
        connect_through,
        read_message,
        write_message,
    )
    from cyxnode.p2p.dial_back import DIAL_BACK, Called, CallMe
    from cyxnode.p2p.host import libp2p_id
    from cyxnode.p2p.muxed_stream import MuxedStream
    from cyxnode.p2p.transport import Libp2pTransport

pytestmark = pytest.mark.slow


async def raw(source: Libp2pTransport, target: Libp2pTransport, protocol: str = HOP) -> MuxedStream:
    return await source._reaching._open_raw(target.node_id, protocol)


async def hop(source: Libp2pTransport, target: Libp2pTransport, message: HopMessage) -> int:
    """The status that a relay answers with; the stream is left open."""
    stream = await raw(source, target)
    await write_message(stream, message)
    return (await read_message(stream, HopMessage)).status


async def call(asker: Libp2pTransport, peer: Libp2pTransport, *ports: int) -> Called:
    payload = codec.encode(CallMe(ports=ports))
    answer = await asker.request(peer.node_id, DIAL_BACK, payload, timeout_s=20)
    return codec.decode(answer, Called, max_bytes=DIAL_BACK_MAX_BYTES)


class Knocks:
    """A port that counts who connects, and says nothing."""

    def __init__(self) -> None:
        self.count, self.port = 0, 0

    async def run(self, host: str, *, task_status: Any) -> None:
        async def knock(stream: trio.SocketStream) -> None:
            self.count += 1
            await trio.sleep_forever()

        listeners = await trio.open_tcp_listeners(0, host=host)
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(knock, listeners)


# dial-back ----------------------------------------------------------------------------------------------------------


async def test_nobody_but_the_asker_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_back, "DIAL_BACK_TIMEOUT_S", 0.5)
    async with reach_world(relays=2, public=1, joined=False) as (relays, (asker,), _), trio.open_nursery() as nursery:
        victim, silent = Knocks(), Knocks()
        await nursery.start(victim.run, "127.0.0.9")
        await nursery.start(silent.run, "127.0.0.1")
        await asker.connect(relays[0].addresses()[0])
        theirs = int(relays[1].addresses()[0].split("/")[4])
        own = int(asker.addresses()[0].split("/")[4])
        found = await call(asker, relays[0], own, victim.port, silent.port, theirs)
        assert found.host == "127.0.0.1"
        assert found.reached == (own,), "another node's port, or one where nobody proves who it is, is not the asker's"
        assert (victim.count, silent.count) == (0, 1)
        nursery.cancel_scope.cancel()


async def test_the_library_alone_calls_everybody_reachable() -> None:
    """Why there is a dial-back of our own: this fails when the library has been cured."""
    async with reach_world(relays=1, hidden=1) as ((server,), _, (hidden,)):
        AutoNATService(server._host)  # type: ignore[arg-type]
        client = AutoNATService(hidden._host, serve=False)  # type: ignore[arg-type]
        nobody = Multiaddr("/ip4/127.0.0.1/tcp/1").to_bytes()
        status, _address = await client.query_server(libp2p_id(server.node_id), [nobody])
        assert status == Message.OK
        assert hidden.reach_report.verdict is not Verdict.REACHABLE


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x81\xa5ports\x91\x00",
        b"\x81\xa5ports\x91\xce\x00\x01\x00\x00",
        b"\x81\xa5ports\x95\x01\x02\x03\x04\x05",
        b"\x82\xa5ports\x91\x01\xa4host\xa7" + b"8.8.8.8",
        b"\x81\xa5ports\xdc\xff\xff",
        bytes(DIAL_BACK_MAX_BYTES + 1),
    ],
    ids=["empty", "no msgpack", "port 0", "port 65536", "five ports", "a host", "a long list", "too long"],
)
async def test_other_questions_are_refused(payload: bytes) -> None:
    assert DIAL_BACK_PORTS_MAX == 4
    async with reach_world(relays=1, public=1, joined=False) as ((server,), (asker,), _):
        await asker.connect(server.addresses()[0])
        with pytest.raises(Refusal):
            await asker.request(server.node_id, DIAL_BACK, payload, timeout_s=5)
        assert server.figures().reach.called_back == {"refused": 1}


async def test_a_peer_may_ask_seldom_and_all_together_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_back, "DIAL_BACKS", (0.001, 3))
    async with reach_world(relays=1, public=1, joined=False) as ((server,), (asker,), _):
        server._reaching._dial_back._total.rate = (0.001, 3)
        await asker.connect(server.addresses()[0])
        await until(lambda: server.figures().reach.called_back.get("reached"))  # its own first question
        results = []
        for _ in range(8):
            try:
                results.append(len((await call(asker, server, 1)).reached))
            except CyxError as error:
                results.append(type(error).__name__)
        assert results[:2] == [0, 0], "two are left in all"
        assert results[2] == "Refusal"
        burst = STREAMS_PER_PEER[DIAL_BACK][1]
        assert set(results[burst - 1 :]) == {"PeerUnreachable"}, "the fifth is not even looked at"


async def test_whoever_comes_through_a_relay_is_not_called() -> None:
    async with reach_world(relays=2, hidden=2) as (_, _, (one, other)):
        other._reaching.reach._known = type(other._reaching.reach._known)(Verdict.REACHABLE)
        one.learn(other.node_id, through(other))
        with pytest.raises(Refusal, match="relayed"):
            await call(one, other, 1)


async def test_a_node_that_cannot_be_reached_calls_nobody() -> None:
    async with reach_world(relays=1, public=1, hidden=1) as (_, (public,), (hidden,)):
        await hidden.connect(public.addresses()[0])
        with pytest.raises(Refusal, match="itself"):
            await call(public, hidden, 1)


# relays -------------------------------------------------------------------------------------------------------------


async def test_a_relay_connects_nobody_with_whoever_did_not_ask_for_it() -> None:
    async with reach_world(relays=1, public=2) as ((server,), (one, other), _):
        assert await hop(one, server, connect_through(other.node_id)) == Status.NO_RESERVATION
        assert await hop(one, server, connect_through(one.node_id)) == Status.NO_RESERVATION
        assert server.figures().reach.relay_refused == {"circuit_reservation": 2}


async def test_floods_of_requests_and_circuits_are_bounded_and_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "UPGRADE_TRIES_MAX", 0)
    async with reach_world(relays=1, public=1, hidden=1) as ((server,), (flooder,), (hidden,)):
        server._reaching._relay._rates.rate = (0.001, RELAY_CIRCUITS_PER_SOURCE + 4)  # type: ignore[union-attr]
        found = [await hop(flooder, server, connect_through(hidden.node_id)) for _ in range(RELAY_CIRCUITS_PER_SOURCE)]
        assert found == [Status.OK] * RELAY_CIRCUITS_PER_SOURCE
        assert await hop(flooder, server, connect_through(hidden.node_id)) == Status.RESOURCE_LIMIT_EXCEEDED
        for _ in range(3):
            assert await hop(flooder, server, HopMessage(type=HopMessage.RESERVE)) == Status.OK
        assert await hop(flooder, server, HopMessage(type=HopMessage.RESERVE)) == Status.RESOURCE_LIMIT_EXCEEDED
        reach = server.figures().reach
        assert (reach.reservations, reach.circuits) == (2, RELAY_CIRCUITS_PER_SOURCE)
        await flooder.disconnect(server.node_id)
        await until(lambda: server.figures().reach.circuits == 0)
        assert server.figures().reach.reservations == 1, "a reservation ends with its connection"
        await until(lambda: hidden._reaching.circuits._inbound == 0)


@pytest.mark.parametrize(
    "sent",
    [b"\x00", b"\x05hello", b"\xff\xff\xff\x7f", (RELAY_MESSAGE_MAX_BYTES + 1).to_bytes(2, "little"), b"\x02\x08\x02"],
    ids=["nothing", "no protobuf", "a long length", "too long", "a status"],
)
async def test_malformed_requests_are_refused(sent: bytes) -> None:
    async with reach_world(relays=1, public=1, joined=False) as ((server,), (one,), _):
        await one.connect(server.addresses()[0])
        stream = await raw(one, server)
        await stream.write(sent)
        await stream.close_write()
        answer = await read_message(stream, HopMessage)
        assert answer.type == HopMessage.STATUS and answer.status != Status.OK
        assert server.figures().reach.relay_refused["malformed"] == 1


async def test_streams_that_say_nothing_hold_a_bounded_number_of_places_for_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(circuit_wire, "RELAY_MESSAGE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(relay, "RELAY_LINGER_S", 0.2)
    async with reach_world(relays=1, public=6, joined=False) as ((server,), slow, _):
        books: Any = server._reaching._relay
        assert 6 * RELAY_STREAMS[1] > RELAY_PENDING_MAX
        worst = 0

        async def loris(one: Libp2pTransport) -> None:
            nonlocal worst
            await one.connect(server.addresses()[0])
            for _ in range(2 * RELAY_STREAMS[1]):
                with suppress(PeerUnreachable):
                    stream = await raw(one, server)
                    await stream.write(b"\x22")
                worst = max(worst, books._pending)

        async with trio.open_nursery() as nursery:
            for one in slow:
                nursery.start_soon(loris, one)
        assert 0 < worst <= RELAY_PENDING_MAX
        await until(lambda: books._pending == 0)
        assert server.figures().reach.relay_refused["broken"] > 0


async def test_a_target_that_does_not_answer_costs_the_caller_seconds_and_the_relay_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (circuit_wire, relay):
        monkeypatch.setattr(module, "RELAY_MESSAGE_TIMEOUT_S", 0.5)
    async with reach_world(relays=1, public=1, hidden=1) as ((server,), (one,), (mute,)):

        async def say_nothing(_stream: Any) -> None:
            await trio.sleep_forever()

        mute._host.set_stream_handler(STOP, say_nothing)  # type: ignore[arg-type]
        monkeypatch.setattr(circuit_wire, "RELAY_MESSAGE_TIMEOUT_S", 3.0)
        stream = await raw(one, server)
        await write_message(stream, connect_through(mute.node_id))
        assert (await read_message(stream, HopMessage)).status == Status.CONNECTION_FAILED
        await until(lambda: server.figures().reach.circuits == 0)


async def test_a_circuit_carries_its_share_and_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "UPGRADE_TRIES_MAX", 0)
    monkeypatch.setattr(relay, "RELAY_CIRCUIT_MAX_BYTES", 300_000)
    async with reach_world(relays=1, public=1, hidden=1) as ((server,), (one,), (hidden,)):
        one.learn(hidden.node_id, through(hidden))
        assert await one.request(hidden.node_id, ECHO, bytes(50_000), timeout_s=10) == bytes(50_000)
        with pytest.raises(PeerUnreachable):
            await one.request(hidden.node_id, ECHO, bytes(400_000), timeout_s=10)
        await until(lambda: server.figures().reach.circuits == 0)
        assert server.figures().reach.relayed_bytes <= 300_000
        assert server.figures().reach.relay_refused == {"circuit_bytes": 1}
        await until(lambda: not kinds(one, hidden) and not kinds(hidden, one))
        assert await one.request(hidden.node_id, ECHO, b"again", timeout_s=10) == b"again"


async def test_a_circuit_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "UPGRADE_TRIES_MAX", 0)
    monkeypatch.setattr(relay, "RELAY_CIRCUIT_S", 2)
    async with reach_world(relays=1, public=1, hidden=1) as ((server,), (one,), (hidden,)):
        one.learn(hidden.node_id, through(hidden))
        assert await one.request(hidden.node_id, ECHO, b"", timeout_s=10) == b""
        await until(lambda: server.figures().reach.circuits == 0)
        await until(lambda: not kinds(one, hidden) and not kinds(hidden, one))


async def test_all_circuits_share_one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "UPGRADE_TRIES_MAX", 0)
    monkeypatch.setattr(relay_quota, "RELAY_BYTES_PER_S", 200_000)
    async with reach_world(relays=1, public=1, hidden=1) as (_, (one,), (hidden,)):
        one.learn(hidden.node_id, through(hidden))
        begun = trio.current_time()
        assert await one.request(hidden.node_id, ECHO, bytes(200_000), timeout_s=20) == bytes(200_000)
        assert trio.current_time() - begun > 0.9, "400,000 bytes at 200,000 a second, of which one second is free"


async def test_a_reader_that_takes_nothing_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RELAY_STALL_S", 2.0)
    async with reach_world(relays=1, public=1, hidden=1) as ((server,), (one,), (hidden,)):

        async def take_the_call_only(stream: Any) -> None:
            wrapped = MuxedStream(stream)
            await read_message(wrapped, StopMessage)
            await write_message(wrapped, StopMessage(type=StopMessage.STATUS, status=Status.OK))
            await trio.sleep_forever()

        hidden._host.set_stream_handler(STOP, take_the_call_only)  # type: ignore[arg-type]
        stream = await raw(one, server)
        await write_message(stream, connect_through(hidden.node_id))
        assert (await read_message(stream, HopMessage)).status == Status.OK
        most = 0
        with trio.move_on_after(20), suppress(PeerUnreachable):
            while True:
                await stream.write(bytes(65_536))
                most = max(most, _buffered(server))
        assert most <= STREAM_WINDOW_MAX_BYTES
        assert server.figures().reach.relayed_bytes < 3 * STREAM_WINDOW_MAX_BYTES
        await until(lambda: server.figures().reach.circuits == 0)


def _buffered(transport: Libp2pTransport) -> int:
    """What a node holds for streams that are not read."""
    links = [link for group in transport._network.connections.values() for link in group]
    return sum(len(one) for link in links for one in link.muxed_conn.stream_buffers.values())  # type: ignore[attr-defined]


# the ends of a circuit ----------------------------------------------------------------------------------------------


async def test_calls_come_from_relays_that_we_chose_only() -> None:
    async with reach_world(relays=1, public=1, hidden=1) as (_, (stranger,), (hidden,)):
        await hidden.connect(stranger.addresses()[0])
        stream = await raw(stranger, hidden, STOP)
        with pytest.raises((PeerUnreachable, RemoteError)):
            await write_message(stream, called_by(stranger.node_id, 1, 1))
            await read_message(stream, StopMessage)
        assert hidden._reaching.circuits._inbound == 0


async def test_a_relay_that_lies_about_the_caller_deceives_nobody() -> None:
    async with reach_world(relays=1, public=2, hidden=1) as ((server,), (liar, framed), (hidden,)):
        books: Any = server._reaching._relay

        async def called(_source: Any, target: Any) -> MuxedStream:
            onward = await books._open_stop(target)
            await write_message(onward, called_by(framed.node_id, 1, 1))
            await read_message(onward, StopMessage)
            return onward

        books._called = called
        liar.learn(hidden.node_id, through(hidden))
        assert await liar.request(hidden.node_id, ECHO, b"", timeout_s=10) == b""
        assert liar.node_id in hidden.connected() and framed.node_id not in hidden.connected()


async def test_nobody_reserves_or_calls_on_through_a_circuit() -> None:
    async with reach_world(relays=2, hidden=1) as (relays, _, (hidden,)):
        outer, inner = relays
        outer._dialler.book.learn(hidden.node_id, [])
        with pytest.raises(PeerUnreachable, match="no direct connection"):
            await raw(outer, inner)
        assert await hop(hidden, outer, HopMessage(type=HopMessage.RESERVE)) == Status.OK
        assert inner.figures().reach.reservations == 1
