"""A job's life on the real program: every verdict, the split to the last unit, closing, refunding, registering."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.pubkey import Pubkey

from chain_world import CLASS, GENESIS, GRACE_S, MINIMUM_STAKE, RESULT, World, key, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobState, Verdict
from cyxnode.protocol.hashing import job_id
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import MicroCyx


def test_config_is_what_was_initialised() -> None:
    world = World()
    config = world.config()
    assert config == chain.ChainConfig(
        admin=bytes(world.admin.pubkey()), genesis=GENESIS, mint=bytes(world.mint),
        treasury=bytes(world.treasury.pubkey()), fee_bps=1000, verifier_share_bps=2000,
        minimum_stake=MicroCyx(MINIMUM_STAKE), unbonding_s=86_400, grace_s=GRACE_S,
    )  # fmt: skip
    assert world.data(world.ata(world.treasury.pubkey())) is not None, "the treasury's account is made beforehand"


def test_register_takes_the_stake() -> None:
    world = World()
    keypair = world.add_node("n0", stake=MINIMUM_STAKE + 7)
    node = world.node(keypair)
    assert node == chain.NodeAccount(
        node=node_id(keypair), execution_class=CLASS, active_since_slot=world.slot,
        payout=bytes(key("n0/payout").pubkey()), stake=MicroCyx(MINIMUM_STAKE + 7), earned=MicroCyx(0),
        fees_generated=MicroCyx(0), jobs_ok=0, failures=0, slashed=MicroCyx(0), unbonding_at_s=0,
    )  # fmt: skip
    assert (world.tokens(keypair.pubkey()), world.stakes()) == (0, MINIMUM_STAKE + 7)


def test_registering_again_adds_stake_and_keeps_seniority_within_a_class() -> None:
    world = World(1)
    (keypair,) = world.nodes
    before = world.node(keypair)
    world.pay(keypair.pubkey(), 5)
    world.submit(chain.Register(CLASS, MicroCyx(5), bytes(keypair.pubkey())), keypair)
    after = world.node(keypair)
    assert (after.stake, after.payout) == (MINIMUM_STAKE + 5, bytes(keypair.pubkey()))
    assert after.active_since_slot == before.active_since_slot < world.slot

    world.submit(chain.Register(b"\x07" * 32, MicroCyx(0), bytes(keypair.pubkey())), keypair)
    assert world.node(keypair).active_since_slot == world.slot, "a new class starts from now"


@pytest.mark.parametrize(
    ("offset", "value"), [(176, b"\x01" + bytes(7)), (144, bytes(8))], ids=["unbonding", "below the minimum"]
)
def test_reactivation_starts_from_now(offset: int, value: bytes) -> None:
    world = World(1)
    (keypair,) = world.nodes
    world.patch(layout.node_address(world.program, bytes(keypair.pubkey())), offset, value)
    world.pay(keypair.pubkey(), MINIMUM_STAKE)
    world.submit(chain.Register(CLASS, MicroCyx(MINIMUM_STAKE), bytes(keypair.pubkey())), keypair)
    node = world.node(keypair)
    assert (node.active_since_slot, node.unbonding_at_s) == (world.slot, 0)


def test_open_job_funds_the_vault() -> None:
    world = World()
    wish = world.open_job_wish()
    job = world.open_job(wish)
    assert job.job == job_id(node_id(world.requester), wish.nonce, wish.spec_hash)
    assert (job.state, job.verdict, job.worker, job.committee) == (JobState.OPEN, None, None, ())
    assert (job.open_slot, job.k, job.m, job.fee_bps, job.verifier_share_bps) == (world.slot, 3, 2, 1000, 2000)
    assert (job.budget, job.work_deadline_s, job.refund_at_s) == (wish.budget, wish.work_deadline_s, wish.refund_at_s)
    assert (world.vault(job.job), world.tokens(world.requester.pubkey())) == (wish.budget, 0)


@pytest.mark.parametrize(("k", "m"), [(3, 2), (5, 3), (7, 5)])
def test_whole_life_pays_ninety_to_ten_to_the_last_unit(k: int, m: int) -> None:
    world = World(k + 1)
    job = world.seated_job(world.open_job_wish(k=k))
    assert (job.state, job.m, len(job.committee)) == (JobState.SEATED, m, k)
    worker = world.outsider(job)
    payout = Pubkey(world.node(worker).payout)
    price = 33_333_337

    settlement = replace(world.settlement(job), price=MicroCyx(price))
    world.submit(world.signed(job, settlement))
    fee = price // 10
    share = fee // 5
    assert world.tokens(payout) == price - fee
    assert world.tokens(world.treasury.pubkey()) == fee - share
    assert world.vault(job.job) == job.budget - price + share

    settled = world.job(job.job)
    assert settled is not None
    assert (settled.state, settled.verdict, settled.worker) == (JobState.SETTLED, Verdict.OK, node_id(worker))
    assert (settled.paid, settled.units_paid, settled.settlements) == (price, 10, 1)
    assert (settled.result_hash, settled.fee_mask) == (RESULT, (1 << m) - 1)
    record = world.node(worker)
    assert (record.jobs_ok, record.failures, record.fees_generated) == (1, 0, fee - share)

    world.submit(chain.CloseJob(job.job))
    each = share // m
    earned = [world.node(member).earned for member in world.members(job)]
    assert earned == [each] * m + [0] * (k - m)
    assert world.tokens(world.requester.pubkey()) == job.budget - price + share - each * m
    assert world.stakes() == (k + 1) * MINIMUM_STAKE + each * m
    assert world.job(job.job) is None


def test_closing_returns_the_rent_to_the_requester() -> None:
    world = World(4)
    before = world.lamports(world.requester.pubkey())
    opened = world.open_job()
    spent = before - world.lamports(world.requester.pubkey())
    fee = 5000
    world.advance()
    world.submit(chain.Seat(opened.job, world.draw(opened)))
    job_settled = world.settle(world.job(opened.job) or opened)
    world.submit(chain.CloseJob(opened.job))
    assert spent > fee
    submitters = 2 + job_settled.m + 2  # signatures that seat and settle are given back
    assert world.lamports(world.requester.pubkey()) == before - fee - 5000 * submitters


def test_submitters_are_given_back_what_signatures_cost() -> None:
    world = World(4)
    job = world.open_job()
    world.advance()
    before = world.lamports(world.admin.pubkey())
    world.submit(chain.Seat(job.job, world.draw(job)))
    assert world.lamports(world.admin.pubkey()) == before + 5_000, "one signature, and one more for a priority fee"
    job = world.job(job.job) or job
    before = world.lamports(world.admin.pubkey())
    world.submit(world.signed(job, world.settlement(job, Verdict.UNSOLD), world.members(job)))
    assert world.lamports(world.admin.pubkey()) == before + 5_000, "its own and those of the quorum, and one more"


def test_half_of_the_units_is_paid_by_half() -> None:
    world = World(4)
    job = world.seated_job()
    settlement = replace(world.settlement(job), price=MicroCyx(9_999_999), units=5)
    world.submit(world.signed(job, settlement))
    settled = world.job(job.job)
    assert settled is not None
    assert (settled.paid, settled.units_paid) == (4_999_999, 5)


def test_failed_pays_nothing_and_counts_against_the_worker() -> None:
    world = World(4)
    job = world.seated_job()
    worker = world.outsider(job)
    settled = world.settle(job, Verdict.FAILED, worker)
    assert (settled.verdict, settled.worker, settled.paid) == (Verdict.FAILED, node_id(worker), 0)
    assert (world.node(worker).failures, world.node(worker).jobs_ok) == (1, 0)
    world.submit(chain.CloseJob(job.job))
    assert world.tokens(world.requester.pubkey()) == job.budget
    assert [world.node(n).earned for n in world.nodes] == [0] * 4


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.UNSOLD, Verdict.CANCELLED])
def test_verdicts_without_a_worker_return_everything(verdict: Verdict) -> None:
    world = World(3)
    job = world.seated_job()
    settled = world.settle(job, verdict)
    assert (settled.state, settled.verdict, settled.worker) == (JobState.SETTLED, verdict, None)
    world.submit(chain.CloseJob(job.job))
    assert world.tokens(world.requester.pubkey()) == job.budget


def test_an_empty_mask_leaves_the_verifiers_share_to_the_requester() -> None:
    world = World(4)
    job = world.seated_job()
    world.submit(world.signed(job, replace(world.settlement(job), fee_mask=0)))
    world.submit(chain.CloseJob(job.job))
    assert world.tokens(world.requester.pubkey()) == 10 * MICRO + 800_000


@pytest.mark.parametrize("seated", [False, True])
def test_refund_after_the_deadline_returns_everything(seated: bool) -> None:
    world = World(3)
    before = world.lamports(world.requester.pubkey())
    job = world.seated_job() if seated else world.open_job()
    with refused(262):
        world.submit(chain.RefundExpired(job.job))
    world.advance(seconds=job.refund_at_s - world.unix_s - 1)
    with refused(262):
        world.submit(chain.RefundExpired(job.job))
    world.advance(seconds=1)
    world.submit(chain.RefundExpired(job.job))
    assert world.tokens(world.requester.pubkey()) == job.budget
    assert world.job(job.job) is None
    assert world.lamports(world.requester.pubkey()) == before - 5_000 - (10_000 if seated else 0)


def test_settle_and_refund_exclude_each_other() -> None:
    world = World(4)
    late, settled = world.seated_job(), world.seated_job(world.open_job_wish(nonce=b"\x02" * 32))
    world.settle(settled)
    world.advance(seconds=late.refund_at_s - world.unix_s)
    with refused(241):
        world.settle(late)
    with refused(261):
        world.submit(chain.RefundExpired(settled.job))
    with refused(260):
        world.submit(chain.CloseJob(late.job))
    world.submit(chain.RefundExpired(late.job))
    world.submit(chain.CloseJob(settled.job))


def test_settle_in_the_last_second() -> None:
    world = World(4)
    job = world.seated_job()
    world.advance(seconds=job.refund_at_s - world.unix_s - 1)
    assert world.settle(job).state is JobState.SETTLED


def test_tokens_sent_to_a_vault_do_not_keep_it_open() -> None:
    world = World(4)
    job = world.seated_job()
    donate = world.encode(chain.CloseJob(job.job), world.admin)  # only for its shape: the vault's address
    vault = donate[-1].accounts[2].pubkey
    world.patch(vault, 64, (job.budget + 3).to_bytes(8, "little"))
    world.settle(job)
    world.submit(chain.CloseJob(job.job))
    assert world.tokens(world.requester.pubkey()) == 10 * MICRO + 3


def test_a_worker_may_share_its_payout_with_the_treasury() -> None:
    world = World(3)
    worker = world.wallet("odd")
    world.pay(worker.pubkey(), MINIMUM_STAKE)
    wish = chain.Register(b"\x09" * 32, MicroCyx(MINIMUM_STAKE), bytes(world.treasury.pubkey()))
    world.submit(wish, worker)
    world.submit(replace(wish, execution_class=CLASS, stake=MicroCyx(0)), worker)
    job = world.seated_job()
    world.submit(world.signed(job, world.settlement(job, worker=worker)))
    assert world.tokens(world.treasury.pubkey()) == 40 * MICRO - 800_000
