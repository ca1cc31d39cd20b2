"""Nobody blocks, repeats or revives: addresses funded beforehand, accounts closed, jobs ended."""

from __future__ import annotations

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from chain_world import MINIMUM_STAKE, World, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobState, Verdict
from cyxnode.protocol.hashing import job_id
from cyxnode.protocol.limits import MICRO


@pytest.mark.parametrize("lamports", [890_880, 10**9])
def test_lamports_sent_beforehand_do_not_block_an_address(lamports: int) -> None:
    world = World(initialise=False)
    program = world.program
    keypair = world.wallet("n0")
    wish = world.open_job_wish()
    job = job_id(node_id(world.requester), wish.nonce, wish.spec_hash)
    for address in (
        layout.config_address(program), layout.stake_vault_address(program),
        layout.node_address(program, bytes(keypair.pubkey())), layout.job_address(program, job),
        layout.vault_address(program, job),
    ):  # fmt: skip
        sender = TransferParams(from_pubkey=world.admin.pubkey(), to_pubkey=address, lamports=lamports)
        world.send([transfer(sender)], [world.admin])
    world.send(world.initialise_instructions(), [world.admin])
    world.add_node("n0")
    opened = world.open_job(wish)
    assert opened.state is JobState.OPEN
    world.advance(seconds=opened.refund_at_s - world.unix_s)
    before = world.lamports(world.requester.pubkey())
    world.submit(chain.RefundExpired(opened.job))
    assert world.lamports(world.requester.pubkey()) - before >= 2 * lamports


def _close_token_account(world: World, owner: Keypair) -> None:
    account = world.ata(owner.pubkey())
    accounts = [
        AccountMeta(account, False, True),
        AccountMeta(owner.pubkey(), False, True),
        AccountMeta(owner.pubkey(), True, False),
    ]
    world.send([Instruction(layout.TOKEN_PROGRAM, b"\x09", accounts)], [owner])
    assert world.data(account) is None


def test_a_requester_that_closes_its_account_blocks_nothing() -> None:
    world = World(4)
    job = world.seated_job()
    worker = world.outsider(job)
    _close_token_account(world, world.requester)
    world.settle(job)
    assert world.tokens(Pubkey(world.node(worker).payout)) == 36 * MICRO
    world.submit(chain.CloseJob(job.job))  # creates the account again
    assert world.tokens(world.requester.pubkey()) == 10 * MICRO


def test_a_closed_payout_account_is_created_again() -> None:
    world = World(4)
    job = world.seated_job()
    worker = world.outsider(job)
    payout = world.wallet(next(f"n{i}/payout" for i in range(4) if world.nodes[i] == worker))
    _close_token_account(world, payout)
    treasury = world.wallet("treasury")
    _close_token_account(world, treasury)
    *_, precompile, settle = world.encode(world.signed(job, world.settlement(job)), world.admin)
    with refused(140):
        world.send([precompile, settle], [world.admin])
    world.settle(job)
    assert (world.tokens(payout.pubkey()), world.tokens(treasury.pubkey())) == (36 * MICRO, 3_200_000)


def test_broken_token_accounts_are_named() -> None:
    world = World(4)
    job = world.seated_job()
    *_, precompile, settle = world.encode(world.signed(job, world.settlement(job)), world.admin)
    treasury = world.ata(world.treasury.pubkey())
    for offset, value, error in ((108, b"\x02", 141), (0, b"\x01" * 32, 142)):
        old = world.svm.get_account(treasury)
        assert old is not None
        world.patch(treasury, offset, value)
        with refused(error):
            world.send([precompile, settle], [world.admin])
        world.svm.set_account(treasury, old)
    world.settle(job)
    world.patch(layout.vault_address(world.program, job.job), 64, (799_999).to_bytes(8, "little"))
    with refused(263):
        world.submit(chain.CloseJob(job.job))


def test_closing_and_refunding_happen_once() -> None:
    world = World(4)
    job = world.settle(world.seated_job())
    close = world.encode(chain.CloseJob(job.job), world.admin)
    world.send(close, [world.admin])
    with refused(181):
        world.send(close, [world.admin])
    with refused(181, index=3):
        world.send([*world.encode(chain.RefundExpired(job.job), world.admin, job=job)[:1], *close[:1] * 2,
                    world.encode(chain.RefundExpired(job.job), world.admin, job=job)[1]], [world.admin])  # fmt: skip


def test_a_closed_job_is_not_revived_within_the_transaction() -> None:
    world = World(4)
    job = world.settle(world.seated_job())
    create, close = world.encode(chain.CloseJob(job.job), world.admin)
    address = layout.job_address(world.program, job.job)
    revive = transfer(TransferParams(from_pubkey=world.admin.pubkey(), to_pubkey=address, lamports=10**9))
    with refused(181, index=3):
        world.send([create, close, revive, close], [world.admin])
    world.send([create, close, revive], [world.admin])
    account = world.svm.get_account(address)
    assert account is not None
    assert (account.owner, len(account.data), account.lamports) == (layout.SYSTEM_PROGRAM, 0, 10**9)
    assert world.tokens(world.requester.pubkey()) == 10 * MICRO
    with refused(181):
        world.send([create, close], [world.admin])


def test_money_of_one_job_never_pays_another() -> None:
    world = World(4)
    job, other = world.seated_job(), world.seated_job(world.open_job_wish(nonce=b"\x02" * 32))
    world.settle(job, Verdict.UNSOLD)
    world.submit(chain.CloseJob(job.job))
    assert world.vault(other.job) == other.budget
    assert world.stakes() == 4 * MINIMUM_STAKE
