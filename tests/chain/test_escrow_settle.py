"""What even a whole committee cannot do: pay beyond the budget, name the wrong worker, settle in the wrong state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.instruction import Instruction

from chain_world import World, node_id, refused
from cyxnode.protocol.chain import JobAccount, Verdict


@pytest.fixture
def world() -> World:
    return World(5)


@pytest.fixture
def job(world: World) -> JobAccount:
    return world.seated_job()


def _unpaid(world: World, job: JobAccount) -> None:
    assert world.vault(job.job) == job.budget
    assert world.job(job.job) == job


@pytest.mark.parametrize(
    ("verdict", "changes", "code"),
    [
        (Verdict.OK, {"price": 50_000_001}, 246),
        (Verdict.OK, {"units": 11}, 247),
        (Verdict.OK, {"units": 0}, 248),
        (Verdict.OK, {"fee_mask": 8}, 249),
        (Verdict.PARTIAL, {"price": 50_000_001}, 246),
        (Verdict.PARTIAL, {"units": 10}, 247),
        (Verdict.PARTIAL, {"units": 0}, 248),
        (Verdict.FRAUD, {"units": 1}, 255),
        (Verdict.FRAUD, {"price": 50_000_001}, 246),
        (Verdict.FAILED, {"units": 1}, 255),
        (Verdict.FAILED, {"price": 50_000_001}, 246),
        (Verdict.UNSOLD, {"price": 1}, 255),
        (Verdict.UNSOLD, {"units": 1}, 255),
        (Verdict.CANCELLED, {"price": 1}, 255),
    ],
)
def test_what_even_a_quorum_cannot_do(
    world: World, job: JobAccount, verdict: Verdict, changes: dict[str, int], code: int
) -> None:
    wish = replace(world.settlement(job, verdict), **changes)  # type: ignore[arg-type]
    with refused(code):
        world.submit(world.signed(job, wish, world.members(job)))
    _unpaid(world, job)


@pytest.mark.parametrize(("number", "code"), [(0, 243), (7, 243), (255, 243)])
def test_verdicts_that_do_not_exist(world: World, job: JobAccount, number: int, code: int) -> None:
    wish = world.signed(job, world.settlement(job, Verdict.UNSOLD))
    *_, precompile, settle = world.encode(wish, world.admin)
    data = bytearray(settle.data)
    data[1] = number
    with refused(code):
        world.send([precompile, Instruction(world.program, bytes(data), settle.accounts)], [world.admin])


@pytest.mark.parametrize("verdict", [Verdict.UNSOLD, Verdict.CANCELLED])
def test_a_verdict_without_a_worker_names_none(world: World, job: JobAccount, verdict: Verdict) -> None:
    with refused(250):
        world.settle(job, verdict, world.outsider(job))
    _unpaid(world, job)


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.FAILED, Verdict.FRAUD])
def test_a_node_holds_one_role(world: World, verdict: Verdict) -> None:
    world.requester = world.add_node("requester")
    job = world.seated_job()
    with refused(252):
        world.settle(job, verdict, world.members(job)[0])
    with refused(253):
        world.settle(job, verdict, world.requester)
    with refused(161):
        world.settle(job, verdict, world.wallet("nobody"))
    _unpaid(world, job)


def test_ok_needs_a_worker_of_the_class(world: World, job: JobAccount) -> None:
    other = world.add_node("other", execution_class=b"\x03" * 32)
    with refused(254):
        world.settle(job, Verdict.OK, other)
    wish = world.signed(job, world.settlement(job))
    *_, precompile, settle = world.encode(wish, world.admin)
    data = bytes(settle.data[:16]) + bytes(32) + bytes(settle.data[48:])
    accounts = [account for at, account in enumerate(settle.accounts) if at != 4]
    with refused(251):
        world.send([precompile, Instruction(world.program, data, accounts)], [world.admin])
    assert world.settle(job, Verdict.FAILED, other).worker == node_id(other)


def test_fraud_names_a_worker(world: World, job: JobAccount) -> None:
    """Else the zero key, which somebody might be able to sign for, would stand for one."""
    precompile, settle = world.encode(world.signed(job, world.settlement(job, Verdict.FRAUD)), world.admin)
    data = bytes(settle.data[:16]) + bytes(32) + bytes(settle.data[48:])
    with refused(251):
        world.send([precompile, Instruction(world.program, data, settle.accounts[:4])], [world.admin])


def test_a_job_that_is_not_seated_cannot_be_settled() -> None:
    world = World(4)
    job = world.open_job()
    world.advance()
    pretended = replace(job, committee=world.draw(job))
    wish = world.signed(pretended, world.settlement(pretended, Verdict.UNSOLD))
    with refused(240):
        world.submit(wish)
    assert (world.job(job.job) or job).settlements == 0
