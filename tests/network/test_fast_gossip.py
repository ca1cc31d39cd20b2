"""The fast path of gossip among honest nodes: beside the library's path, through churn and broken lines; its switch."""

from __future__ import annotations

from cyxnode.p2p import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

import random
from collections.abc import Iterator
from typing import Any

import pytest
import structlog.testing
import trio
from libp2p.stream_muxer.yamux.yamux import Yamux

from cyxnode.p2p.fast_gossip import internals
from cyxnode.p2p.fast_gossip.connection import FastYamux
from cyxnode.p2p.fast_gossip.pubsub import FastPubsub
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import GOSSIP_MESSAGE_MAX_BYTES
from gossip_world import TOPIC, Wire, key, still_serves, until, village

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("fast_dials", [True, False])
async def test_a_fast_node_and_one_of_the_library_gossip_both_ways(fast_dials: bool) -> None:
    async with village() as place:
        fast, other = await place.member(1), await place.member(2, fast=False)
        assert isinstance(fast.pubsub, FastPubsub)
        assert not isinstance(other.pubsub, FastPubsub)
        await place.meet(*((other, fast) if fast_dials else (fast, other)))
        for size in (0, 1, 5_000, GOSSIP_MESSAGE_MAX_BYTES):
            await fast.node.publish(TOPIC, b"f" * size)
            await other.node.publish(TOPIC, b"o" * size)
        await until(lambda: len(fast.heard) == len(other.heard) == 4)
        assert sorted(map(len, fast.data)) == sorted(map(len, other.data)) == [0, 1, 5_000, GOSSIP_MESSAGE_MAX_BYTES]
        (connection,) = next(iter(fast.node._network.connections.values()))
        assert isinstance(connection.muxed_conn, FastYamux)
        assert connection.muxed_conn.reader is not None


async def test_messages_pass_through_a_fast_node_between_two_of_the_library() -> None:
    async with village() as place:
        middle = await place.member(1)
        ends = [await place.member(number, fast=False) for number in (2, 3)]
        for end in ends:
            await end.node.connect(middle.node.addresses()[0])
        await until(lambda: len(middle.pubsub.peer_topics.get(TOPIC, ())) == 2)
        await ends[0].node.publish(TOPIC, b"there")
        await ends[1].node.publish(TOPIC, b"and back")
        await until(lambda: ends[1].data == [b"there"] and ends[0].data == [b"and back"])
        assert middle.data in ([b"there", b"and back"], [b"and back", b"there"])


async def test_a_cancelled_publication_is_not_sent_and_breaks_nothing() -> None:
    async with village() as place:
        near, far = await place.member(1), await place.member(2)
        await place.meet(near, far)
        for number in range(20):
            with trio.CancelScope() as scope:
                scope.cancel()
                await near.node.publish(TOPIC, b"cancelled")
            assert scope.cancelled_caught
            await near.node.publish(TOPIC, b"sent %d" % number)
        await until(lambda: len(far.heard) == 20)
        assert b"cancelled" not in far.data


async def test_publishers_that_are_cancelled_at_any_time_leave_whole_messages() -> None:
    chance = random.Random(3)
    async with village() as place:
        near, far = await place.member(1), await place.member(2)
        await place.meet(near, far)
        for _ in range(30):
            with trio.move_on_after(chance.random() / 100):
                while True:
                    await near.node.publish(TOPIC, bytes(chance.randrange(30_000)))
        assert near.heard == []
        await still_serves(near, far)
        assert {len(data.strip(b"\0")) for data in far.data[:-1]} <= {0}


async def test_a_node_that_returns_under_its_key_gossips_again() -> None:
    async with village() as place:
        stays = await place.member(1)
        for visit in range(5):
            returns = await place.member(2)
            await returns.node.connect(stays.node.addresses()[0])
            for one in (stays, returns):
                await until(lambda one=one: TOPIC in one.pubsub.peer_topics)
            await returns.node.publish(TOPIC, b"from %d" % visit)
            await stays.node.publish(TOPIC, b"to %d" % visit)
            await until(lambda returns=returns, visit=visit: b"to %d" % visit in returns.data, 4)
            await until(lambda visit=visit: b"from %d" % visit in stays.data, 4)
            await (returns.vanish() if visit % 2 else returns.stop())
            await until(lambda: not stays.node.connected())
        assert not stays.pubsub._inlets
        assert not stays.pubsub._outboxes


async def test_two_nodes_that_dial_each_other_at_once_gossip() -> None:
    async with village() as place:
        near, far = await place.member(1), await place.member(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.node.connect, far.node.addresses()[0])
            nursery.start_soon(far.node.connect, near.node.addresses()[0])
        await until(lambda: TOPIC in near.pubsub.peer_topics and TOPIC in far.pubsub.peer_topics)
        for _ in range(3):
            await still_serves(near, far)


async def test_gossip_heals_after_half_of_the_nodes_vanish() -> None:
    async with village() as place:
        members = [await place.member(number, fast=number % 4 != 0) for number in range(1, 9)]
        await place.meet(*members)
        async with trio.open_nursery() as nursery:
            for lost in members[::2]:
                nursery.start_soon(lost.vanish)
        left = members[1::2]
        for one in left:
            await until(lambda one=one: len(one.node.connected()) == len(left) - 1)
        for number, one in enumerate(left):
            await one.node.publish(TOPIC, b"after %d" % number)
        for number, one in enumerate(left):
            expected = {b"after %d" % other for other in range(len(left)) if other != number}
            await until(lambda one=one, expected=expected: expected <= set(one.data))


@pytest.mark.parametrize("cut_after", [700, 1_500, 3_001, 20_000, 64_003])
async def test_a_line_that_breaks_in_a_packet_is_a_peer_that_left(cut_after: int) -> None:
    async with village() as place, trio.open_nursery() as nursery:
        near, far, friend = [await place.member(number) for number in (1, 2, 3)]
        await near.node.connect(friend.node.addresses()[0])
        cut = [cut_after]
        wire = Wire(near.node.addresses()[0], lambda passed: max(0, cut[0] - passed))
        address = await nursery.start(wire.serve)
        with trio.move_on_after(3):
            try:
                await far.node.connect(address)
                while far.node.connected():
                    await far.node.publish(TOPIC, bytes(2_000))
                    await near.node.publish(TOPIC, bytes(2_000))
                    await trio.sleep(0.01)
            except Exception as error:
                assert "could not dial" in str(error)
        await until(lambda: near.node.connected() == far.node.connected() | {friend.node.node_id} - {far.node.node_id})
        await still_serves(near, friend)
        cut[0] = 10**9
        far.node.learn(near.node.node_id, near.node.addresses())
        await far.node.connect(near.node.addresses()[0])
        await until(lambda: TOPIC in far.pubsub.peer_topics)
        await still_serves(near, far)
        nursery.cancel_scope.cancel()


async def test_a_line_that_passes_three_bytes_at_a_time_is_only_slow() -> None:
    async with village() as place, trio.open_nursery() as nursery:
        near, far = await place.member(1), await place.member(2)
        address = await nursery.start(Wire(near.node.addresses()[0], lambda _passed: 3).serve)
        await far.node.connect(address)
        await until(lambda: TOPIC in near.pubsub.peer_topics and TOPIC in far.pubsub.peer_topics)
        await near.node.publish(TOPIC, bytes(2_000))
        await far.node.publish(TOPIC, bytes(2_000))
        await until(lambda: near.data == far.data == [bytes(2_000)])
        nursery.cancel_scope.cancel()


# the switch


@pytest.fixture
def fresh() -> Iterator[None]:
    """What was decided about the library is decided anew, before and after."""
    for function in (internals.doubt, internals._say_once):
        function.cache_clear()
    yield
    for function in (internals.doubt, internals._say_once):
        function.cache_clear()


def is_fast(transport: Any) -> bool:
    return isinstance(transport._gossip._pubsub, FastPubsub)


def test_the_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_fast(Libp2pTransport(key(1)))
    monkeypatch.setenv(internals.SWITCH, "0")
    assert not is_fast(Libp2pTransport(key(1)))
    assert is_fast(Libp2pTransport(key(1), fast_gossip=True))
    monkeypatch.setenv(internals.SWITCH, "off")
    with pytest.raises(LocalError, match="neither 0 nor 1"):
        Libp2pTransport(key(1))


@pytest.mark.usefixtures("fresh")
def test_another_version_goes_the_librarys_way_and_the_log_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "version", lambda _package: "0.8.2")
    with structlog.testing.capture_logs() as logs:
        assert not is_fast(Libp2pTransport(key(1)))
        assert not is_fast(Libp2pTransport(key(1), fast_gossip=True))
    assert [entry["reason"] for entry in logs] == ["libp2p is 0.8.2, the fast path was written for 0.8.1"]


@pytest.mark.usefixtures("fresh")
def test_a_function_that_somebody_replaced_goes_the_librarys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle_incoming(self: Any) -> None:
        """Not the library's."""

    monkeypatch.setattr(Yamux, "handle_incoming", handle_incoming)
    with structlog.testing.capture_logs() as logs:
        assert not is_fast(Libp2pTransport(key(1)))
    assert "others than those known" in logs[0]["reason"]


@pytest.mark.usefixtures("fresh")
def test_a_library_without_source_goes_the_librarys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Yamux, "start", print)
    assert not is_fast(Libp2pTransport(key(1)))
