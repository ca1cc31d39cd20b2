"""PARTIAL pays one worker after another for what each has done; FRAUD takes a stake, on the worker's own word."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain_world import MINIMUM_STAKE, World, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobAccount, JobState, Verdict
from cyxnode.protocol.limits import FRAUD_QUORUMS, MICRO, SETTLEMENTS_MAX
from cyxnode.protocol.units import MicroCyx


@pytest.fixture
def world() -> World:
    return World(6)


@pytest.fixture
def job(world: World) -> JobAccount:
    return world.seated_job()


def _workers(world: World, job: JobAccount) -> list[Keypair]:
    return [node for node in world.nodes if node_id(node) not in job.committee]


def _partial(world: World, job: JobAccount, worker: Keypair, units: int, price: int, mask: int = 3) -> JobAccount:
    wish = world.settlement(job, Verdict.PARTIAL, worker)
    wish = replace(wish, units=units, price=MicroCyx(price), fee_mask=mask)
    world.submit(world.signed(job, wish))
    after = world.job(job.job)
    assert after is not None
    return after


def test_three_workers_finish_one_job(world: World, job: JobAccount) -> None:
    """Each is paid for its units at its own price; each settlement's fee goes to the seats that it names."""
    one, two, three = _workers(world, job)
    job = _partial(world, job, one, 3, 40 * MICRO, mask=0b011)
    assert (job.state, job.verdict, job.units_paid, job.paid) == (JobState.SEATED, Verdict.PARTIAL, 3, 12 * MICRO)
    job = _partial(world, job, two, 1, 50 * MICRO, mask=0b110)
    last = replace(world.settlement(job, Verdict.OK, three), price=MicroCyx(10 * MICRO), fee_mask=0b100)
    world.submit(world.signed(job, last))
    settled = world.job(job.job)
    assert settled is not None
    assert (settled.state, settled.units_paid, settled.paid, settled.fee_mask) == (
        JobState.SETTLED, 10, 23 * MICRO, 0b111,
    )  # fmt: skip
    assert [world.tokens(Pubkey(world.node(n).payout)) for n in (one, two, three)] == [10_800_000, 4_500_000, 5_400_000]
    assert [world.node(n).jobs_ok for n in (one, two, three)] == [0, 0, 1]
    assert [world.node(n).fees_generated for n in (one, two, three)] == [960_000, 400_000, 480_000]
    assert settled.shares == (120_000, 120_000 + 50_000, 50_000 + 120_000)
    world.submit(chain.CloseJob(job.job))
    assert [world.node(member).earned for member in world.members(job)] == list(settled.shares)
    assert world.tokens(world.requester.pubkey()) == 27 * MICRO
    assert world.vault(job.job) == 0


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.UNSOLD, Verdict.CANCELLED, Verdict.FRAUD])
def test_what_was_attested_stays_paid_however_the_job_ends(world: World, job: JobAccount, verdict: Verdict) -> None:
    one, two, _ = _workers(world, job)
    job = _partial(world, job, one, 5, 40 * MICRO)
    world.settle(job, verdict, two if verdict in (Verdict.FAILED, Verdict.FRAUD) else None)
    world.submit(chain.CloseJob(job.job))
    assert world.tokens(Pubkey(world.node(one).payout)) == 18 * MICRO
    assert [world.node(member).earned for member in world.members(job)] == [200_000, 200_000, 0]
    assert world.tokens(world.requester.pubkey()) == 30 * MICRO


def test_a_job_that_expires_in_the_middle_still_pays_its_verifiers(world: World, job: JobAccount) -> None:
    job = _partial(world, job, _workers(world, job)[0], 5, 40 * MICRO)
    world.advance(seconds=job.refund_at_s - world.unix_s)
    world.submit(chain.RefundExpired(job.job))
    assert [world.node(member).earned for member in world.members(job)] == [200_000, 200_000, 0]
    assert world.tokens(world.requester.pubkey()) == 30 * MICRO


def test_units_are_paid_once(world: World, job: JobAccount) -> None:
    one, two, _ = _workers(world, job)
    job = _partial(world, job, one, 9, 40 * MICRO)
    with refused(247):
        _partial(world, job, two, 1, 40 * MICRO)  # nothing would be left
    with refused(247):
        world.submit(world.signed(job, replace(world.settlement(job, Verdict.OK, two), units=2)))
    with refused(242):
        world.submit(world.signed(job, replace(world.settlement(job, Verdict.OK, two), sequence=0)))
    world.settle(job, Verdict.OK, two)


def test_the_last_settlement_ends_the_job(world: World, job: JobAccount) -> None:
    worker = _workers(world, job)[0]
    for _ in range(SETTLEMENTS_MAX - 1):
        job = _partial(world, job, worker, 1, 1 * MICRO)
    with refused(244):
        _partial(world, job, worker, 1, 1 * MICRO)
    before = world.lamports(layout.job_address(world.program, job.job))
    settled = world.settle(job, Verdict.OK, worker)
    assert (settled.settlements, settled.units_paid) == (SETTLEMENTS_MAX, 10)
    rent = world.svm.minimum_balance_for_rent_exemption(layout.JOB_BYTES)
    assert before > world.lamports(layout.job_address(world.program, job.job)) > rent, "the deposit was enough"


@pytest.mark.parametrize(("stake", "slashed"), [(100 * MICRO, 80 * MICRO), (200 * MICRO, 80 * MICRO)])
def test_fraud_takes_twice_the_price(stake: int, slashed: int) -> None:
    world = World(4)
    worker = world.add_node("worker", stake=stake)
    world.advance()
    job = world.seated_job(world.open_job_wish(nonce=b"\x05" * 32))
    if node_id(worker) in job.committee:
        pytest.fail("choose another nonce")
    settled = world.settle(job, Verdict.FRAUD, worker)
    account = world.node(worker)
    assert (settled.state, settled.slashed, settled.paid) == (JobState.SETTLED, slashed, 0)
    assert (account.stake, account.slashed, account.failures) == (stake - slashed, slashed, 1)
    assert world.tokens(world.treasury.pubkey()) == 0, "the tokens move when the job is closed"
    assert world.stakes() == 4 * MINIMUM_STAKE + stake
    world.submit(chain.CloseJob(job.job))
    assert world.tokens(world.treasury.pubkey()) == slashed
    assert world.tokens(world.requester.pubkey()) == job.budget
    assert world.stakes() == 4 * MINIMUM_STAKE + stake - slashed
    assert [world.node(member).earned for member in world.members(job)] == [0, 0, 0], "nobody gains by accusing"


def test_fraud_takes_no_more_than_there_is(world: World) -> None:
    wish = replace(world.open_job_wish(nonce=b"\x06" * 32, budget=400 * MICRO))
    job = world.seated_job(wish)
    worker = _workers(world, job)[0]
    settlement = replace(world.settlement(job, Verdict.FRAUD, worker), price=MicroCyx(400 * MICRO))
    world.submit(world.signed(job, settlement))
    assert (world.node(worker).stake, world.node(worker).slashed) == (0, MINIMUM_STAKE)
    world.submit(chain.CloseJob(job.job))
    assert world.tokens(world.treasury.pubkey()) == MINIMUM_STAKE


@pytest.mark.parametrize("k", sorted(FRAUD_QUORUMS))
def test_fraud_needs_its_own_quorum(k: int) -> None:
    world = World(k + 1)
    job = world.seated_job(world.open_job_wish(k=k))
    wish = world.settlement(job, Verdict.FRAUD)
    members = world.members(job)
    with refused(228):
        world.submit(world.signed(job, wish, members[: FRAUD_QUORUMS[k] - 1]))
    world.submit(world.signed(job, wish, members[: FRAUD_QUORUMS[k]]))


def test_fraud_needs_the_workers_own_claim(world: World, job: JobAccount) -> None:
    wish = world.signed(job, world.settlement(job, Verdict.FRAUD))
    worker = next(node for node in world.nodes if node_id(node) == wish.worker)
    innocent = world.node(worker)
    member = world.members(job)[0]
    for changed, code, index in (
        (replace(wish, claim_signature=world.claim(job, wish, member)), 2, 0),  # not the worker's key
        (replace(wish, claim_signature=world.claim(job, replace(wish, result_hash=b"\x09" * 32))), 2, 0),
        (replace(wish, claim_signature=world.claim(job, replace(wish, sequence=1))), 2, 0),
    ):
        with refused(code, index=index):
            world.submit(changed)
    precompile, settle = world.encode(wish, world.admin)
    short = world.precompile(world.message(job, wish), wish.signatures)  # the members alone
    with refused(228):
        world.send([short, settle], [world.admin])
    other = replace(wish, result_hash=b"\x09" * 32)
    context_of = world.claim_statement(job, other, worker)
    with refused(245):  # a claim, but of another result
        world.send([world.with_claim(job, wish, context_of), settle], [world.admin])
    with refused(245):  # the right claim, signed by a member
        world.send([world.with_claim(job, wish, world.claim_statement(job, wish, member)), settle], [world.admin])
    assert world.node(worker) == innocent
    world.send([precompile, settle], [world.admin])
    assert world.node(worker).slashed


def test_a_claim_read_from_elsewhere_convicts_nobody(world: World, job: JobAccount) -> None:
    """The precompile would verify another message than the one that stands in its own data."""
    wish = world.signed(job, world.settlement(job, Verdict.FRAUD))
    honest, settle = world.encode(wish, world.admin)
    last = 2 + 14 * (honest.data[0] - 1)
    for field in (2, 6, 12):  # the instruction of signature, key, message
        data = bytearray(honest.data)
        data[last + field : last + field + 2] = b"\0\0"  # an honest copy, in front
        with refused(224):
            world.send([honest, Instruction(honest.program_id, bytes(data), []), settle], [world.admin])
    assert not world.node(next(node for node in world.nodes if node_id(node) == wish.worker)).slashed


def test_fraud_without_any_statement(world: World, job: JobAccount) -> None:
    honest, settle = world.encode(world.signed(job, world.settlement(job, Verdict.FRAUD)), world.admin)
    with refused(228):
        world.send([Instruction(honest.program_id, b"\0\0", []), settle], [world.admin])
