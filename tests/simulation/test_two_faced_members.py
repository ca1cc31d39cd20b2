"""Members sign that a job went well, and that it failed. The second comes to light, and they lose their stakes."""

from __future__ import annotations

import msgspec
import pytest
import trio

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.p2p.memory_network import constant_latency
from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.handover import Successor, digest_of, handover_message
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.messages import HandoverCertificate, Outcome
from cyxnode.protocol.settlement import Settlement, settle_message
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.protocol.validation import market_topic
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.room import Room
from cyxnode.scheduler.settlement_service import settle_instruction
from market_world import World, open_world, run_job, winner_of

pytestmark = pytest.mark.slow


def rooms(world: World) -> list[Room]:
    return [room for node in world.nodes.values() for room in node.market.rooms.by_job.values()]


async def settle_otherwise(world: World, liars: int) -> tuple[JobId, list[KeyPair]]:
    """As soon as a member has decided, the last `liars` seats sign that the job FAILED, and are quicker."""
    while not (found := [room for room in rooms(world) if room.case and room.case.state.decision]):  # noqa: ASYNC110
        await trio.sleep(0.0002)
    terms = found[0].auction.terms
    assert terms is not None and found[0].awarded is not None
    keys = {world.key(f"node{number}").node_id: world.key(f"node{number}") for number in range(len(world.nodes))}
    chosen = [keys[member] for member in terms.committee[-liars:]]
    failed = Settlement(Verdict.FAILED, found[0].awarded.certified.winner, 0, 0, bytes(32), 0)
    message = settle_message(terms, 0, failed)
    signed = tuple((liar.node_id, liar.sign(message)) for liar in chosen)
    ports = await world.ports("liar", micro_cyx=0)
    await ports.chain.submit(settle_instruction(terms, 0, failed, signed, bytes(64)))
    return terms.job, chosen


async def test_a_quorum_that_settles_against_its_own_votes_is_found_on_the_chain(autojump_clock: object) -> None:
    """Two of three members vote OK to the leader, and have FAILED settled behind its back."""
    async with open_world(latency=constant_latency(0.05)) as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, requester)
            job, liars = await settle_otherwise(world, 2)
            await trio.sleep(30)
            ports = await world.ports("reader", micro_cyx=0)
            (landed,) = await ports.chain.settlements(job)
            assert (landed.verdict, landed.round, landed.sequence) == (Verdict.FAILED, 0, 0)
            assert [signer for signer, _ in landed.signatures] == [liar.node_id for liar in liars]
            slashed = await world.slashed()
            assert slashed.items() <= {liar.node_id: 100 * MICRO for liar in liars}.items()
            assert slashed, "the leader, which is honest, had the vote of at least one of them"
            nursery.cancel_scope.cancel()


async def test_a_member_that_signs_both_ways_is_slashed_by_whoever_hears_it(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED
        room = next(room for room in rooms(world) if room.outcome is not None)
        terms, outcome = room.auction.terms, room.outcome
        assert terms is not None and outcome is not None
        keys = {world.key(f"node{number}").node_id: world.key(f"node{number}") for number in range(5)}
        liars: list[KeyPair] = [keys[member] for member, _ in outcome.message.signatures]  # type: ignore[index]
        other = Settlement(Verdict.FAILED, outcome.message.worker, 0, 0, bytes(32), 0)  # type: ignore[arg-type]
        message = settle_message(terms, outcome.message.round, other)
        forged = msgspec.structs.replace(
            outcome.message, verdict=Verdict.FAILED, price=0, units=0, result_hash=bytes(32), fee_mask=0,
            signatures=tuple((liar.node_id, liar.sign(message)) for liar in liars),
        )  # fmt: skip
        assert isinstance(forged, Outcome)
        await requester.wire.publish(market_topic(terms.announce.execution_class), forged)
        await trio.sleep(5)

        assert await world.slashed() == {liar.node_id: 100 * MICRO for liar in liars}
        ports = await world.ports("reader", micro_cyx=0)
        accounts = {account.node: account for account in await ports.chain.nodes()}
        assert {node for node, account in accounts.items() if account.retired} == {liar.node_id for liar in liars}
        assert all(accounts[liar.node_id].stake == 0 for liar in liars)


async def test_a_member_that_signs_two_successors_is_slashed_and_moves_nothing(autojump_clock: object) -> None:
    """It does not even take a hand-over: the job itself goes on as if nothing had been said."""
    async with open_world() as world:
        await world.add_nodes(6, lambda: SimulatedRunner(0.2))
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def lie() -> None:
                worker = await winner_of(world)
                room = next(room for room in rooms(world) if room.awarded is not None)
                assert room.awarded is not None
                terms, award = room.awarded.terms, room.awarded.certified.award
                keys = {world.key(f"node{number}").node_id: world.key(f"node{number}") for number in range(6)}
                liar = keys[terms.committee[0]]
                for node in (award.ranking[1].bidder, award.ranking[2].bidder):
                    step = Successor(1, NodeId(node), 40_000, 0)
                    digest = digest_of(terms, award, step)
                    said = HandoverCertificate(
                        job=terms.job, award=award.digest, rank=1, from_leaf=0, successor=node, price=step.price,
                        round=0, signatures=((liar.node_id, liar.sign(handover_message(terms, 1, 0, digest))),),
                        reason="a lie",
                    )  # fmt: skip
                    await requester.wire.publish(market_topic(terms.announce.execution_class), said)
                await trio.sleep(5)
                assert world.winner() == worker
                assert await world.slashed() == {liar.node_id: 100 * MICRO}

            result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED, result
        assert result.receipt is not None and "handovers" not in result.receipt["evidence"]
