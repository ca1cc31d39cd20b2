"""Trouble that passes: what fails once is tried again, and a job that nobody heard of is announced until one does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio

from cyxnode.executor.simulated import SimulatedRunner, SimulatedSession
from cyxnode.protocol.errors import ExecutionFailed
from cyxnode.protocol.limits import CLOCK_SKEW_MS
from cyxnode.protocol.ports import TrainTask
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.orders import News, Stage
from market_world import open_world, run_job

pytestmark = pytest.mark.slow


class StumblingRunner(SimulatedRunner):
    """Its first check of a claim dies, as a process does that is out of memory; training works."""

    stumbles = 1

    def session(self, task: TrainTask) -> AbstractAsyncContextManager[SimulatedSession]:
        return self._stumbling(task)

    @asynccontextmanager
    async def _stumbling(self, task: TrainTask) -> AsyncIterator[SimulatedSession]:
        async with super().session(task) as session:
            honest = session.initial_state

            async def initial_state() -> bytes:
                if self.stumbles:
                    self.stumbles -= 1
                    raise ExecutionFailed("the worker process died")
                return await honest()

            session.initial_state = initial_state  # type: ignore[method-assign]
            yield session


async def test_members_whose_replay_dies_once_try_again_and_the_worker_is_paid(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5, StumblingRunner)
        requester = await world.add_requester()
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED
        assert result.receipt is not None
        assert result.receipt["completed_in_ms"] < 30_000


async def test_a_job_that_was_announced_into_the_void_is_announced_again_with_a_fresh_date(
    autojump_clock: object,
) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        cut_off = trio.Event()
        stages: list[str] = []

        def observe(news: News) -> None:
            if isinstance(news, Stage):
                stages.append(news.name)
                if news.name == "funded":
                    world.network.partition([[world.key("requester").node_id]])
                    cut_off.set()

        async def mend() -> None:
            await cut_off.wait()
            await trio.sleep(1.5 * CLOCK_SKEW_MS / 1000)
            world.network.heal()

        requester = await world.add_requester(observe=observe)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mend)
            result = await run_job(requester)
        assert "announced again" in stages
        assert result.phase is JobPhase.SETTLED
