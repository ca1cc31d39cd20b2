"""Where every micro-CYX goes, compared with a model of a few lines, for random terms, prices, units and masks."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from solders.pubkey import Pubkey

from chain_world import CLASS, MINIMUM_STAKE, Rejected, World, key, node_id
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.limits import AMOUNT_MAX, FEE_BPS_MAX
from cyxnode.protocol.units import MicroCyx


@dataclass(frozen=True, slots=True)
class Split:
    """The model: who ends with what of one job's budget."""

    worker: int
    treasury: int
    each_verifier: int
    requester: int

    @classmethod
    def of(cls, budget: int, price: int, units: int, total: int, fee_bps: int, share_bps: int, members: int) -> Split:
        amount = price * units // total
        fee = amount * fee_bps // 10_000
        share = fee * share_bps // 10_000
        each = share // members if members else 0
        return cls(amount - fee, fee - share, each, budget - amount + share - each * members)


@pytest.mark.slow
@settings(max_examples=120)
@given(
    budget=some.one_of(some.integers(1, 1000), some.integers(1, AMOUNT_MAX)),
    price_share=some.integers(0, 10**6),
    total=some.integers(1, 2**32 - 1),
    units_share=some.integers(0, 10**6),
    fee_bps=some.integers(0, FEE_BPS_MAX),
    share_bps=some.integers(0, 10_000),
    k=some.sampled_from([3, 5, 7]),
    mask=some.integers(0, 127),
    verdict=some.sampled_from([Verdict.OK, Verdict.OK, Verdict.OK, *Verdict]),
)
def test_tokens_are_conserved(
    budget: int, price_share: int, total: int, units_share: int, fee_bps: int, share_bps: int, k: int, mask: int,
    verdict: Verdict,
) -> None:  # fmt: skip
    world = World(8, fee_bps=fee_bps, verifier_share_bps=share_bps)
    wish = replace(world.open_job_wish(budget=budget, k=k), units_total=total)
    job = world.seated_job(wish)
    worker = world.outsider(job) if verdict in (Verdict.OK, Verdict.FAILED) else None
    ok = verdict is Verdict.OK
    price, units = (budget * price_share // 10**6, max(1, total * units_share // 10**6)) if ok else (0, 0)
    mask &= (1 << k) - 1
    settlement = replace(
        world.settlement(job, verdict, worker), price=MicroCyx(price), units=units, fee_mask=mask
    )  # fmt: skip
    world.submit(world.signed(job, settlement))
    world.submit(chain.CloseJob(job.job))

    split = Split.of(budget, price, units, total, fee_bps, share_bps, mask.bit_count())
    payout = Pubkey(world.node(worker).payout) if worker else world.admin.pubkey()
    assert world.tokens(payout) == split.worker
    assert world.tokens(world.treasury.pubkey()) == split.treasury
    assert world.tokens(world.requester.pubkey()) == split.requester
    for seat, member in enumerate(world.members(job)):
        assert world.node(member).earned == (split.each_verifier if mask >> seat & 1 else 0)
    assert world.stakes() == 8 * MINIMUM_STAKE + split.each_verifier * mask.bit_count()
    assert split.worker + split.treasury + split.requester + split.each_verifier * mask.bit_count() == budget


@pytest.mark.slow
@settings(max_examples=25)
@given(data=some.data())
def test_random_instructions_never_create_or_lose_money(data: some.DataObject) -> None:
    """Steps in any order, most of them refused: all tokens stay where the program or a named wallet holds them."""
    world = World(5)
    jobs: list[chain.JobAccount] = []
    wallets = [world.requester.pubkey(), world.treasury.pubkey(), *(n.pubkey() for n in world.nodes)]
    wallets += [key(f"n{index}/payout").pubkey() for index in range(5)]
    world.pay(world.requester.pubkey(), 10**9)
    everything = world.stakes() + 10**9

    def act(step: str) -> None:
        if step == "open":
            wish = world.open_job_wish(nonce=bytes([len(jobs)]) * 32, budget=data.draw(some.integers(1, 10**8)))
            world.submit(wish, world.requester)
            jobs.append(world.job_of(wish))
            return
        if step == "wait":
            world.advance(slots=data.draw(some.integers(1, 30)), seconds=data.draw(some.sampled_from([0, 1, 4000])))
            return
        if not jobs:
            return
        job = data.draw(some.sampled_from(jobs))
        now = world.job(job.job) or job
        if step == "seat":
            world.submit(chain.Seat(job.job, world.draw(job)))
        elif step == "settle" and now.committee:
            verdict = data.draw(some.sampled_from(list(Verdict)))
            worker = world.outsider(now) if verdict is Verdict.OK else None
            wish_ = world.settlement(now, verdict, worker)
            price = data.draw(some.integers(0, 2 * job.budget)) if verdict is Verdict.OK else 0
            signers = world.members(now)[: data.draw(some.integers(1, 3))]
            world.submit(world.signed(now, replace(wish_, price=MicroCyx(price)), signers))
        elif step == "close":
            world.send(world.encode(chain.CloseJob(job.job), world.admin, job=now), [world.admin])
        elif step == "refund":
            world.send(world.encode(chain.RefundExpired(job.job), world.admin, job=now), [world.admin])

    for _ in range(25):
        step = data.draw(some.sampled_from(["open", "wait", "seat", "seat", "settle", "settle", "close", "refund"]))
        with suppress(Rejected, KeyError):  # KeyError: the open slot has no hash yet
            act(step)
        held = world.stakes() + sum(world.vault(job.job) for job in jobs)
        assert held + sum(world.tokens(wallet) for wallet in wallets) == everything
        owed = sum(world.node(n).stake + world.node(n).earned for n in world.nodes)
        assert world.stakes() >= owed
        for job in jobs:
            state = world.job(job.job)
            assert world.vault(job.job) <= job.budget
            assert state is None or state.paid <= state.budget


@pytest.mark.parametrize(
    ("price", "units", "total"),
    [(AMOUNT_MAX, 2**32 - 2, 2**32 - 1), (AMOUNT_MAX, 1, 2**32 - 1), (AMOUNT_MAX - 1, 3, 7), (1, 1, 2), (0, 1, 1)],
)
def test_division_at_the_edges(price: int, units: int, total: int) -> None:
    world = World(4)
    job = world.seated_job(replace(world.open_job_wish(budget=AMOUNT_MAX), units_total=total))
    world.submit(world.signed(job, replace(world.settlement(job), price=MicroCyx(price), units=units)))
    settled = world.job(job.job)
    assert settled is not None
    assert settled.paid == price * units // total


def test_counters_stop_at_the_top() -> None:
    world = World(4)
    job = world.seated_job()
    worker = world.outsider(job)
    address = layout.node_address(world.program, node_id(worker))
    world.patch(address, 160, b"\xff" * 8)  # fees_generated
    world.patch(address, 184, b"\xff" * 4)  # jobs_ok
    world.settle(job)
    node = world.node(worker)
    assert (node.fees_generated, node.jobs_ok, node.execution_class) == (2**64 - 1, 2**32 - 1, CLASS)
