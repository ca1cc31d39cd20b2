"""Calls from another program: it may bring a settlement or a conviction, but nothing that was not signed.

The Instructions sysvar shows a called program the instructions of the transaction, and as the current one the caller's.
So the precompile stands in front of the caller. What it verified is the same, whoever calls.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from chain_world import MINIMUM_STAKE, UNBONDING_S, World, node_id, refused
from cyxnode.ledger.escrow_instructions import create_associated
from cyxnode.ledger.program.build import compile_object
from cyxnode.ledger.program.sbpf_link import link
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobAccount, Verdict

PROXY = Pubkey.from_string("Proxy11111111111111111111111111111111111111")


@lru_cache(maxsize=1)
def _proxy() -> bytes:
    return link(compile_object(Path(__file__).with_name("proxy.c")))


@pytest.fixture
def world() -> World:
    world = World(5)
    world.svm.add_program(PROXY, _proxy())
    return world


@pytest.fixture
def job(world: World) -> JobAccount:
    return world.seated_job()


def _through_proxy(step: Instruction, times: int = 1) -> Instruction:
    accounts = [AccountMeta(step.program_id, False, False), *step.accounts]
    return Instruction(PROXY, bytes([times]) + bytes(step.data), accounts)


def _wish(world: World, job: JobAccount, verdict: Verdict) -> chain.Settle:
    wish = world.settlement(job, verdict)
    return world.signed(job, replace(wish, units=3) if verdict is Verdict.PARTIAL else wish)


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.PARTIAL, Verdict.FRAUD, Verdict.UNSOLD])
def test_a_settlement_by_another_program_needs_the_same_quorum(world: World, job: JobAccount, verdict: Verdict) -> None:
    *create, precompile, settle = world.encode(_wish(world, job, verdict), world.admin)
    with refused(222):
        world.send([*create, create_associated(world.admin.pubkey(), world.admin.pubkey(), world.mint),
                    _through_proxy(settle)], [world.admin])  # fmt: skip
    with refused(222):
        world.send([*create, precompile, _through_proxy(settle, times=0), _through_proxy(settle)], [world.admin])
    with refused(221):
        world.send([_through_proxy(settle), precompile], [world.admin])
    assert world.job(job.job) == job
    world.send([*create, precompile, _through_proxy(settle)], [world.admin])
    settled = world.job(job.job)
    assert settled is not None
    assert (settled.verdict, settled.settlements) == (verdict, 1)


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.OK, 240), (Verdict.PARTIAL, 242), (Verdict.FRAUD, 240)])
def test_one_precompile_serves_one_settlement(world: World, job: JobAccount, verdict: Verdict, code: int) -> None:
    """A caller can call twice behind one precompile: the second finds the job as the first left it."""
    *create, precompile, settle = world.encode(_wish(world, job, verdict), world.admin)
    with refused(code):
        world.send([*create, precompile, _through_proxy(settle, times=2)], [world.admin])
    assert world.job(job.job) == job


def test_a_caller_cannot_stand_in_for_the_submitter(world: World, job: JobAccount) -> None:
    *_, precompile, settle = world.encode(_wish(world, job, Verdict.UNSOLD), world.admin)
    accounts = list(settle.accounts)
    accounts[3] = AccountMeta(world.requester.pubkey(), False, True)
    with refused(104):
        world.send(
            [precompile, _through_proxy(Instruction(world.program, bytes(settle.data), accounts))], [world.admin]
        )


def test_a_conviction_by_another_program(world: World, job: JobAccount) -> None:
    liar = world.members(job)[0]
    create, precompile, slash = world.encode(world.contradiction(job, liar), world.admin)
    with refused(222):
        world.send([precompile, create, _through_proxy(slash)], [world.admin])
    with refused(167):
        world.send([create, precompile, _through_proxy(slash, times=2)], [world.admin])
    assert world.node(liar).stake == MINIMUM_STAKE
    world.send([create, precompile, _through_proxy(slash)], [world.admin])
    assert (world.node(liar).stake, world.node(liar).retired) == (0, True)


def test_a_statement_verified_for_a_settlement_convicts_nobody(world: World, job: JobAccount) -> None:
    """One precompile, and a caller that tries both instructions behind it: each asks for other statements."""
    wish = _wish(world, job, Verdict.UNSOLD)
    *_, precompile, _ = world.encode(wish, world.admin)
    _, _, slash = world.encode(world.contradiction(job, world.members(job)[0]), world.admin)
    with refused(281):
        world.send([precompile, _through_proxy(slash)], [world.admin])


def test_withdrawing_twice_by_another_program(world: World) -> None:
    node = world.nodes[0]
    world.submit(chain.RequestUnstake(), node)
    world.advance(seconds=UNBONDING_S)
    create, withdraw = world.encode(chain.WithdrawStake(node_id(node)), world.admin)
    with refused(170):
        world.send([create, _through_proxy(withdraw, times=2)], [world.admin])
    world.send([create, _through_proxy(withdraw)], [world.admin])
    assert world.stakes() == 4 * MINIMUM_STAKE
