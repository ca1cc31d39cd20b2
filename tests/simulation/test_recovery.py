"""A requester that is killed in the middle of its job finds out later what became of it, and gets what it paid for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from cheating_runners import FirstDies
from cyxnode.p2p.memory import MemoryTransport
from cyxnode.protocol import codec
from cyxnode.protocol.chain import JobState
from cyxnode.protocol.envelope import open_as, seal
from cyxnode.protocol.messages import Claim, ResultAnswer, ResultRequest
from cyxnode.protocol.receipt import load_receipt, verify_receipt
from cyxnode.protocol.units import JobId
from cyxnode.scheduler.chronicle import Chronicle, read_chronicles
from cyxnode.scheduler.explanation import explain
from cyxnode.scheduler.explanation_left import OnChain
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.job_summary import summarise
from cyxnode.scheduler.kept_claims import BY_JOB, KeptClaim
from cyxnode.scheduler.node import Node
from cyxnode.scheduler.requester import open_requester
from cyxnode.scheduler.requester_service import News, RequesterService, Stage
from cyxnode.scheduler.wire import RESULT
from market_world import START_S, World, open_world, simple_order

NODES = 6


@asynccontextmanager
async def life(world: World, name: str, scope: trio.CancelScope, until: str = "") -> AsyncIterator[RequesterService]:
    """One life of a requester, which ends as by kill -9 once its job reaches the stage `until`."""
    ports = await world.ports(name, micro_cyx=50_000_000 if until else 0)

    def observe(news: News) -> None:
        if isinstance(news, Stage) and news.name == until:
            scope.cancel()

    assert isinstance(ports.transport, MemoryTransport)
    async with ports.transport.run(), open_requester(ports, world.bootstrap, observe) as service:
        yield service


def told_of(world: World, name: str) -> Chronicle:
    return next(read_chronicles(world.journals[world.key(name).node_id], 1))


async def settled(world: World, told: Chronicle) -> OnChain:
    """Wait until the chain has settled it."""
    chain = (await world.ports("reader", micro_cyx=0)).chain
    assert told.job is not None
    with trio.fail_after(200):
        while True:
            account = await chain.job(told.job)
            if account is None or account.state is JobState.SETTLED:
                landed = await chain.settlements(told.job)
                return OnChain(account, landed[-1])
            await trio.sleep(1)


async def killed(world: World, stage: str, name: str = "requester") -> Chronicle:
    """What the journal holds of a job whose `submit` was killed at a stage."""
    with trio.CancelScope() as scope:
        async with life(world, name, scope, stage) as service:
            await service.submit(simple_order(service))
    assert scope.cancelled_caught
    return told_of(world, name)


@pytest.mark.parametrize("stage", ["training", "claimed", "settled"])
async def test_what_was_settled_without_the_requester_is_fetched_and_receipted(
    autojump_clock: object, stage: str
) -> None:
    async with open_world() as world:
        await world.add_nodes(NODES)
        told = await killed(world, stage)
        assert not told.ended and told.job is not None
        chain = await settled(world, told)
        explained = explain(told, START_S * 1000, running=False, chain=chain)
        assert explained.state == "settled" and any("job result" in text for text in explained.advice)
        async with life(world, "requester", trio.CancelScope()) as service:
            result = await service.recover(told)
        assert result.phase is JobPhase.SETTLED and not result.reason and result.weights is not None
        assert result.receipt is not None
        assert any("Merkle" in line for line in verify_receipt(load_receipt(_json(result.receipt))))
        again = told_of(world, "requester")
        assert again.phase is JobPhase.SETTLED and set(again.evidence) == {
            "announce",
            "certificate",
            "claim",
            "outcome",
        }
        one = summarise(again, running=False)
        assert one.result_uri == result.receipt["result"]["uri"] and one.cost == result.receipt["paid"]["amount"]
        assert not one.notes
        reader = (await world.ports("reader", micro_cyx=0)).chain
        assert await reader.job(told.job) is None, "what was not paid is back"


def _json(receipt: object) -> bytes:
    import json

    return json.dumps(receipt).encode()


@pytest.mark.parametrize("told_of_it", [True, False])
async def test_what_a_worker_that_took_over_brought_is_receipted_with_its_hand_over(
    autojump_clock: object, told_of_it: bool
) -> None:
    """Whether the requester lived to hear of the hand-over, or learns of it from those who kept the claim."""
    dead: list[object] = []
    async with open_world() as world:
        await world.add_nodes(NODES, lambda: FirstDies(dead))
        told = await killed(world, "training")
        assert "handed over" in told.stages
        await settled(world, told)
        if not told_of_it:
            for name in ("handover", "claim"):
                told.evidence.pop(name, None)
        async with life(world, "requester", trio.CancelScope()) as service:
            result = await service.recover(told)
        assert result.phase is JobPhase.SETTLED and result.weights is not None and result.receipt is not None, result
        assert any("hand-over to" in line for line in verify_receipt(load_receipt(_json(result.receipt))))
        again = told_of(world, "requester")
        one = summarise(again, running=False)
        assert "handover" in again.evidence and not one.notes
        assert (one.worker, one.price) == (result.receipt["worker"], result.receipt["price_micro_cyx"])


async def test_a_later_submit_tells_the_end_and_the_result_can_still_be_had(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(NODES)
        told = await killed(world, "training")
        await settled(world, told)
        async with life(world, "requester", trio.CancelScope()) as service:
            await service.submit(simple_order(service, steps=32))
        reread = next(one for one in read_chronicles(service.journal, 9) if one.number == told.number)
        assert reread.phase is JobPhase.SETTLED and "not fetched" in reread.cause
        async with life(world, "requester", trio.CancelScope()) as service:
            result = await service.recover(reread)
        assert result.weights is not None and result.receipt is not None


async def test_a_job_that_failed_meanwhile_says_so(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(NODES)
        told = await killed(world, "started")  # nobody serves the spec any more
        await settled(world, told)
        async with life(world, "requester", trio.CancelScope()) as service:
            result = await service.recover(told)
        assert result.phase is JobPhase.FAILED and result.weights is None
        assert told_of(world, "requester").phase is JobPhase.FAILED


async def test_a_job_that_nobody_has_settled_yet_has_no_result_yet(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(NODES)
        told = await killed(world, "training")
        async with life(world, "requester", trio.CancelScope()) as service:
            result = await service.recover(told)
        assert "no settlement" in result.reason and result.weights is None
        assert not told_of(world, "requester").ended


async def test_when_all_parties_have_forgotten_the_reason_says_so(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(NODES)
        told = await killed(world, "training")
        await settled(world, told)
        assert told.job is not None
        for node in world.nodes.values():
            node.context.journal.put(BY_JOB + told.job, b"")
        async with life(world, "requester", trio.CancelScope()) as service:
            result = await service.recover(told)
        assert result.phase is JobPhase.SETTLED and result.weights is None
        assert "they keep it for a day" in result.reason
        assert told_of(world, "requester").cause == result.reason


async def test_a_claim_that_is_not_the_settled_one_is_not_believed(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(NODES)
        told = await killed(world, "training")
        await settled(world, told)
        assert told.job is not None
        for node in world.nodes.values():
            falsify(world, node, told.job)
        async with life(world, "requester", trio.CancelScope()) as service:
            result = await service.recover(told)
        assert result.weights is None and "claim" in result.reason
        assert "claim" not in told_of(world, "requester").evidence


def falsify(world: World, node: Node, job: JobId) -> None:
    """Put another claim of the same worker where a node keeps the settled one."""
    journal, genesis = node.context.journal, node.context.wire.genesis
    value = journal.get(BY_JOB + job)
    if not value:
        return
    kept = codec.decode(value, KeptClaim, max_bytes=10**6)
    claim = open_as(kept.claim, genesis, Claim)
    worker = next(key for number in range(NODES) if (key := world.key(f"node{number}")).node_id == claim.sender)
    other = seal(worker, genesis, msgspec.structs.replace(claim.message, message="better"))
    journal.put(BY_JOB + job, codec.encode(msgspec.structs.replace(kept, claim=other)))


async def test_nodes_keep_what_was_claimed_over_their_restart(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(NODES)
        told = await killed(world, "training")
        await settled(world, told)
        for number, node in enumerate(list(world.nodes)):
            world.kill(node)
            await world.add_node(f"node{number}")
        await trio.sleep(60)
        async with life(world, "requester", trio.CancelScope()) as service:
            result = await service.recover(told)
        assert result.receipt is not None and result.receipt["result"], result.reason


async def test_a_result_is_told_to_its_requester_alone(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(NODES)
        told = await killed(world, "training")
        await settled(world, told)
        assert told.job is not None
        async with life(world, "stranger", trio.CancelScope()) as stranger:
            for node in world.nodes:
                with pytest.raises(Exception, match="no settled claim of this requester"):
                    await stranger.wire.ask(node, RESULT, ResultRequest(job=told.job), ResultAnswer, within_s=1.0)
