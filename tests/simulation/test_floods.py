"""Who floods the network is stopped by its neighbours, and the market goes on."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import trio

from cyxnode.p2p.memory import MemoryTransport
from cyxnode.protocol.limits import (
    GOSSIP_GROSS,
    GOSSIP_PER_AUTHOR,
    GOSSIP_REJECTS_MAX,
    STREAM_WINDOW_MAX_BYTES,
    STREAMS_PER_PEER_MAX,
)
from cyxnode.protocol.messages import Decline, DeclineReason
from cyxnode.protocol.ports import GossipMessage
from cyxnode.protocol.units import NodeId
from cyxnode.protocol.validation import market_topic, presence_topic
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.node import Node
from cyxnode.simulation.invariants import queues
from flooders import FLOODS, Flooder, flood
from market_world import World, open_world, run_job

pytestmark = pytest.mark.slow
PER_S, BURST = GOSSIP_PER_AUTHOR["market"]


def declines_heard(world: World, flooder: NodeId) -> Counter[NodeId]:
    """Counts what honest nodes deliver of the flood."""
    heard: Counter[NodeId] = Counter()

    def watch(node: NodeId, subscriptions: Any) -> None:
        deliver = subscriptions.deliver

        def count(message: GossipMessage) -> None:
            heard[node] += message.author == flooder
            deliver(message)

        subscriptions.deliver = count

    for key, node in world.nodes.items():
        watch(key, node.context.wire.transport._subscriptions)  # type: ignore[attr-defined]
    return heard


async def decline_often(node: Node, count: int) -> None:
    topic = market_topic(node.context.runner.execution_class)
    for number in range(count):
        await node.context.wire.publish(
            topic, Decline(job=number.to_bytes(32, "big"), reason=DeclineReason.BUSY, hint="")
        )


async def test_a_flood_ends_at_its_neighbours_and_jobs_go_on(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(8)
        flooder = await world.add_node("flooder")
        requester = await world.add_requester()
        await trio.sleep(30)
        me, honest = flooder.context.wire.me, [key for key in world.nodes if key != flooder.context.wire.me]
        heard = declines_heard(world, me)
        await decline_often(flooder, 3 * BURST)
        await trio.sleep(1)
        # One burst, and what the bucket regained in a second and while the flood went on.
        assert all(BURST // 2 <= heard[key] <= BURST + 3 * PER_S for key in honest), heard
        transports = [world.nodes[key].context.wire.transport for key in honest]
        assert not any(me in transport._bans for transport in transports)  # type: ignore[attr-defined]
        assert (await run_job(requester)).phase is JobPhase.SETTLED


async def test_ten_flooders_at_once_neither_stop_a_job_nor_fill_memory(autojump_clock: object) -> None:
    """Messages, garbage, wrong signatures, sybils, replays, connections, silent streams, unread answers, huge requests
    and endless ones, for as long as a job takes."""
    fullest: dict[str, int] = {}

    async def watch(world: World) -> None:
        while True:
            for node in world.nodes.values():
                for name, (size, bound) in queues(SimpleNamespace(node=node)).items():  # type: ignore[arg-type]
                    assert size <= bound, f"{size} {name}, {bound} are allowed"
                    fullest[name] = max(size, fullest.get(name, 0))
            await trio.sleep(0.5)

    async with open_world() as world, trio.open_nursery() as nursery:
        await world.add_nodes(6)
        requester = await world.add_requester()
        await trio.sleep(20)
        one, blob = next(iter(world.nodes.values())), bytes(32 * 1024**2)
        cids = [node.context.blobs.put(blob) for node in world.nodes.values()]
        execution_class = one.context.runner.execution_class
        for number, act in enumerate(FLOODS):
            key = world.key(f"flooder{number}")
            me = Flooder(
                key=key,
                transport=MemoryTransport(world.network, key.node_id),
                genesis=one.context.wire.genesis,
                victims=[
                    address for node in world.nodes.values() for address in node.context.wire.transport.addresses()
                ],
                topics=[market_topic(execution_class), presence_topic(execution_class)],
                rng=random.Random(number),
                blob=cids[0],
            )
            await nursery.start(_live, me)
            nursery.start_soon(flood, me, act)
        nursery.start_soon(watch, world)
        process, before = psutil.Process(), psutil.Process().memory_info().rss
        await trio.sleep(10)
        meanwhile = process.memory_info().rss
        assert (await run_job(requester)).phase is JobPhase.SETTLED
        held = len(world.nodes) * 3 * STREAMS_PER_PEER_MAX * STREAM_WINDOW_MAX_BYTES  # three of them fill windows
        assert process.memory_info().rss - before < held
        assert process.memory_info().rss - meanwhile < 64e6, "it grows with time"
        nursery.cancel_scope.cancel()
    assert fullest["inbound streams"] > 30 and fullest["connections"] > 10, "the floods were too kind"


async def _live(me: Flooder, task_status: Any) -> None:
    async with me.transport.run():
        task_status.started()
        await trio.sleep_forever()


async def test_a_gross_flood_bans_the_flooder_and_no_forwarder(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(8)
        flooder = await world.add_node("flooder")
        await trio.sleep(30)
        me, honest = flooder.context.wire.me, [key for key in world.nodes if key != flooder.context.wire.me]
        await decline_often(flooder, GOSSIP_GROSS * BURST + 2 * GOSSIP_REJECTS_MAX)
        await trio.sleep(2)
        banned = {key: set(world.nodes[key].context.wire.transport._bans.nodes) for key in honest}  # type: ignore[attr-defined]
        assert all(who <= {me} for who in banned.values())
        assert sum(me in who for who in banned.values()) >= len(honest) // 2
        assert not flooder.context.wire.transport.connected().intersection(honest)
