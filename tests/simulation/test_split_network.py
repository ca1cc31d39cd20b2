"""A network that falls apart: both parts say so, and find one another by what they share, however little."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest
import structlog
import trio

from cyxnode.p2p.memory_network import constant_latency
from cyxnode.protocol.limits import (
    DEAD_AFTER_MS,
    EXCHANGE_INTERVAL_S,
    HEARTBEAT_INTERVAL_MS,
    SPLIT_CLEARS_MS,
    SPLIT_EVIDENCE_MS,
    SPLIT_HEAL_S,
    SPLIT_LOSS_FORGOTTEN_MS,
    SPLIT_PERSISTS_MS,
)
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.node import Node
from cyxnode.simulation.plan import NetworkSplits, NodePauses, Plan, schedule
from cyxnode.simulation.run import run_plan
from market_world import World, open_world, run_job

pytestmark = pytest.mark.slow
NODES = 20
"""More than twice the connections that a node wants: each half has enough of its own."""
SETTLED_S = 90.0
CUT_NOTICED_S = (DEAD_AFTER_MS + 2.2 * HEARTBEAT_INTERVAL_MS) / 1000
TALK_NOTICED_S = 1.1 * EXCHANGE_INTERVAL_S + (SPLIT_PERSISTS_MS + 2.2 * HEARTBEAT_INTERVAL_MS) / 1000
FOUND_S = 1.1 * SPLIT_HEAL_S + 5 + 10
CLEARED_S = (SPLIT_EVIDENCE_MS + SPLIT_CLEARS_MS + 2.2 * HEARTBEAT_INTERVAL_MS) / 1000


async def settled(world: World) -> list[Node]:
    await world.add_nodes(NODES)
    await trio.sleep(SETTLED_S)
    return list(world.nodes.values())


def halves(world: World) -> tuple[set[NodeId], set[NodeId]]:
    names = list(world.nodes)
    return set(names[::2]), set(names[1::2])


def alarms(nodes: list[Node]) -> int:
    return sum(bool(node.presence.split.alarm) for node in nodes)


def hears_all(node: Node) -> bool:
    return len(node.presence.split.state.voices) == NODES - 1


async def within(seconds: float, true: Callable[[], bool]) -> None:
    with trio.fail_after(seconds):
        while not true():  # noqa: ASYNC110
            await trio.sleep(1)


def cut(world: World, one: Collection[NodeId], other: Collection[NodeId]) -> None:
    """These two do not reach one another; whoever is in neither reaches both."""
    reachable = world.network.reachable

    def apart(a: NodeId, b: NodeId) -> bool:
        return reachable(a, b) and not ((a in one and b in other) or (a in other and b in one))

    world.network.reachable = apart  # type: ignore[method-assign]
    world.network.partition([])


@pytest.mark.parametrize("cut_s", [70.0, SPLIT_LOSS_FORGOTTEN_MS / 1000 + 120])
async def test_halves_with_one_bootstrap_node_find_one_another_after_a_cut(
    autojump_clock: object, cut_s: float
) -> None:
    async with open_world(latency=constant_latency(0.05)) as world:
        nodes = await settled(world)
        assert all(map(hears_all, nodes)) and alarms(nodes) == 0
        world.network.partition([halves(world)[0]])  # the bootstrap node is with the others
        await within(CUT_NOTICED_S, lambda: alarms(nodes) == NODES)
        await trio.sleep(cut_s - CUT_NOTICED_S)
        assert not any(map(hears_all, nodes))
        long = cut_s * 1000 > SPLIT_LOSS_FORGOTTEN_MS
        assert alarms(nodes) == (0 if long else NODES), "who is away for long is taken for gone"
        world.network.heal()
        await within(FOUND_S + (EXCHANGE_INTERVAL_S * 1.1 if long else 0), lambda: all(map(hears_all, nodes)))
        await within(CLEARED_S, lambda: alarms(nodes) == 0)
        requester = await world.add_requester()
        assert (await run_job(requester)).phase is JobPhase.SETTLED


async def test_halves_with_a_bootstrap_node_each_find_one_another(autojump_clock: object) -> None:
    """Both lists are the same; the bootstrap nodes never speak with each other."""
    async with open_world(latency=constant_latency(0.05)) as world:
        second = await world.add_requester("second", micro_cyx=0)
        lamp = world.key("bootstrap").node_id
        world.bootstrap = (*world.bootstrap, *second.wire.transport.addresses())
        cut(world, {lamp}, {second.wire.me})
        nodes = await settled(world)
        apart = {*halves(world)[0], second.wire.me}
        world.network.partition([apart])
        await within(CUT_NOTICED_S, lambda: alarms(nodes) == NODES)
        await trio.sleep(60)
        assert not any(map(hears_all, nodes))
        world.network.heal()
        await within(FOUND_S, lambda: all(map(hears_all, nodes)))
        await within(CLEARED_S, lambda: alarms(nodes) == 0)


async def test_halves_that_never_met_find_one_another_by_their_list(autojump_clock: object) -> None:
    """Each half grows up in the dark with its own bootstrap node of the list, and has never heard of the other."""
    async with open_world(latency=constant_latency(0.05)) as world:
        second = await world.add_requester("second", micro_cyx=0)
        world.bootstrap = (*world.bootstrap, *second.wire.transport.addresses())
        names = [world.key(f"node{number}").node_id for number in range(NODES)]
        world.network.partition([{*names[::2], second.wire.me}])
        nodes = await settled(world)
        assert not any(map(hears_all, nodes)) and alarms(nodes) == 0
        world.network.heal()
        await within(1.1 * EXCHANGE_INTERVAL_S + FOUND_S, lambda: all(map(hears_all, nodes)))


async def test_halves_of_which_only_the_bootstrap_node_hears_both_say_so(autojump_clock: object) -> None:
    """They cannot dial one another: what the bootstrap node tells is all that they have."""
    async with open_world(latency=constant_latency(0.05)) as world:
        nodes = await settled(world)
        cut(world, *halves(world))
        await trio.sleep(SPLIT_LOSS_FORGOTTEN_MS / 1000 + CUT_NOTICED_S)
        for _ in range(10):
            await trio.sleep(60)
            assert alarms(nodes) == NODES, "as long as it lasts"
            assert all("not heard the same nodes" in node.presence.split.alarm for node in nodes)
        del world.network.reachable
        await within(FOUND_S, lambda: all(map(hears_all, nodes)))
        await within(CLEARED_S, lambda: alarms(nodes) == 0)


async def test_digests_alone_raise_the_alarm_in_time(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyxnode.scheduler.split.SPLIT_LOSS_MIN", 1_000)
    async with open_world(latency=constant_latency(0.05)) as world:
        nodes = await settled(world)
        cut(world, *halves(world))
        await trio.sleep((DEAD_AFTER_MS + HEARTBEAT_INTERVAL_MS) / 1000)
        await within(TALK_NOTICED_S, lambda: alarms(nodes) >= NODES * 3 // 4)


@pytest.mark.parametrize("seed", range(1, 9))
def test_a_harsh_world_raises_no_alarm_but_where_it_is_split(seed: int) -> None:
    """Crashes, loss, jitter and wrong clocks are no split. A node whose links carry nothing for so long is one."""
    raised: list[tuple[float, str]] = []

    def note(_logger: object, _name: str, event: Any) -> Any:
        if event["event"] == "network may be split":
            raised.append((trio.current_time(), event["cause"]))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[note])
    plan = Plan(seed=seed, peers=20, minutes=6.0, jobs=0, faults="harsh")
    try:
        run_plan(plan)
    finally:
        structlog.configure(**before)
    apart: list[tuple[float, float]] = []
    for one in schedule(plan):
        match one.what:
            case NetworkSplits(_, seconds) | NodePauses(_, seconds):
                apart.append((one.at_s, seconds))
    late_s = (HEARTBEAT_INTERVAL_MS * 2.2 + SPLIT_EVIDENCE_MS) / 1000
    # Ten seconds, and the heartbeats before and after them, may be thirty in which one hears nothing.
    unexplained = [
        (at, cause) for at, cause in raised if not any(s > 9 and t + 9 <= at <= t + s + late_s for t, s in apart)
    ]
    assert unexplained == []
