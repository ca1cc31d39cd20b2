"""More than one job, bad networks, and worlds that repeat exactly."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.p2p.memory_network import constant_latency
from cyxnode.protocol.limits import MICRO, PREPARE_DELAY_S
from cyxnode.protocol.receipt import verify_receipt
from cyxnode.scheduler.chronicle import read_chronicles
from cyxnode.scheduler.chronicle_facts import Troubled
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.orders import JobResult
from market_world import open_world, run_job, winner_of

pytestmark = pytest.mark.slow


async def test_two_jobs_one_after_the_other(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        results = [await run_job(requester) for _ in range(3)]
        assert [result.phase for result in results] == [JobPhase.SETTLED] * 3
        assert len({result.job for result in results}) == 3


async def test_a_busy_node_declines_and_others_take_the_second_job(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(6, lambda: SimulatedRunner(0.2))
        first, second = await world.add_requester("first"), await world.add_requester("second")
        results: dict[str, JobResult] = {}

        async def submit(name: str, service: Any) -> None:
            results[name] = await run_job(service)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, "first", first)
            await winner_of(world)
            nursery.start_soon(submit, "second", second)
        assert results["first"].phase is results["second"].phase is JobPhase.SETTLED
        assert results["second"].declines == {"BUSY": 1}
        receipts = [result.receipt for result in results.values()]
        assert receipts[0] and receipts[1]
        assert receipts[0]["worker"] != receipts[1]["worker"]


async def test_two_jobs_at_the_very_same_time(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(6)
        services = [await world.add_requester(f"requester{n}") for n in range(2)]
        results: list[JobResult] = []

        async def submit(service: Any) -> None:
            results.append(await run_job(service))

        async with trio.open_nursery() as nursery:
            for service in services:
                nursery.start_soon(submit, service)
        assert [result.phase for result in results] == [JobPhase.SETTLED] * 2


async def test_a_slow_and_lossy_network_delays_a_job_and_does_not_lose_it(autojump_clock: object) -> None:
    for seed in range(1, 6):
        async with open_world(seed, latency=constant_latency(0.08), loss=0.05) as world:
            await world.add_nodes(6)
            requester = await world.add_requester()
            windows = {"commit_window_ms": 2_000, "reveal_window_ms": 2_000, "round_ms": 3_000}
            result = await run_job(requester, **windows)
            assert result.phase is JobPhase.SETTLED, (seed, result)
            assert result.weights
            assert result.receipt and verify_receipt(result.receipt)


def replay(seed: int) -> JobResult:
    """A world of its own, from its first moment."""

    async def world_with_one_job() -> JobResult:
        async with open_world(seed, latency=lambda _from, _to, rng: rng.uniform(0.001, 0.03)) as world:
            await world.add_nodes(5)
            requester = await world.add_requester()
            return await run_job(requester)

    return trio.run(world_with_one_job, clock=trio.testing.MockClock(autojump_threshold=0))


def test_the_same_seed_gives_the_same_story_to_the_last_byte() -> None:
    first, again, other = replay(7), replay(7), replay(8)
    assert first.receipt is not None
    assert first.receipt == again.receipt
    assert first.story == again.story
    assert first.receipt != other.receipt


async def test_a_chain_that_is_away_for_a_while_delays_a_job_and_does_not_end_it(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def outages() -> None:
                await winner_of(world)
                await world.chain_outage(10)

            result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED
        assert await world.balance(requester.wire.me) < 50 * MICRO
        (told,) = read_chronicles(requester.journal, 1)
        said = [one.fact.detail for one in told.records if isinstance(one.fact, Troubled)]
        assert sum("the chain cannot be read" in text for text in said) == 1


async def test_commits_that_arrive_while_the_escrow_is_looked_up_count(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        world.chain_latency_s = 0.15
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED, result.reason
        room = next(iter(world.nodes.values())).market.rooms.by_job[result.job]
        assert room.awarded is not None
        assert len(room.awarded.certified.award.ranking) == 2


async def test_workers_are_warmed_up_when_they_are_needed_and_not_before(autojump_clock: object) -> None:
    prepared: list[tuple[float, SimulatedRunner]] = []

    class Counting(SimulatedRunner):
        def prepare(self) -> None:
            prepared.append((trio.current_time(), self))

    async with open_world() as world:
        await world.add_nodes(5, lambda: Counting(0.2))
        requester = await world.add_requester()
        assert not prepared
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED
        runners = {node.context.runner: name for name, node in world.nodes.items()}
        order = [runners[runner] for _, runner in prepared]
        assert order[0] == world.winner()
        assert len(order) == len(set(order)) == 4
        assert min(at for at, _ in prepared[1:]) >= prepared[0][0] + PREPARE_DELAY_S


class Counting:
    """A transport whose gossip is lost, if it is told so, and that counts subscriptions."""

    def __init__(self, honest: Any, *, mute: bool) -> None:
        self.honest, self.mute, self.joined = honest, mute, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.honest, name)

    async def publish(self, topic: str, data: bytes) -> None:
        if not self.mute:
            await self.honest.publish(topic, data)

    def subscribe(self, *arguments: Any) -> Any:
        self.joined += 1
        return self.honest.subscribe(*arguments)


async def test_a_requester_whose_gossip_is_lost_tells_the_nodes_by_hand(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        requester.wire.transport = Counting(requester.wire.transport, mute=True)
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED


async def test_a_requester_never_leaves_a_market_between_jobs(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        counting = requester.wire.transport = Counting(requester.wire.transport, mute=False)
        for _ in range(3):
            assert (await run_job(requester)).phase is JobPhase.SETTLED
        assert counting.joined == 1
