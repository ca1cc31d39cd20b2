"""The whole flow in virtual time: fund, auction, seat, train, verify, pay, receipt."""

from __future__ import annotations

import pytest
import trio

from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.receipt import verify_receipt
from cyxnode.scheduler.job import JobPhase
from market_world import open_world, simple_order


@pytest.mark.slow
async def test_a_job_is_auctioned_verified_and_paid(autojump_clock: object) -> None:
    async with open_world() as world:
        for number in range(5):
            await world.add_node(f"node{number}", rate_micro_per_s=20_000 + 5_000 * number)
        requester = await world.add_requester()
        with trio.fail_after(120):
            result = await requester.submit(simple_order(requester))
        assert result.phase is JobPhase.SETTLED, result
        assert result.weights
        assert result.receipt is not None
        assert verify_receipt(result.receipt)
        paid = result.receipt["paid"]
        left = (await requester.chain.balance(requester.wire.me)).micro_cyx
        dust = paid["verifiers"] % len(result.receipt["verified_by"])
        assert left - (50 * MICRO - paid["amount"]) in range(3), dust
