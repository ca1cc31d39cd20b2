"""Committees with dead, lazy and lying members: honest work is paid, dishonest judging is not."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from cheating_runners import AccusingRunner, HonestRunner, SkippingRunner
from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.protocol.limits import DEAD_AFTER_MS, HEARTBEAT_INTERVAL_MS, MICRO
from cyxnode.protocol.messages import VerdictCommit, VerdictReveal
from cyxnode.protocol.receipt import verify_receipt
from cyxnode.protocol.units import JobId, NodeId, base58
from cyxnode.scheduler.case_checks import samples_of
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.orders import JobResult
from cyxnode.scheduler.wire import COMMIT, REVEAL
from market_world import World, open_world, run_job, winner_of
from saboteurs import Change, Sabotage, replaced

pytestmark = pytest.mark.slow


async def kill_members(world: World, count: int) -> None:
    """Kill that many of the seated members as soon as the job is awarded."""
    await winner_of(world)
    room = next(room for node in world.nodes.values() for room in node.market.rooms.by_job.values() if room.awarded)
    assert room.awarded is not None
    for member in room.awarded.terms.committee[:count]:
        world.kill(member)


async def job_with_dead_members(world: World, count: int) -> JobResult:
    await world.add_nodes(5, lambda: SimulatedRunner(0.02))
    requester = await world.add_requester()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill_members, world, count)
        return await run_job(requester, work_seconds=120)


async def test_one_dead_member_of_three_changes_nothing_but_the_time(autojump_clock: object) -> None:
    async with open_world() as world:
        result = await job_with_dead_members(world, 1)
        assert result.phase is JobPhase.SETTLED
        assert result.receipt is not None
        assert verify_receipt(result.receipt)
        assert len(result.receipt["verified_by"]) == 2
        timeline = result.receipt["timeline_ms"]
        assert timeline["settled"] - timeline["claimed"] < DEAD_AFTER_MS + HEARTBEAT_INTERVAL_MS, (
            "as long as a death takes"
        )


async def test_without_a_quorum_everything_comes_back_at_the_refund_time(autojump_clock: object) -> None:
    async with open_world() as world:
        result = await job_with_dead_members(world, 2)
        assert result.phase is JobPhase.EXPIRED
        assert result.receipt is None
        assert await world.balance(world.key("requester").node_id) == 50 * MICRO


async def sabotaged_job(world: World, change: Change, **order: Any) -> JobResult:
    config = await (await world.ports("reader", micro_cyx=0)).chain.config()
    keys = {world.key(f"node{n}").node_id: world.key(f"node{n}") for n in range(5)}
    world.tamper = Sabotage(config.genesis, keys, change)
    await world.add_nodes(5)
    requester = await world.add_requester()
    result = await run_job(requester, **order)
    assert result.phase is JobPhase.SETTLED
    assert result.receipt is not None
    assert verify_receipt(result.receipt)
    return result


async def earners(world: World) -> list[NodeId]:
    """Who got a verifier's share."""
    ports = await world.ports("reader", micro_cyx=0)
    return sorted(account.node for account in await ports.chain.nodes() if account.earned)


async def test_a_member_that_copies_a_verdict_earns_nothing(autojump_clock: object) -> None:
    villains: list[NodeId] = []
    others: dict[str, Any] = {}

    def copy(sender: NodeId, to: NodeId, protocol: str, message: Any) -> Any:
        if protocol not in (COMMIT, REVEAL):
            return message
        if not villains and protocol in others:
            villains.append(sender)
        if sender in villains:
            return others.get(protocol)
        if villains or not others:
            others[protocol] = message
        return message

    async with open_world() as world:
        await sabotaged_job(world, copy)
        paid = await earners(world)
        assert len(villains) == 1
        assert len(paid) == 2
        assert villains[0] not in paid


async def test_a_member_that_reveals_without_a_commit_earns_nothing(autojump_clock: object) -> None:
    villains: list[NodeId] = []

    def no_commit(sender: NodeId, to: NodeId, protocol: str, message: Any) -> Any:
        if isinstance(message, VerdictCommit):
            villains[:] = villains or [sender]
            return None if sender in villains else message
        return message

    async with open_world() as world:
        await sabotaged_job(world, no_commit)
        paid = await earners(world)
        assert villains[0] not in paid
        assert len(paid) == 2


async def test_a_member_that_draws_other_samples_than_promised_earns_nothing(autojump_clock: object) -> None:
    villains: list[NodeId] = []

    def other_nonce(sender: NodeId, to: NodeId, protocol: str, message: Any) -> Any:
        if isinstance(message, VerdictReveal):
            villains[:] = villains or [sender]
            return replaced(message, nonce=bytes(32)) if sender in villains else message
        return message

    async with open_world() as world:
        await sabotaged_job(world, other_nonce)
        paid = await earners(world)
        assert villains[0] not in paid
        assert len(paid) == 2


def drawn_by_one(world: World) -> int:
    """A segment that exactly one member of the first job will replay."""
    rooms = [room for node in world.nodes.values() for room in node.market.rooms.by_job.values()]
    awarded = next(room.awarded for room in rooms if room.awarded is not None)
    drawn: list[int] = []
    for member in awarded.terms.committee:
        nonce = world.journals[member].get(b"nonce/" + JobId(awarded.terms.job))
        assert nonce is not None
        drawn += samples_of(awarded.terms, member, nonce)
    return next(segment for segment in drawn if drawn.count(segment) == 1)


async def test_one_bad_segment_that_one_member_drew_is_confirmed_by_the_others(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5, lambda: SkippingRunner(lambda segment: segment == drawn_by_one(world)))
        requester = await world.add_requester()
        result = await run_job(requester, samples=1)
        assert result.phase is JobPhase.FRAUD
        assert f"segment {drawn_by_one(world)} replays to" in result.reason
        assert await world.balance(requester.wire.me) == 50 * MICRO


async def test_a_false_accusation_is_refuted_and_earns_nothing(autojump_clock: object) -> None:
    liars: list[HonestRunner] = []
    async with open_world() as world:
        await world.add_nodes(5, lambda: AccusingRunner(liars))
        requester = await world.add_requester()
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED, result
        assert len(liars) == 1
        liar = next(node for node, made in world.nodes.items() if made.context.runner is liars[0])
        paid = await earners(world)
        assert liar not in paid
        assert len(paid) == 2
        assert result.receipt is not None
        assert base58(liar) in result.receipt["committee"]


async def test_a_requester_that_serves_the_worker_only_stops_nothing(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def vanish() -> None:
                worker = await winner_of(world)
                await trio.sleep(0.1)
                assert world.nodes[worker].market.rooms.running() == 1
                world.kill_requester("requester")

            with trio.move_on_after(100):
                await run_job(requester)
            nursery.cancel_scope.cancel()
        ports = await world.ports("reader", micro_cyx=0)
        assert [account.jobs_ok for account in await ports.chain.nodes() if account.jobs_ok] == [1]
