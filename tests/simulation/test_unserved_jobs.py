"""Orders whose spec or data the worker cannot get: whose fault that is decides whose record it costs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cyxnode.protocol.cid import cid_of
from cyxnode.protocol.envelope import Signed
from cyxnode.protocol.errors import Refusal
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.messages import SpecAnswer, SpecRequest
from cyxnode.scheduler import worker_service
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.orders import JobResult
from cyxnode.scheduler.requester_listener import Listener
from cyxnode.scheduler.task_fetch import TaskUnserved
from market_world import World, open_world, run_job, simple_order

pytestmark = pytest.mark.slow


async def job(world: World, **changes: Any) -> JobResult:
    await world.add_nodes(6)
    requester = await world.add_requester()
    spec = simple_order(requester).spec
    return await run_job(requester, spec=msgspec.structs.replace(spec, **changes))


async def test_an_order_whose_data_is_missing_costs_no_worker_its_record(autojump_clock: object) -> None:
    async with open_world() as world:
        result = await job(world, train_cid=cid_of(b"never stored"))
        assert (result.phase, result.weights) == (JobPhase.FAILED, None)
        assert "does not serve" in result.reason
        assert await world.failures() == {}
        assert await world.balance(world.key("requester").node_id) == 50 * MICRO


async def test_a_requester_that_serves_only_the_judges_serves_the_worker_through_them(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = Listener.on_spec

    async def shun(self: Listener, signed: Signed[SpecRequest]) -> SpecAnswer:
        answer = await serve(self, signed)
        assert self.record.award is not None
        if signed.sender == self.record.award.winner:
            raise Refusal("not for you")
        return answer

    monkeypatch.setattr(Listener, "on_spec", shun)
    async with open_world() as world:
        assert (await job(world)).phase is JobPhase.SETTLED
        assert await world.failures() == {}


async def test_a_worker_that_says_so_of_an_order_that_is_served_has_failed(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pretend(*_: object) -> None:
        raise TaskUnserved("nobody gave me anything")

    monkeypatch.setattr(worker_service, "fetch_task", pretend)
    async with open_world() as world:
        result = await job(world)
        assert result.phase is JobPhase.FAILED
        assert "nobody gave me anything" in result.reason
        assert await world.failures() == {world.winner(): 1}


async def test_a_requester_that_is_gone_before_it_served_anything_blames_nobody(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_world() as world:

        async def vanish(self: Listener, signed: Signed[SpecRequest]) -> SpecAnswer:
            world.kill_requester("requester")
            raise Refusal("gone")

        monkeypatch.setattr(Listener, "on_spec", vanish)
        await world.add_nodes(6)
        requester = await world.add_requester()
        await run_job(requester)
        assert await world.failures() == {}
