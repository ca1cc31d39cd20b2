"""What a peer can do to the fast path of gossip: it costs that peer, and nobody else."""

from __future__ import annotations

from cyxnode.p2p import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

from contextlib import suppress

import pytest
import trio
from libp2p.network.stream.exceptions import StreamError
from libp2p.pubsub.pb import rpc_pb2

from cyxnode.p2p.fast_gossip import outbox, writer
from cyxnode.p2p.host import libp2p_id
from cyxnode.protocol.limits import (
    CONNECTION_BACKLOG_BYTES,
    GOSSIP_CACHE_MAX_BYTES,
    GOSSIP_ENVELOPE_MAX_BYTES,
    GOSSIP_JOINS_PER_PEER,
    GOSSIP_MESSAGE_MAX_BYTES,
    GOSSIP_OUTBOUND_MAX_BYTES,
    GOSSIP_SEEN_IDS_MAX,
    GOSSIP_STREAMS_PER_PEER_MAX,
    TOPIC_MAX_CHARS,
)
from gossip_world import (
    GOSSIP,
    TOPIC,
    Member,
    Village,
    Wire,
    frame,
    gossip_stream,
    key,
    publishing,
    signed,
    still_serves,
    until,
    village,
)

pytestmark = pytest.mark.slow
AUTHOR = key(77)


async def three(place: Village) -> tuple[Member, Member, Member]:
    """A victim and a friend on the fast path, and a stranger that writes raw bytes (itself on the library's)."""
    victim, friend = await place.member(1), await place.member(2)
    stranger = await place.member(3, fast=False)
    await place.meet(victim, friend, stranger)
    return victim, friend, stranger


BROKEN = {
    "garbage": bytes([50]) + b"\xff" * 50,
    "a length of more than 64 bits": b"\xff" * 10 + b"\x01",
    "a length of 2 MiB": b"\x80\x80\x80\x01" + b"x" * 100,
    "a valid message, then garbage": publishing(signed(AUTHOR, b"first", 1)) + b"\x02\xff\xff",
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_malformed_bytes_cost_their_sender_its_gossip(sent: bytes) -> None:
    async with village() as place:
        victim, friend, stranger = await three(place)
        stream = await gossip_stream(stranger, victim)
        await stream.write(sent)
        await until(lambda: libp2p_id(stranger.node.node_id) in victim.pubsub.blacklisted_peers)
        await still_serves(victim, friend)
        await stranger.node.publish(TOPIC, b"from the one who sent it")
        with suppress(StreamError):
            await (await gossip_stream(stranger, victim)).write(publishing(signed(AUTHOR, b"on a new stream", 2)))
        await still_serves(victim, friend)
        assert not any(
            message.forwarder == stranger.node.node_id for message in victim.heard if message.data != b"first"
        )
        assert stranger.node.node_id in victim.node.connected(), "its other streams live on"


async def test_a_message_that_arrives_byte_by_byte_is_one_message() -> None:
    async with village() as place:
        victim, friend, stranger = await three(place)
        stream = await gossip_stream(stranger, victim)
        for byte in publishing(signed(AUTHOR, b"slow", 1), signed(AUTHOR, b"slow too", 2)):
            await stream.write(bytes([byte]))
        await until(lambda: b"slow too" in friend.data)
        assert victim.data == friend.data == [b"slow", b"slow too"]


async def test_a_stream_that_ends_in_a_message_leaves_nothing_behind() -> None:
    async with village() as place:
        victim, friend, stranger = await three(place)
        whole = publishing(signed(AUTHOR, bytes(60_000), 1))
        for end in ("close", "reset"):
            for _ in range(2 * GOSSIP_STREAMS_PER_PEER_MAX):
                stream = await gossip_stream(stranger, victim)
                await stream.write(whole[:30_000])
                await getattr(stream, end)()
                await until(
                    lambda: victim.pubsub._inlets == {libp2p_id(one.node.node_id): 1 for one in (friend, stranger)}
                )
        await still_serves(victim, friend)
        await still_serves(victim, stranger)


async def test_a_peer_has_few_gossip_streams() -> None:
    async with village() as place:
        victim, friend, stranger = await three(place)
        streams = [await gossip_stream(stranger, victim) for _ in range(2 * GOSSIP_STREAMS_PER_PEER_MAX)]
        await until(lambda: sum(one.muxed_stream.reset_received for one in streams) == GOSSIP_STREAMS_PER_PEER_MAX + 1)
        assert victim.pubsub._inlets[libp2p_id(stranger.node.node_id)] == GOSSIP_STREAMS_PER_PEER_MAX
        await still_serves(victim, friend)
        await still_serves(victim, stranger)


async def test_a_peer_that_does_not_read_gossip_is_bounded_and_later_disconnected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "GOSSIP_STALL_S", 1.0)

    async def never_read(_stream: object) -> None:
        await trio.sleep_forever()

    async with village() as place:
        victim, friend, stranger = [await place.member(number) for number in (1, 2, 3)]
        stranger.node._host.set_stream_handler(GOSSIP, never_read)
        await victim.node.connect(friend.node.addresses()[0])
        await stranger.node.connect(victim.node.addresses()[0])
        await until(lambda: len(victim.pubsub.peer_topics.get(TOPIC, ())) == 2)
        box = victim.outbox(stranger)
        count = 2 * GOSSIP_OUTBOUND_MAX_BYTES // GOSSIP_MESSAGE_MAX_BYTES
        for number in range(count):
            await victim.node.publish(TOPIC, number.to_bytes(2, "big") + bytes(GOSSIP_MESSAGE_MAX_BYTES - 2))
            assert box._bytes <= GOSSIP_OUTBOUND_MAX_BYTES
            await until(lambda number=number: len(friend.heard) >= number - 10)
        assert box.dropped > 0
        await until(lambda: len(friend.heard) == count)
        await until(lambda: box.closed and box._muxed.muxed_conn.is_closed)
        await still_serves(victim, friend)


async def test_a_connection_that_does_not_read_is_bounded_and_later_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CONNECTION_WRITE_TIMEOUT_S", 1.0)
    async with village() as place, trio.open_nursery() as nursery:
        victim, friend, stranger = [await place.member(number) for number in (1, 2, 3)]
        await victim.node.connect(friend.node.addresses()[0])
        wire = Wire(victim.node.addresses()[0], lambda _passed: 65536)
        await stranger.node.connect(await nursery.start(wire.serve))
        await until(lambda: len(victim.pubsub.peer_topics.get(TOPIC, ())) == 2)
        box = victim.outbox(stranger)
        wire.hold = trio.Event()
        for number in range(200):
            await victim.node.publish(TOPIC, number.to_bytes(2, "big") + bytes(60_000))
            assert box._connection._writer.backlog < 2 * CONNECTION_BACKLOG_BYTES
            await until(lambda number=number: len(friend.heard) >= number - 10)
        await until(lambda: stranger.node.node_id not in victim.node.connected())
        await until(lambda: len(friend.heard) == 200)
        await still_serves(victim, friend)
        wire.hold.set()
        nursery.cancel_scope.cancel()


async def test_a_flood_of_valid_messages_is_delivered_and_others_are_served() -> None:
    async with village() as place:
        victim, friend, stranger = await three(place)
        authors = [key(77 + number) for number in range(3)]  # each within its own rate
        flood = [publishing(signed(authors[number // 1_000], b"%d" % number, number)) for number in range(3_000)]
        stream = await gossip_stream(stranger, victim)

        in_one_turn, take_rpc = [0], victim.pubsub.take_rpc

        def counted(*arguments: object) -> None:
            in_one_turn[-1] += 1
            take_rpc(*arguments)

        async def take_turns() -> None:
            while True:
                await trio.lowlevel.checkpoint()
                in_one_turn.append(0)

        async def pour() -> None:
            for start in range(0, len(flood), 100):
                await stream.write(b"".join(flood[start : start + 100]))

        async with trio.open_nursery() as nursery:
            victim.pubsub.take_rpc = counted
            nursery.start_soon(take_turns)
            nursery.start_soon(pour)
            for _ in range(10):
                assert await friend.node.request(victim.node.node_id, "/cyx/1/echo", b"?", timeout_s=5) == b"?"
            await until(lambda: victim.data and victim.data[-1] == b"2999", 20)
            nursery.cancel_scope.cancel()
        assert max(in_one_turn) <= 64, "others had no turn between"
        assert len(victim.data) == 3_000, "the subscriber has no turns between"
        assert victim.pubsub.seen_messages.length() <= GOSSIP_SEEN_IDS_MAX
        assert victim.node._gossip._router.mcache._bytes <= GOSSIP_CACHE_MAX_BYTES
        await still_serves(victim, friend)


async def test_a_flood_of_control_messages_leaves_no_trace() -> None:
    rpc = rpc_pb2.RPC()
    for number in range(200):
        topic = f"unknown-{number}"
        rpc.control.graft.add(topicID=topic)
        rpc.control.prune.add(topicID=topic, backoff=2**40)
        rpc.control.ihave.add(topicID=topic, messageIDs=[b"%d" % number] * 50)
        rpc.control.iwant.add(messageIDs=[b"%d" % number] * 50)
        rpc.control.idontwant.add(messageIDs=[b"%d" % number])
        rpc.subscriptions.add(subscribe=True, topicid=topic + "x" * (number % 2) * TOPIC_MAX_CHARS)
    rpc.control.graft.add(topicID=TOPIC)
    async with village() as place:
        victim, friend, stranger = await three(place)
        stream = await gossip_stream(stranger, victim)
        for _ in range(200):
            await stream.write(frame(rpc))
        await stream.write(publishing(signed(AUTHOR, b"the last", 1)))
        await until(lambda: b"the last" in victim.data, 20)
        router, peer = victim.node._gossip._router, libp2p_id(stranger.node.node_id)
        assert set(router.back_off) | set(router.graft_flood_tracking[peer]) | set(
            router.ihave_message_limits[peer]
        ) <= {TOPIC}
        assert sum(peer in peers for peers in victim.pubsub.peer_topics.values()) <= 101
        assert max(map(len, victim.pubsub.peer_topics)) <= TOPIC_MAX_CHARS
        await still_serves(victim, friend)


async def test_joining_again_and_again_is_not_answered_each_time() -> None:
    async with village() as place:
        victim, friend, stranger = await three(place)
        replays, replay = [], victim.pubsub._replay_recent_messages

        async def counted(peer: object, topic: str) -> None:
            replays.append(peer)
            await replay(peer, topic)

        victim.pubsub._replay_recent_messages = counted
        rpc = rpc_pb2.RPC()
        for _ in range(100):
            rpc.subscriptions.add(subscribe=False, topicid=TOPIC)
            rpc.subscriptions.add(subscribe=True, topicid=TOPIC)
        stream = await gossip_stream(stranger, victim)
        for _ in range(20):
            await stream.write(frame(rpc))
        await stream.write(publishing(signed(AUTHOR, b"the last", 1)))
        await until(lambda: b"the last" in victim.data, 20)
        per_s, burst = GOSSIP_JOINS_PER_PEER
        assert burst // 2 < replays.count(libp2p_id(stranger.node.node_id)) <= burst + 20 * per_s
        await still_serves(victim, friend)


async def test_forged_and_heavy_messages_go_nowhere_and_the_true_one_does() -> None:
    forged, ballast, unsigned = (
        signed(AUTHOR, b"forged", 1),
        signed(AUTHOR, b"heavy", 2),
        signed(AUTHOR, b"unsigned", 3),
    )
    forged.data = b"forgery"
    ballast.key = bytes(GOSSIP_ENVELOPE_MAX_BYTES)
    unsigned.signature = b""
    two_topics = rpc_pb2.Message(topicIDs=[TOPIC, TOPIC], data=b"x", from_id=b"no key", seqno=b"1", signature=bytes(64))
    async with village() as place:
        victim, friend, stranger = await three(place)
        echoed = signed(key(1), b"in the victim's name", 4)
        stream = await gossip_stream(stranger, victim)
        await stream.write(publishing(forged, ballast, unsigned, two_topics, echoed))
        await stream.write(publishing(signed(AUTHOR, b"forged", 1)))
        await until(lambda: friend.heard)
        assert victim.data == friend.data == [b"forged"]
        await still_serves(victim, stranger)
