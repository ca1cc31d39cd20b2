"""Machines that sleep, and clocks that jump: others notice the silence in time, and the end of it as well."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from cyxnode.protocol.limits import DEAD_AFTER_MS, HEARTBEAT_INTERVAL_MS, SUSPECT_AFTER_MS
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.presence import Liveness
from market_world import World, open_world, run_job

pytestmark = pytest.mark.slow
BEAT_S = 1.3 * HEARTBEAT_INTERVAL_MS / 1000
"""Between two heartbeats, their jitter included."""


def seen(world: World, node: NodeId) -> set[Liveness]:
    """What the others take a node for; nothing where it is forgotten."""
    states = [other.presence.state.members for name, other in world.nodes.items() if name != node]
    return {members[node].liveness for members in states if node in members}


async def until(condition: Callable[[], bool], within_s: float) -> None:
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 -- virtual time
            await trio.sleep(0.5)


async def test_a_node_that_sleeps_is_missed_in_time_and_is_back_when_it_wakes(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        await trio.sleep(40)
        sleeper = next(iter(world.nodes))
        assert seen(world, sleeper) == {Liveness.ALIVE}
        world.network.stall(sleeper, 100)
        await until(lambda: Liveness.ALIVE not in seen(world, sleeper), SUSPECT_AFTER_MS / 1000 + BEAT_S)
        await until(lambda: not seen(world, sleeper), DEAD_AFTER_MS / 1000 + BEAT_S)
        assert (await run_job(requester)).phase is JobPhase.SETTLED, "the others work on"
        await trio.sleep(100)
        await until(lambda: seen(world, sleeper) == {Liveness.ALIVE}, 2 * BEAT_S)
        assert (await run_job(requester)).phase is JobPhase.SETTLED


async def test_a_clock_that_is_put_right_makes_nobody_look_dead(autojump_clock: object) -> None:
    """What it says next has an earlier time than what it said before: a replay, for all that others can tell. They may
    suspect it, until they have noticed that its clock is another."""
    async with open_world() as world:
        await world.add_nodes(4)
        await trio.sleep(30)
        node = next(iter(world.nodes))
        clock = world.nodes[node].context.wire.clock
        clock.ahead_ms = SUSPECT_AFTER_MS - 4_000  # type: ignore[attr-defined]
        await trio.sleep(60)
        assert seen(world, node) == {Liveness.ALIVE}
        others = [other.presence for name, other in world.nodes.items() if name != node]
        before = {other.state.members[node].heartbeat for other in others}
        clock.ahead_ms = 0  # type: ignore[attr-defined]
        await trio.sleep(BEAT_S)
        assert before.isdisjoint({other.state.members[node].heartbeat for other in others}), "not heard any more"
        for _ in range(90):
            await trio.sleep(1)
            assert seen(world, node) <= {Liveness.ALIVE, Liveness.SUSPECT} and seen(world, node)
        await until(lambda: seen(world, node) == {Liveness.ALIVE}, 10 * BEAT_S)
