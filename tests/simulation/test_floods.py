"""A staked node that floods its topics with well-formed messages: its neighbours stop it, and the market goes on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio

from cyxnode.protocol.limits import GOSSIP_GROSS, GOSSIP_PER_AUTHOR, GOSSIP_REJECTS_MAX
from cyxnode.protocol.messages import Decline, DeclineReason
from cyxnode.protocol.ports import GossipMessage
from cyxnode.protocol.units import NodeId
from cyxnode.protocol.validation import market_topic
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.node import Node
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


async def flood(node: Node, count: int) -> None:
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
        await flood(flooder, 3 * BURST)
        await trio.sleep(1)
        # One burst, and what the bucket regained in a second and while the flood went on.
        assert all(BURST // 2 <= heard[key] <= BURST + 3 * PER_S for key in honest), heard
        transports = [world.nodes[key].context.wire.transport for key in honest]
        assert not any(me in transport._misbehaviour.banned for transport in transports)  # type: ignore[attr-defined]
        assert (await run_job(requester)).phase is JobPhase.SETTLED


async def test_a_gross_flood_bans_the_flooder_and_no_forwarder(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(8)
        flooder = await world.add_node("flooder")
        await trio.sleep(30)
        me, honest = flooder.context.wire.me, [key for key in world.nodes if key != flooder.context.wire.me]
        await flood(flooder, GOSSIP_GROSS * BURST + 2 * GOSSIP_REJECTS_MAX)
        await trio.sleep(2)
        banned = {key: set(world.nodes[key].context.wire.transport._misbehaviour.banned) for key in honest}  # type: ignore[attr-defined]
        assert all(who <= {me} for who in banned.values())
        assert sum(me in who for who in banned.values()) >= len(honest) // 2
        assert not flooder.context.wire.transport.connected().intersection(honest)
