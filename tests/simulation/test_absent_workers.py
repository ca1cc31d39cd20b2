"""Workers that stop, where nobody could take over: they are given up within the bounds of presence and lease, and no
one waits for ever. With a runner-up: test_handed_over_jobs.py."""

from __future__ import annotations

import pytest
import trio

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.protocol.limits import DEAD_AFTER_MS, MICRO, START_LEASE_MS
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.wire import CLAIM, SPEC, START
from market_world import kill_winner, open_world, run_job, winner_of
from saboteurs import Sabotage

pytestmark = pytest.mark.slow


async def test_a_worker_that_dies_in_the_middle_is_given_up_when_its_heartbeats_stop(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(4, lambda: SimulatedRunner(1.0))
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_winner, world, 5)
            started = trio.current_time()
            result = await run_job(requester)
        assert result.phase is JobPhase.FAILED
        assert result.reason == "the worker's heartbeats stopped"
        assert trio.current_time() - started < 5 + DEAD_AFTER_MS / 1000 + 15
        assert await world.balance(requester.wire.me) == 50 * MICRO


async def test_winners_that_never_start_lose_the_job_one_lease_after_the_other(autojump_clock: object) -> None:
    async with open_world() as world:
        config = await (await world.ports("reader", micro_cyx=0)).chain.config()
        silent = {START, CLAIM, SPEC}
        keys = {world.key(f"node{n}").node_id: world.key(f"node{n}") for n in range(5)}

        def hold_back(sender: NodeId, to: NodeId, protocol: str, message: object) -> object:
            return None if protocol in silent and sender == world.winner() else message

        world.tamper = Sabotage(config.genesis, keys, hold_back)  # type: ignore[arg-type]
        await world.add_nodes(5)
        requester = await world.add_requester()
        started = trio.current_time()
        result = await run_job(requester)
        assert result.phase is JobPhase.FAILED
        assert "did not start" in result.reason
        assert trio.current_time() - started < 2 * START_LEASE_MS / 1000 + 10
        assert await world.balance(requester.wire.me) == 50 * MICRO
        assert await world.failures() == {world.winner(): 1}, "the last one is named, and nobody else"


async def test_a_worker_that_restarts_owns_up_instead_of_staying_silent(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(4, lambda: SimulatedRunner(1.0))
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def restart() -> None:
                worker = await winner_of(world)
                await trio.sleep(5)
                world.kill(worker)
                name = next(f"node{n}" for n in range(4) if world.key(f"node{n}").node_id == worker)
                await trio.sleep(2)
                await world.add_node(name, SimulatedRunner(1.0))

            started = trio.current_time()
            result = await run_job(requester)
        assert result.phase is JobPhase.FAILED
        assert result.reason == "the worker reports: the worker's node restarted"
        assert trio.current_time() - started < 20


async def test_work_in_vain_is_stopped_when_the_job_is_over(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5, lambda: SimulatedRunner(1.0))
        requester = await world.add_requester()
        result = await run_job(requester, work_seconds=30)
        assert result.phase is JobPhase.FAILED
        await trio.sleep(40)
        assert all(node.market.rooms.running() == 0 for node in world.nodes.values())
