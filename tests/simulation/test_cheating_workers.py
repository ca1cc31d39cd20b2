"""Workers that do not do the work: none is paid, the requester gets everything back, and the receipt says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cheating_runners import BoastingRunner, DyingRunner, FlakyRunner, SkippingRunner
from cyxnode.ledger.addresses import local_keypair
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.ports import Runner
from cyxnode.protocol.receipt import verify_receipt
from cyxnode.protocol.units import NodeId, base58
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.orders import JobResult
from market_world import World, open_world, run_job

pytestmark = pytest.mark.slow
TREASURY = NodeId(bytes(local_keypair("treasury").pubkey()))


async def failed_job(
    runner: Callable[[], Runner], *, status: str = "FAILED", slashed: bool = False, k: int = 3
) -> tuple[World, JobResult]:
    """Whoever wins cheats; the others verify honestly. A convicted one loses twice its price."""
    async with open_world() as world:
        await world.add_nodes(k + 2, runner)
        requester = await world.add_requester()
        result = await run_job(requester, k=k)
        assert result.phase is JobPhase(status.lower()), result
        assert result.weights is None
        assert result.receipt is not None
        assert verify_receipt(result.receipt)
        assert result.receipt["status"] == status
        assert result.receipt["reason"] == result.reason
        assert await world.balance(requester.wire.me) == 50 * MICRO
        failed = await world.failures()
        assert [base58(node) for node in failed] == [result.receipt["worker"]]
        assert result.receipt["paid"]["worker"] == 0
        lost = {base58(node): amount for node, amount in (await world.slashed()).items()}
        assert lost == ({result.receipt["worker"]: 2 * result.receipt["price_micro_cyx"]} if slashed else {})
        assert await world.balance(TREASURY) == sum(lost.values())
    return world, result


@pytest.mark.parametrize("k", [3, 5])
async def test_a_worker_that_skips_half_its_steps_loses_a_part_of_its_stake(autojump_clock: object, k: int) -> None:
    _, result = await failed_job(SkippingRunner, status="FRAUD", slashed=True, k=k)
    assert "replays to" in result.reason


async def test_a_flipped_bit_costs_no_stake(autojump_clock: object) -> None:
    """Hardware that slips is not paid either, but it is no fraud: the states lie too close together."""
    _, result = await failed_job(FlakyRunner)
    assert "replays to" in result.reason


async def test_a_worker_that_delivers_other_weights(autojump_clock: object) -> None:
    def forge(done: Any) -> Any:
        return replace(done, weights=done.weights[:-1] + b"?")

    _, result = await failed_job(lambda: BoastingRunner(forge))
    assert result.reason == "the delivered weights are not those of the final state"


async def test_a_worker_that_overstates_its_accuracy(autojump_clock: object) -> None:
    def overstate(done: Any) -> Any:
        return replace(done, final_accuracy_micro=done.final_accuracy_micro + 10_000)

    _, result = await failed_job(lambda: BoastingRunner(overstate))
    assert result.reason.startswith("held-out accuracy is")


async def test_a_training_that_dies_is_reported_by_its_worker(autojump_clock: object) -> None:
    _, result = await failed_job(DyingRunner)
    assert result.reason == "the worker reports: out of memory"


async def test_a_defect_in_a_worker_costs_the_job_and_not_the_node(autojump_clock: object) -> None:
    world, result = await failed_job(lambda: DyingRunner(ZeroDivisionError("a defect")))
    assert result.reason == "the worker reports: internal error of the worker's node"
    assert len(world.nodes) == 5
