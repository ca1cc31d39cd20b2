"""Gossip, in memory and over libp2p: once to everybody, judged by each, bounded."""

from __future__ import annotations

import pytest
import trio

from cyxnode.protocol.errors import LocalError, PeerUnreachable
from cyxnode.protocol.limits import GOSSIP_MESSAGE_MAX_BYTES, GOSSIP_REJECTS_MAX
from cyxnode.protocol.ports import GossipVerdict
from transport_world import World, accept, joined, star, until


async def test_gossip_reaches_every_subscriber_once_and_not_its_author(world: World) -> None:
    nodes = await star(world, 5)
    async with joined(nodes, "t") as heard:
        for number in range(10):
            await nodes[number % 5].publish("t", bytes([number]))
        await until(lambda: sum(map(len, heard)) >= 40)
        await trio.sleep(0.3)
    for index, messages in enumerate(heard):
        assert sorted(message.data[0] for message in messages) == [n for n in range(10) if n % 5 != index]
        assert all(message.author == nodes[message.data[0] % 5].node_id for message in messages)
        assert all(message.topic == "t" for message in messages)
    assert {message.forwarder for message in heard[1]} == {nodes[0].node_id}


async def test_a_burst_is_delivered_whole(world: World) -> None:
    nodes = await star(world, 2)
    async with joined(nodes, "t") as heard:
        for number in range(300):
            await nodes[0].publish("t", number.to_bytes(2, "big"))
        await until(lambda: len(heard[1]) == 300)


async def test_a_node_that_leaves_a_topic_and_comes_back_is_heard_and_hears_at_once(world: World) -> None:
    nodes = await star(world, 3)
    async with joined(nodes[:1], "t") as others:
        for number in range(4):
            async with joined(nodes[1:2], "t") as own:
                await nodes[1].publish("t", bytes([1, number]))
                await nodes[0].publish("t", bytes([0, number]))
                await until(lambda own=own, number=number: len(others[0]) == number + 1 and len(own[0]) == 1, 2)


async def test_publishing_works_without_a_subscription(world: World) -> None:
    nodes = await star(world, 3)
    async with joined(nodes[:2], "t") as heard:
        await nodes[2].publish("t", b"from outside")
        await until(lambda: heard[0] and heard[1])
    assert heard[0][0].author == nodes[2].node_id
    await nodes[0].publish("nobody-listens", b"x")


async def test_only_accepted_messages_are_delivered_and_forwarded(world: World) -> None:
    nodes = await star(world, 3)
    verdicts = {b"accept": GossipVerdict.ACCEPT, b"ignore": GossipVerdict.IGNORE, b"reject": GossipVerdict.REJECT}
    async with (
        joined([nodes[0]], "t", lambda message: verdicts[message.data]) as (at_hub,),
        joined(nodes[2:], "t") as (at_leaf,),
    ):
        for data in (b"ignore", b"reject", b"raises KeyError", b"accept"):
            await nodes[1].publish("t", data)
        await until(lambda: at_hub and at_leaf)
        await trio.sleep(0.2)
    assert [message.data for message in at_hub] == [message.data for message in at_leaf] == [b"accept"]


async def test_a_forwarder_of_many_rejected_messages_is_banned(world: World) -> None:
    nodes = await star(world, 2)
    async with joined([nodes[0]], "t", lambda _message: GossipVerdict.REJECT):
        for number in range(GOSSIP_REJECTS_MAX):
            await nodes[1].publish("t", bytes([number]))
        await until(lambda: not nodes[0].connected())
    with pytest.raises(PeerUnreachable):
        await nodes[0].connect(nodes[1].addresses()[0])


async def test_gossip_refuses_what_is_too_large_or_subscribed_already(world: World) -> None:
    node = await world.start(1)
    with pytest.raises(LocalError):
        await node.publish("t", bytes(GOSSIP_MESSAGE_MAX_BYTES + 1))
    async with node.subscribe("t", accept):
        with pytest.raises(LocalError, match="already"):
            async with node.subscribe("t", accept):
                pass
    async with node.subscribe("t", accept):
        pass


async def test_the_largest_gossip_message_arrives(world: World) -> None:
    nodes = await star(world, 2)
    async with joined(nodes, "t") as heard:
        for number in range(8):
            await nodes[0].publish("t", bytes([number]) * GOSSIP_MESSAGE_MAX_BYTES)
        await until(lambda: len(heard[1]) == 8)
