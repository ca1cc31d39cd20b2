"""Jobs that nobody takes: nothing is funded in vain, and every refusal names its causes and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.p2p.memory_network import constant_latency
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.receipt import verify_receipt
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.orders import News, Stage
from cyxnode.scheduler.presence import CellChanged
from market_world import open_world, run_job

pytestmark = pytest.mark.slow


async def test_a_budget_below_every_price_is_unsold_and_refunded_at_once(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        started = trio.current_time()
        result = await run_job(requester, budget=1_000)
        assert result.phase is JobPhase.UNSOLD
        assert result.declines == {"PRICE": 5}
        assert "5 PRICE (from 0.0" in result.reason
        assert result.receipt is not None
        assert verify_receipt(result.receipt)
        assert await world.balance(requester.wire.me) == 50 * MICRO
        assert trio.current_time() - started < 20


async def test_a_class_that_is_too_small_leaves_the_job_queued_and_unfunded(autojump_clock: object) -> None:
    heard: list[str] = []

    def observe(news: News) -> None:
        if isinstance(news, Stage):
            heard.append(news.name)

    async with open_world() as world:
        await world.add_nodes(3)
        requester = await world.add_requester(observe=observe)
        result = await run_job(requester)
        assert result.phase is JobPhase.UNSOLD
        assert result.receipt is None
        assert "3 of the 4 nodes needed after 60 s; 3 nodes are live in all" in result.reason
        assert result.reason.endswith("nothing was funded")
        assert heard == ["submitted", *["queued"] * (len(heard) - 2), "unsold"]
        assert await world.balance(requester.wire.me) == 50 * MICRO


async def test_the_reason_counts_why_nodes_do_not_fit(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(4)
        await world.add_node("far", region="mars")
        requester = await world.add_requester()
        result = await run_job(requester, unsandboxed_ok=False, region="", class_wait_ms=40_000)
        assert "5 have no sandbox: allow it with unsandboxed_ok" in result.reason
        result = await run_job(requester, region="earth", class_wait_ms=1_000)
        assert "5 are in another region: ask for no region" in result.reason


async def test_a_job_that_waits_starts_when_the_class_has_grown(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(3)
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def grow() -> None:
                await trio.sleep(10)
                await world.add_node("late", SimulatedRunner())

            result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED


async def test_too_little_balance_is_an_error_that_names_the_budget(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(4)
        requester = await world.add_requester(micro_cyx=MICRO)
        with pytest.raises(LocalError) as caught:
            await run_job(requester)
        assert caught.value.field == "budget"
        assert caught.value.fix
        assert await world.balance(requester.wire.me) == MICRO
        assert all(not node.market.rooms.by_job for node in world.nodes.values())


class Blinkered:
    """A requester's view of who lives, without those that it does not like."""

    def __init__(self, honest: Any, friends: set[NodeId]) -> None:
        self.honest, self.friends = honest, friends

    def __getattr__(self, name: str) -> Any:
        return getattr(self.honest, name)

    def alive(self, execution_class: bytes | None = None) -> dict[NodeId, Any]:
        return {node: offer for node, offer in self.honest.alive(execution_class).items() if node in self.friends}


async def test_a_requester_that_chooses_its_committee_is_shunned_and_refunded_at_once(autojump_clock: object) -> None:
    async with open_world(3) as world:
        await world.add_nodes(12)
        requester = await world.add_requester()
        await trio.sleep(5)
        requester.presence = Blinkered(requester.presence, set(sorted(world.nodes)[:4]))  # type: ignore[assignment]
        began_s = trio.current_time()
        result = await run_job(requester, work_seconds=30)
        assert result.phase is JobPhase.UNSOLD
        assert "the committee was chosen, not drawn" in result.reason
        assert trio.current_time() - began_s < 10, "its money was locked for long"
        assert world.winner() is None
        assert await world.balance(requester.wire.me) == 50 * MICRO


async def test_a_class_that_is_still_gathering_is_seen_whole_before_the_draw(autojump_clock: object) -> None:
    """A survey of a second ago knew nine of these nodes: a committee drawn from them would be shunned by all."""
    async with open_world(3) as world:
        await world.add_nodes(9)
        requester, first = await world.add_requester(), frozenset(world.nodes)
        for number in range(9, 30):
            await world.add_node(f"node{number}")
        await trio.sleep(2)
        execution_class = next(iter(requester.presence.alive().values())).execution_class
        await requester.presence.reach(sorted(first))
        await requester.presence.exchange.survey(execution_class)
        requester.presence.apply(CellChanged(first))
        result = await run_job(requester, work_seconds=30)
        assert result.phase is JobPhase.SETTLED, result.reason


async def test_nodes_that_start_together_soon_know_one_another(autojump_clock: object) -> None:
    """What a node says of itself before it has connections is heard by few: its members could not find it for half a
    minute."""
    async with open_world(3, latency=constant_latency(0.05)) as world:
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(world.add_node, f"node{number}")
        await trio.sleep(4)
        views = [len(node.presence.alive()) for node in world.nodes.values()]
        assert views == [49] * 50


async def test_members_that_never_heard_of_their_job_end_it_once_they_can_be_reached(autojump_clock: object) -> None:
    """Seated while the network was split and nobody had noticed yet."""
    async with open_world(3) as world:
        await world.add_nodes(10)
        requester = await world.add_requester()
        await trio.sleep(20)
        near = {requester.wire.me, *sorted(world.nodes)[:2]}
        world.network.partition([near, world.nodes.keys() - near])
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def heal() -> None:
                await trio.sleep(12)
                world.network.heal()

            result = await run_job(requester, work_seconds=120)
        assert result.phase is JobPhase.UNSOLD, result.reason
