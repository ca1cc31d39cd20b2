"""A network whose bootstrap nodes are gone goes on among those who know one another, over restarts and newcomers."""

from __future__ import annotations

import pytest
import trio

from cyxnode.p2p.memory import MemoryTransport
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.node import Node
from market_world import World, open_world, run_job

pytestmark = pytest.mark.slow


def names(world: World) -> set[NodeId]:
    return {node.context.wire.me for node in world.nodes.values()}


def sees(node: Node) -> set[NodeId]:
    return set(node.presence.alive())


async def restart(world: World, numbers: range) -> None:
    for number in numbers:
        world.kill(world.key(f"node{number}").node_id)
    await trio.sleep(40)
    for number in numbers:
        await world.add_node(f"node{number}", rate_micro_per_s=20_000 + 5_000 * number)


@pytest.mark.parametrize("seed", [1, 2])
async def test_half_of_the_nodes_restart_and_one_joins_without_any_bootstrap_node(
    autojump_clock: object, seed: int
) -> None:
    async with open_world(seed) as world:
        await world.add_nodes(8)
        old_requester = await world.add_requester("old")
        assert (await run_job(old_requester)).phase is JobPhase.SETTLED

        world.network.kill(world.key("bootstrap").node_id)
        await restart(world, range(4))
        await trio.sleep(30)
        for node in world.nodes.values():
            assert sees(node) == names(world) - {node.context.wire.me}

        living = world.nodes[world.key("node6").node_id]
        world.bootstrap = living.context.wire.transport.addresses()
        newcomer = await world.add_node("newcomer", rate_micro_per_s=10_000)
        requester = await world.add_requester("new")
        await trio.sleep(30)
        assert sees(newcomer) == names(world) - {newcomer.context.wire.me}
        assert (await run_job(old_requester)).phase is JobPhase.SETTLED
        assert (await run_job(requester)).phase is JobPhase.SETTLED


async def test_a_whole_network_comes_back_from_its_disks_alone(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(6)
        await trio.sleep(30)
        world.network.kill(world.key("bootstrap").node_id)
        world.bootstrap = ()
        await restart(world, range(6))
        await trio.sleep(60)
        for node in world.nodes.values():
            assert sees(node) == names(world) - {node.context.wire.me}


async def test_a_requester_comes_back_from_its_disk_alone(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        assert (await run_job(requester)).phase is JobPhase.SETTLED
        world.kill_requester("requester")
        world.kill_requester("bootstrap")
        world.bootstrap = ()
        again = await world.add_requester()
        assert (await run_job(again)).phase is JobPhase.SETTLED


async def test_a_node_that_serves_as_bootstrap_node_is_not_hung_up_on(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(3)
        living = next(iter(world.nodes.values()))
        world.bootstrap = living.context.wire.transport.addresses()
        newcomer = await world.add_node("newcomer")
        await trio.sleep(30)
        transport, me = newcomer.context.wire.transport, living.context.wire.me
        assert isinstance(transport, MemoryTransport)
        link = transport.link_to(me)
        await trio.sleep(200)
        assert link is not None and transport.link_to(me) is link
