"""Presence at work: classes do not hear one another, a class cut into shards still does jobs, few messages suffice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import trio

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.protocol.limits import OFFERS_LOOK_S
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler import cells, peer_answers
from cyxnode.scheduler.job import JobPhase
from market_world import World, open_world, run_job

pytestmark = pytest.mark.slow


@pytest.fixture
def small_cells(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cells, "CELL_NODES_MAX", 4)
    yield


def heard(world: World) -> Counter[NodeId]:
    counts: Counter[NodeId] = Counter()

    def count(kind: str, sender: NodeId, receiver: NodeId, topic: str, data: bytes) -> None:
        counts[receiver] += kind == "gossip"

    world.network.traffic = count
    return counts


async def test_a_node_knows_its_own_class_whole_and_no_other(autojump_clock: object) -> None:
    async with open_world() as world:
        ours = [await world.add_node(f"a{n}", SimulatedRunner(class_name="a")) for n in range(9)]
        theirs = [await world.add_node(f"b{n}", SimulatedRunner(class_name="b")) for n in range(3)]
        await trio.sleep(20)
        for kin in (ours, theirs):
            ids = {node.context.wire.me for node in kin}
            assert all(set(node.presence.alive()) == ids - {node.context.wire.me} for node in kin)


async def test_a_job_of_another_class_is_not_heard(autojump_clock: object) -> None:
    async with open_world() as world:
        for number in range(5):
            await world.add_node(f"a{number}", SimulatedRunner(class_name="a"))
        lone = await world.add_node("b", SimulatedRunner(class_name="b"))
        requester = await world.add_requester()
        await trio.sleep(15)
        counts = heard(world)
        assert (await run_job(requester)).phase is JobPhase.SETTLED
        assert counts[lone.context.wire.me] == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_class_of_many_cells_does_jobs_and_draws_fairly(
    autojump_clock: object, small_cells: None, seed: int
) -> None:
    async with open_world(seed) as world:
        await world.add_nodes(14)
        nodes = list(world.nodes.values())
        await trio.sleep(30)
        requester = await world.add_requester()
        first = await run_job(requester)
        await trio.sleep(700)
        assert {node.presence.cell.shards for node in nodes if node.presence.cell} == {4}
        second = await run_job(requester)
        assert [first.phase, second.phase] == [JobPhase.SETTLED, JobPhase.SETTLED]
        rooms = [node.market.rooms.get(second.job) for node in nodes]
        assert all(room is not None and room.auction.terms is not None for room in rooms), "a node shunned the draw"


async def test_shards_part_without_a_death(autojump_clock: object, small_cells: None) -> None:
    async with open_world() as world:
        await world.add_nodes(10)
        deaths: list[NodeId] = []
        for node in world.nodes.values():
            node.presence.on_death = deaths.append
        await trio.sleep(2000)
        assert deaths == []
        for name, node in world.nodes.items():
            cell = node.presence.cell
            assert cell is not None
            mates = {one for one in world.nodes if cells.shard_of(one, cell.shards) == cell.shard} - {name}
            assert set(node.presence.alive()) == mates


async def test_a_node_that_can_be_dialled_elsewhere_says_so_at_once(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        await trio.sleep(60)
        moved, *others = world.nodes.values()
        transport: Any = moved.context.wire.transport
        transport.address = replace(transport.address, host="10.9.9.9")
        await trio.sleep(2 * OFFERS_LOOK_S)
        for node in others:
            assert node.presence.alive()[moved.context.wire.me].addresses == transport.addresses()


async def test_the_parties_of_a_job_find_one_another_in_a_class_of_many_cells(
    autojump_clock: object, small_cells: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members and winner come from all cells; nobody hears more than its own, and an answer holds little more."""
    monkeypatch.setattr(peer_answers, "ANSWER_NODES_MAX", 5)
    async with open_world(2) as world:
        await world.add_nodes(24)
        for node in list(world.nodes):
            world.kill(node)
        await trio.sleep(60)
        await world.add_nodes(24)
        requester = await world.add_requester()
        await trio.sleep(20)
        assert {node.presence.cell.shards for node in world.nodes.values() if node.presence.cell} == {8}
        for _ in range(4):
            result = await run_job(requester)
            assert result.phase is JobPhase.SETTLED, result.reason


async def test_an_idle_hour_costs_few_messages(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(6)
        await trio.sleep(60)
        counts = heard(world)
        await trio.sleep(600)
        assert max(counts.values()) < 600 / 10 * 5 * 2
        assert all(len(node.presence.alive()) == 5 for node in world.nodes.values())


async def test_a_newcomer_loads_no_cell_but_its_own(autojump_clock: object, small_cells: None) -> None:
    async with open_world() as world:
        await world.add_nodes(14)
        await trio.sleep(1500)
        late = await world.add_node("late")
        await trio.sleep(30)
        assert late.presence.cell is not None and late.presence.cell.shards == 4
        assert set(late.presence._joined) == {late.presence.cell}
        mates = {node for node in world.nodes if late.presence.cell.holds(node)} - {late.context.wire.me}
        assert set(late.presence.alive()) == mates


async def test_no_node_of_many_cells_is_alone_among_strangers(autojump_clock: object, small_cells: None) -> None:
    """Those of other cells that one meets first do not do: one hears nobody by them. Nor do those of one's own alone:
    the market would end at the cell."""
    async with open_world(seed=4) as world:
        await world.add_nodes(28, rate_micro_per_s=20_000)
        await trio.sleep(800)
        counts = Counter(node.presence.cell for node in world.nodes.values())
        assert {cell.shards for cell in counts if cell is not None} == {8}
        for node in world.nodes.values():
            assert len(node.presence.split.state.voices) == counts[node.presence.cell] - 1
        names, reached, edge = set(world.nodes), set(list(world.nodes)[:1]), list(world.nodes)[:1]
        while edge:
            near = world.nodes[edge.pop()].context.wire.transport.connected() & names
            edge += near - reached
            reached |= near
        assert reached == names
        requester = await world.add_requester()
        assert (await run_job(requester)).phase is JobPhase.SETTLED
