"""Workers that are lost, and others that take over: the requester gets its result, and only the last one is paid."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from cheating_runners import DyingRunner, FirstDies
from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.protocol.envelope import open_as
from cyxnode.protocol.handover import ladder
from cyxnode.protocol.limits import DEAD_AFTER_MS, MICRO, START_LEASE_MS
from cyxnode.protocol.messages import HandoverCertificate, Message, SpecRequest, Tokens
from cyxnode.protocol.ports import GossipMessage, GossipVerdict, Transport
from cyxnode.protocol.receipt import verify_receipt
from cyxnode.protocol.units import NodeId, base58, parse_id
from cyxnode.protocol.validation import MARKET_KINDS, check_gossip
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.orders import JobResult, News, Stage
from cyxnode.scheduler.room import Room
from cyxnode.scheduler.verification import Phase
from cyxnode.scheduler.wire import CLAIM, HANDED_OVER, HANDOVER, SPEC, START
from inference_world import question, serving
from market_world import World, kill_winner, open_world, run_job, winner_of
from saboteurs import Sabotage, Tampering

pytestmark = pytest.mark.slow


def rooms(world: World) -> list[Room]:
    return [room for node in world.nodes.values() for room in node.market.rooms.by_job.values()]


def ranked(world: World) -> list[NodeId]:
    """The bidders of the first job, best first."""
    found = next(room.awarded for room in rooms(world) if room.awarded is not None)
    return [NodeId(one.bidder) for one in found.certified.award.ranking]


def in_receipt(result: JobResult) -> list[HandoverCertificate]:
    assert result.receipt is not None
    genesis = parse_id(result.receipt["network"]["genesis"], field="genesis")
    raw = [base64.b64decode(text) for text in result.receipt["evidence"].get("handovers", [])]
    return [open_as(one, genesis, HandoverCertificate).message for one in raw]


async def paid_to_rank(world: World, result: JobResult, rank: int) -> None:
    """The job went well, was paid to the node of a rank at its price, and its receipt says so."""
    assert result.phase is JobPhase.SETTLED, result
    assert result.delivered and result.receipt is not None
    order, receipt = ranked(world), result.receipt
    room = next(room for room in rooms(world) if room.awarded is not None)
    assert room.awarded is not None
    step = ladder(room.announce.message, room.awarded.certified.award)[rank]
    assert (receipt["worker"], receipt["price_micro_cyx"]) == (base58(order[rank]), step.price)
    assert step.price <= room.announce.message.price_limit
    assert [one.rank for one in in_receipt(result)] == list(range(1, rank + 1))
    lines = verify_receipt(receipt)
    assert sum("hand-over to" in line for line in lines) == rank
    assert await world.failures() == {}, "a hand-over leaves the record of the one before alone"
    assert await world.slashed() == {}
    await trio.sleep(60)
    assert all(room.outcome is not None for room in rooms(world))
    running = {node: one.market.rooms.running() for node, one in world.nodes.items()}
    assert not any(running.values())
    assert all(node.market.rooms.committed_price(bidder) == 0 for node in world.nodes.values() for bidder in order)


def silencing(world: World, genesis: bytes, count: int) -> Sabotage:
    """The first `count` of the ranking say nothing of what a worker says."""
    keys = {world.key(f"node{n}").node_id: world.key(f"node{n}") for n in range(9)}

    def hold_back(sender: NodeId, to: NodeId, protocol: str, message: Any) -> Message | None:
        if protocol not in (START, CLAIM, SPEC):
            return message  # type: ignore[no-any-return]
        known = any(room.awarded is not None for room in rooms(world))
        return None if known and sender in ranked(world)[:count] else message

    return Sabotage(genesis, keys, hold_back)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(200):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.1)


async def genesis_of(world: World) -> bytes:
    return (await (await world.ports("reader", micro_cyx=0)).chain.config()).genesis


@pytest.mark.parametrize("k", [3, 5])
async def test_the_runner_up_works_when_the_winner_never_starts(autojump_clock: object, k: int) -> None:
    async with open_world() as world:
        world.tamper = silencing(world, await genesis_of(world), 1)
        await world.add_nodes(k + 2)
        requester = await world.add_requester()
        started = trio.current_time()
        result = await run_job(requester, k=k)
        assert trio.current_time() - started < START_LEASE_MS / 1000 + 10
        await paid_to_rank(world, result, 1)
        left = await world.balance(requester.wire.me)
        assert result.receipt is not None
        assert left - 50 * MICRO + result.receipt["paid"]["amount"] in range(3), "all but what three seats share"


async def test_the_third_works_when_the_first_two_never_start(autojump_clock: object) -> None:
    async with open_world() as world:
        silent, asked = silencing(world, await genesis_of(world), 2), list[SpecRequest]()

        def listen(sender: NodeId, to: NodeId, protocol: str, message: Any) -> Message | None:
            if protocol == SPEC and sender == ranked(world)[2]:
                asked.append(message)
            return silent.change(sender, to, protocol, message)

        world.tamper = replace(silent, change=listen)
        await world.add_nodes(7)
        result = await run_job(await world.add_requester())
        await paid_to_rank(world, result, 2)
        assert asked and all(one.handover for one in asked), "whoever is asked learns of it at the latest now"


async def test_the_runner_up_begins_anew_when_the_winner_dies_in_mid_training(autojump_clock: object) -> None:
    heard: list[Stage] = []

    def observe(news: News) -> None:
        if isinstance(news, Stage):
            heard.append(news)

    async with open_world() as world:
        await world.add_nodes(5, lambda: SimulatedRunner(1.0))
        requester = await world.add_requester(observe=observe)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def strike() -> None:
                worker = await winner_of(world)
                await trio.sleep(5)
                world.kill(worker)
                del world.nodes[worker]

            started = trio.current_time()
            result = await run_job(requester)
        assert trio.current_time() - started < 5 + DEAD_AFTER_MS / 1000 + 64 + 15
        await paid_to_rank(world, result, 1)
        told = next(stage for stage in heard if stage.name == "handed over")
        assert "takes over at" in told.detail and "the worker's heartbeats stopped" in told.detail
        phases = [step.phase for step in result.story.story]
        assert phases[-5:] == [
            JobPhase.RUNNING,
            JobPhase.AWARDED,
            JobPhase.RUNNING,
            JobPhase.CLAIMED,
            JobPhase.SETTLED,
        ]


async def test_the_runner_up_works_when_the_winner_reports_its_failure(autojump_clock: object) -> None:
    dead: list[object] = []
    async with open_world() as world:
        await world.add_nodes(5, lambda: FirstDies(dead))
        started = trio.current_time()
        result = await run_job(await world.add_requester())
        assert trio.current_time() - started < 10, "nobody waits for a lease or a heartbeat"
        await paid_to_rank(world, result, 1)
        (certificate,) = in_receipt(result)
        assert certificate.reason == "the worker reports: out of memory"


async def test_a_job_fails_when_the_last_one_fails_too(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5, DyingRunner)
        requester = await world.add_requester()
        result = await run_job(requester)
        assert result.phase is JobPhase.FAILED and result.reason == "the worker reports: out of memory"
        assert await world.failures() == {ranked(world)[1]: 1}
        assert await world.balance(requester.wire.me) == 50 * MICRO
        assert result.receipt is not None and verify_receipt(result.receipt)
        assert [one.successor for one in in_receipt(result)] == [ranked(world)[1]]


async def test_a_worker_that_restarts_is_followed_by_the_next(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5, lambda: SimulatedRunner(1.0))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def restart() -> None:
                worker = await winner_of(world)
                await trio.sleep(5)
                world.kill(worker)
                name = next(f"node{n}" for n in range(5) if world.key(f"node{n}").node_id == worker)
                await trio.sleep(2)
                await world.add_node(name, SimulatedRunner(1.0))

            result = await run_job(await world.add_requester())
        assert result.phase is JobPhase.SETTLED, result
        assert result.receipt is not None and result.receipt["worker"] == base58(ranked(world)[1])
        (certificate,) = in_receipt(result)
        assert certificate.reason == "the worker reports: the worker's node restarted"


async def test_a_worker_that_others_took_over_from_stops(autojump_clock: object) -> None:
    """It hears nothing of its heartbeats' loss: it still works when it learns of its successor."""
    async with open_world() as world:
        await world.add_nodes(5, lambda: SimulatedRunner(1.0))
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cut_off() -> None:
                worker = await winner_of(world)
                await trio.sleep(5)
                world.network.partition([[worker]])
                await until(lambda: any(room.awarded and room.awarded.rank for room in rooms(world)))
                await trio.sleep(1)
                assert world.nodes[worker].market.rooms.running() == 1
                world.network.heal()
                await trio.sleep(10)
                assert world.nodes[worker].market.rooms.running() == 0
                assert world.nodes[worker].context.counts["jobs_handed_over"] == 1

            result = await run_job(await world.add_requester())
        assert result.phase is JobPhase.SETTLED and result.receipt is not None
        assert result.receipt["worker"] == base58(ranked(world)[1])
        await trio.sleep(10)
        counts = {bidder: world.nodes[bidder].context.counts for bidder in ranked(world)}
        assert [counts[bidder]["jobs_settled"] for bidder in ranked(world)] == [0, 1]


async def test_the_whole_answer_comes_from_the_runner_up(autojump_clock: object) -> None:
    pieces: list[Tokens] = []
    stages: list[tuple[str, int]] = []

    def observe(news: News) -> None:
        if isinstance(news, Tokens):
            pieces.append(news)
        elif isinstance(news, Stage):
            assert "streamed something else" not in news.detail
            stages.append((news.name, len(pieces)))

    async with open_world() as world:
        for number in range(5):
            await world.add_node(f"node{number}", models=serving(pace_s=1.0))
        requester = await world.add_requester(observe=observe)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def kill() -> None:
                worker = await winner_of(world)
                await until(lambda: len(pieces) >= 3)
                world.kill(worker)
                del world.nodes[worker]

            with trio.fail_after(300):
                result = await requester.submit(question())
        await paid_to_rank(world, result, 1)
        assert result.answers is not None
        (answer,) = result.answers.answers
        broken, names = dict(stages)["handed over"], [name for name, _ in stages]
        assert names.count("answering") == 2, "it begins anew"
        assert names.index("handed over") < len(names) - 1 - names[::-1].index("answering")
        assert 3 <= broken < len(pieces)
        assert "".join(piece.text for piece in pieces[broken:]) == answer.text
        assert [piece.sequence for piece in pieces[broken:]] == list(range(len(pieces) - broken))


@pytest.mark.parametrize("lost", ["all", "all but the successor's"])
async def test_a_certificate_that_one_member_misses_costs_it_its_seat_at_most(
    autojump_clock: object, lost: str
) -> None:
    """Neither hand nor gossip brings it to the last of three members, which leads no round in time: the two others are
    enough. Otherwise the successor brings it along."""
    async with open_world() as world:
        genesis, deaf = await genesis_of(world), list[NodeId]()
        silent = silencing(world, genesis, 1)

        def lose(sender: NodeId, to: NodeId, protocol: str, message: Any) -> Message | None:
            if protocol == HANDED_OVER and to in deaf[-1:] and (lost == "all" or sender != ranked(world)[1]):
                return None
            return silent.change(sender, to, protocol, message)

        class Deaf(Tampering):
            def subscribe(self, topic: str, validate: Callable[[GossipMessage], GossipVerdict]) -> Any:
                def judged(message: GossipMessage) -> GossipVerdict:
                    if not deaf and "market" in topic and any(room.auction.terms for room in rooms(world)):
                        deaf.extend(next(room.auction.terms.committee for room in rooms(world) if room.auction.terms))
                    _, records, _ = check_gossip(message.data, genesis, MARKET_KINDS, 0)
                    hers = any(isinstance(one.message, HandoverCertificate) for one in records)
                    if hers and self._honest.node_id in deaf[-1:]:
                        return GossipVerdict.IGNORE
                    return validate(message)

                return self._honest.subscribe(topic, judged)

        def tamper(transport: Transport) -> Transport:
            return Deaf(transport, Sabotage(genesis, silent.keys, lose))  # type: ignore[return-value]

        world.tamper = tamper
        await world.add_nodes(5)
        result = await run_job(await world.add_requester())
        assert result.phase is JobPhase.SETTLED and result.receipt is not None
        assert result.receipt["worker"] == base58(ranked(world)[1])
        (case,) = [room.case for room in world.nodes[deaf[-1]].market.rooms.by_job.values()]
        assert case is not None and case.state.phase is Phase.CLOSED
        assert case.state.rank == (0 if lost == "all" else 1)
        assert await world.slashed() == {}


async def test_fewer_than_m_members_hand_nothing_over(autojump_clock: object) -> None:
    """One of three members does not hear the worker at all; it asks in vain, and then sees the claim."""
    async with open_world() as world:
        genesis, lonely = await genesis_of(world), list[NodeId]()
        keys = {world.key(f"node{n}").node_id: world.key(f"node{n}") for n in range(5)}
        asked: list[NodeId] = []

        def lose(sender: NodeId, to: NodeId, protocol: str, message: Any) -> Message | None:
            if protocol == START and sender == world.winner():
                lonely[:] = lonely or [to]
                return None if to == lonely[0] else message
            if protocol == HANDOVER:
                asked.append(sender)
            return message  # type: ignore[no-any-return]

        world.tamper = Sabotage(genesis, keys, lose)  # type: ignore[assignment]
        await world.add_nodes(5, lambda: SimulatedRunner(0.4))
        result = await run_job(await world.add_requester())
        await paid_to_rank(world, result, 0)
        assert set(asked) == {lonely[0]}, "it did ask"


async def test_nobody_takes_over_what_could_not_be_finished_in_time(autojump_clock: object) -> None:
    """The runner-up's own estimate does not fit before the deadline any more."""
    async with open_world() as world:
        await world.add_nodes(5, lambda: SimulatedRunner(1.0))
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_winner, world, 5)
            result = await run_job(requester, work_seconds=60, work_mflop=200_000)
        assert result.phase is JobPhase.FAILED
        assert result.reason == "the worker's heartbeats stopped"
        assert all(room.awarded is None or room.awarded.rank == 0 for room in rooms(world))


async def test_a_runner_up_that_would_not_bid_today_lets_its_lease_lapse(autojump_clock: object) -> None:
    """The second of the ranking sells nothing any more, so the third does it."""
    async with open_world() as world:
        world.tamper = silencing(world, await genesis_of(world), 1)
        await world.add_nodes(6)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def close_shop() -> None:
                await winner_of(world)
                context = world.nodes[ranked(world)[1]].context
                context.settings = replace(context.settings, provider=False)

            with trio.fail_after(100):
                result = await run_job(await world.add_requester())
        await paid_to_rank(world, result, 2)
