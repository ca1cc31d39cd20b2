"""A requester that dies with money in escrow gets it back when it comes again."""

from __future__ import annotations

import pytest
import trio

from cyxnode.protocol.chain import OpenJob
from cyxnode.protocol.hashing import job_id
from cyxnode.protocol.limits import MICRO
from cyxnode.scheduler.reclaim import reclaim, remember_escrow
from cyxnode.scheduler.requester_service import RequesterService
from market_world import open_world, simple_order


async def abandon(requester: RequesterService, seconds: int) -> bytes:
    """Fund an escrow as a requester does, and do nothing more."""
    order, now_s = simple_order(requester), requester.wire.clock.unix_ms() // 1000
    nonce, digest = bytes(32), b"\1" * 32
    job = job_id(requester.wire.me, nonce, digest)
    remember_escrow(requester.journal, job, nonce, digest)
    grace_s = (await requester.chain.config()).grace_s
    deadline_s = now_s + seconds
    await requester.chain.submit(
        OpenJob(nonce, digest, b"\2" * 32, order.budget, 3, 4, deadline_s, deadline_s + grace_s + 1)
    )
    return job


@pytest.mark.slow
async def test_an_abandoned_escrow_is_refunded_once_its_time_has_come(autojump_clock: object) -> None:
    async with open_world() as world:
        requester = await world.add_requester()
        job = await abandon(requester, seconds=20)
        [waiting] = await reclaim(requester.chain, requester.journal)
        assert waiting.job == job
        assert waiting.what.startswith("open until")
        await trio.sleep(120)
        [refunded] = await reclaim(requester.chain, requester.journal)
        assert refunded.what == "refunded"
        assert (await requester.chain.balance(requester.wire.me)).micro_cyx == 50 * MICRO
        assert await reclaim(requester.chain, requester.journal) == []


async def test_an_escrow_that_never_came_to_be_is_forgotten(autojump_clock: object) -> None:
    async with open_world() as world:
        requester = await world.add_requester()
        remember_escrow(requester.journal, job_id(requester.wire.me, bytes(32), bytes(32)), bytes(32), bytes(32))
        assert await reclaim(requester.chain, requester.journal) == []
        assert [value for _, value in requester.journal.items(b"open/")] == [b""]
