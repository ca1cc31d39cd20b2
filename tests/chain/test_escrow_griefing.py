"""What strangers, requesters and workers may try against others' money: each fools a program that checks less."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from chain_world import MINIMUM_STAKE, UNBONDING_S, World, key, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobAccount, JobState, Verdict
from cyxnode.protocol.hashing import job_id
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import MicroCyx

TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")


@pytest.fixture
def world() -> World:
    return World(5)


@pytest.fixture
def job(world: World) -> JobAccount:
    return world.seated_job()


def _at(step: Instruction, changes: dict[int, Pubkey]) -> Instruction:
    accounts = list(step.accounts)
    for at, account in changes.items():
        accounts[at] = AccountMeta(account, accounts[at].is_signer, accounts[at].is_writable)
    return Instruction(step.program_id, bytes(step.data), accounts)


# job ids


def test_nobody_takes_a_job_id_before_its_requester(world: World) -> None:
    """The id is bound to the requester's key: the same nonce in other hands is another job."""
    wish, thief = world.open_job_wish(), world.wallet("thief")
    world.pay(thief.pubkey(), wish.budget)
    mine = job_id(node_id(world.requester), wish.nonce, wish.spec_hash)
    (stolen,) = world.encode(wish, thief)
    places = {2: layout.job_address(world.program, mine), 3: layout.vault_address(world.program, mine)}
    for changes, code in ((places, 148), ({2: places[2]}, 180), ({3: places[3]}, 148)):
        with refused(code):
            world.send([_at(stolen, changes)], [thief])
    world.submit(wish, thief)
    assert world.open_job(wish).job == mine


def test_a_job_ended_and_opened_again_in_one_transaction_starts_from_nothing(world: World) -> None:
    """The revived account has neither state nor shares of the old one, and old signatures do not fit it."""
    wish = world.open_job_wish()
    old = world.seated_job(wish)
    settlement = world.signed(old, world.settlement(old))
    world.submit(settlement)
    world.pay(world.requester.pubkey(), wish.budget)
    close = world.encode(chain.CloseJob(old.job), world.requester)
    revive = transfer(TransferParams(
        from_pubkey=world.requester.pubkey(), to_pubkey=layout.job_address(world.program, old.job), lamports=10**9,
    ))  # fmt: skip
    again = world.encode(wish, world.requester)
    with refused(111):
        world.send([*again, *close], [world.requester])
    world.send([*close, revive, *again], [world.requester])
    new = world.job_of(wish)
    assert (new.state, new.settlements, new.paid, new.units_paid, new.shares) == (JobState.OPEN, 0, 0, 0, (0, 0, 0))
    assert (new.verdict, new.worker, new.committee, new.fee_mask, new.slashed) == (None, None, (), 0, 0)
    assert new.open_slot > old.open_slot
    assert world.vault(new.job) == new.budget
    once_signed = world.encode(settlement, world.admin, job=old)
    with refused(240):
        world.send(once_signed, [world.admin])
    world.advance()
    world.submit(chain.Seat(new.job, world.draw(new)))
    with refused(252 if settlement.worker in world.job_of(wish).committee else 225):
        world.send(once_signed, [world.admin])


@pytest.mark.parametrize(("owner", "data"), [(layout.SYSTEM_PROGRAM, b"\x01"), (TOKEN_2022, b"")])
def test_an_address_that_holds_something_is_not_made_anew(world: World, owner: Pubkey, data: bytes) -> None:
    """Nobody but the program could put it there; it asks all the same."""
    wish = world.open_job_wish()
    world.pay(world.requester.pubkey(), wish.budget)
    job = job_id(node_id(world.requester), wish.nonce, wish.spec_hash)
    for address in (layout.vault_address(world.program, job), layout.job_address(world.program, job)):
        world.svm.set_account(address, Account(10**9, data, owner))
        with refused(111):
            world.submit(wish, world.requester)
        world.svm.set_account(address, Account(0, b"", layout.SYSTEM_PROGRAM))
    world.submit(wish, world.requester)


# twice in one transaction


def test_settling_twice_in_one_transaction(world: World, job: JobAccount) -> None:
    *create, precompile, settle = world.encode(world.signed(job, world.settlement(job)), world.admin)
    with refused(240, index=len(create) + 3):
        world.send([*create, precompile, settle, precompile, settle], [world.admin])
    partial = replace(world.settlement(job, Verdict.PARTIAL), units=3)
    *create, precompile, settle = world.encode(world.signed(job, partial), world.admin)
    with refused(242, index=len(create) + 3):
        world.send([*create, precompile, settle, precompile, settle], [world.admin])
    (after,) = world.encode(world.signed(job, replace(partial, sequence=1)), world.admin)[-1:]
    with refused(222, index=len(create) + 2):
        world.send([*create, precompile, settle, after], [world.admin])
    assert world.job(job.job) == job


def test_withdrawing_twice_in_one_transaction(world: World, job: JobAccount) -> None:
    world.settle(job)
    world.submit(chain.CloseJob(job.job))
    member = world.members(job)[0]
    earned = world.encode(chain.WithdrawEarned(node_id(member)), world.admin)
    with refused(172, index=3):
        world.send([*earned, *earned], [world.admin])
    world.submit(chain.RequestUnstake(), member)
    world.advance(seconds=UNBONDING_S)
    stake = world.encode(chain.WithdrawStake(node_id(member)), world.admin)
    with refused(170, index=3):
        world.send([*stake, *stake], [world.admin])
    share = world.node(member).earned
    world.send([*earned, *stake], [world.admin])
    assert world.tokens(Pubkey(world.node(member).payout)) == share + MINIMUM_STAKE


def test_a_conviction_and_a_withdrawal_in_one_transaction(world: World, job: JobAccount) -> None:
    """Whoever is first has the stake; it is never paid to both."""
    liar = world.members(job)[0]
    world.submit(chain.RequestUnstake(), liar)
    world.advance(seconds=UNBONDING_S)
    slash = world.encode(world.contradiction(job, liar), world.admin)
    withdraw = world.encode(chain.WithdrawStake(node_id(liar)), world.admin)
    with refused(170):
        world.send([*slash, *withdraw], [world.admin])
    world.send([*withdraw, *slash], [world.admin])
    assert world.tokens(Pubkey(world.node(liar).payout)) == MINIMUM_STAKE
    assert (world.tokens(world.treasury.pubkey()), world.node(liar).slashed) == (0, 0)
    assert world.node(liar).retired
    assert world.stakes() == 4 * MINIMUM_STAKE


@pytest.mark.parametrize("late", [False, True])
def test_settling_and_refunding_in_one_transaction(world: World, job: JobAccount, late: bool) -> None:
    world.advance(seconds=job.refund_at_s - world.unix_s - (not late))
    settle = world.encode(world.signed(job, world.settlement(job)), world.admin)
    refund = world.encode(chain.RefundExpired(job.job), world.admin)
    with refused(241 if late else 261):
        world.send([*settle, *refund], [world.admin])
    with refused(181 if late else 262):
        world.send([*refund, *settle], [world.admin])
    assert world.vault(job.job) == job.budget


def test_fraud_and_a_withdrawal_of_the_same_stake(world: World, job: JobAccount) -> None:
    """What FRAUD takes waits in the stake vault, but not in the Node: nobody withdraws it in the meantime."""
    worker = world.outsider(job)
    world.submit(chain.RequestUnstake(), worker)
    world.settle(job, Verdict.FRAUD, worker)
    taken = world.node(worker).slashed
    world.advance(seconds=UNBONDING_S)
    world.submit(chain.WithdrawStake(node_id(worker)))
    assert world.tokens(Pubkey(world.node(worker).payout)) == MINIMUM_STAKE - taken
    world.submit(chain.CloseJob(job.job))
    assert world.tokens(world.treasury.pubkey()) == taken
    assert world.stakes() == 4 * MINIMUM_STAKE


# one account in two roles


def test_one_account_in_two_roles_of_a_settlement(world: World, job: JobAccount) -> None:
    *create, precompile, settle = world.encode(world.signed(job, world.settlement(job)), world.admin)
    vault, payout, treasury = (settle.accounts[at].pubkey for at in (5, 6, 7))
    for changes, code in (
        ({6: vault}, 145), ({7: vault}, 146), ({6: treasury}, 145), ({7: payout}, 146), ({5: payout}, 148),
        ({5: treasury}, 148), ({6: vault, 7: vault}, 145), ({4: settle.accounts[0].pubkey}, 162),
        ({0: settle.accounts[4].pubkey}, 182), ({1: settle.accounts[4].pubkey}, 122),
        ({4: layout.node_address(world.program, job.committee[0])}, 160),
    ):  # fmt: skip
        with refused(code):
            world.send([*create, precompile, _at(settle, changes)], [world.admin])
    assert world.job(job.job) == job


def test_one_account_in_two_roles_of_an_ending(world: World, job: JobAccount) -> None:
    world.settle(job)
    create, close = world.encode(chain.CloseJob(job.job), world.admin)
    vault, refund, stakes, first, second = (close.accounts[at].pubkey for at in (2, 4, 5, 7, 8))
    for changes, code in (
        ({4: vault}, 147), ({4: stakes}, 147), ({5: vault}, 130), ({2: stakes}, 148), ({2: refund}, 148),
        ({8: first}, 160), ({7: second, 8: first}, 160), ({5: refund}, 130), ({3: close.accounts[0].pubkey}, 188),
    ):  # fmt: skip
        with refused(code):
            world.send([create, _at(close, changes)], [world.admin])
    world.send([create, close], [world.admin])


def test_one_node_twice_among_those_that_are_credited(world: World) -> None:
    """Nor may a share go to a node that sits on the committee but is owed nothing."""
    job = world.seated_job(world.open_job_wish(nonce=b"\x02" * 32))
    world.submit(world.signed(job, replace(world.settlement(job), fee_mask=0b101)))
    create, close = world.encode(chain.CloseJob(job.job), world.admin)
    for at, member in ((7, 1), (7, 2), (8, 0), (8, 1)):
        node = layout.node_address(world.program, job.committee[member])
        with refused(160):
            world.send([create, _at(close, {at: node})], [world.admin])
    world.send([create, close], [world.admin])
    assert [world.node(member).earned > 0 for member in world.members(job)] == [True, False, True]


# token accounts and mints that only look right


def _disguised(world: World, address: Pubkey) -> Account:
    """The account now belongs to Token-2022, byte for byte as before; returns what it was."""
    old = world.svm.get_account(address)
    assert old is not None
    world.svm.set_account(address, Account(old.lamports, old.data, TOKEN_2022))
    return old


@pytest.mark.parametrize("at", [5, 6, 7])
def test_token_2022_accounts_at_the_right_addresses_are_not_paid(world: World, job: JobAccount, at: int) -> None:
    *create, precompile, settle = world.encode(world.signed(job, world.settlement(job)), world.admin)
    world.send(create, [world.admin])
    address = settle.accounts[at].pubkey
    old = _disguised(world, address)
    with refused(140):
        world.send([precompile, settle], [world.admin])
    world.svm.set_account(address, old)
    world.send([precompile, settle], [world.admin])


@pytest.mark.parametrize("at", [2, 4, 5])
def test_nor_do_they_end_a_job(world: World, job: JobAccount, at: int) -> None:
    world.settle(job)
    create, close = world.encode(chain.CloseJob(job.job), world.admin)
    world.send([create], [world.admin])
    address = close.accounts[at].pubkey
    old = _disguised(world, address)
    with refused(140):
        world.send([close], [world.admin])
    world.svm.set_account(address, old)
    world.send([close], [world.admin])


def test_nor_does_a_stake_go_there(world: World) -> None:
    node = world.wallet("late")
    world.pay(node.pubkey(), MINIMUM_STAKE)
    wish = chain.Register(b"\x01" * 32, MicroCyx(MINIMUM_STAKE), bytes(node.pubkey()))
    _disguised(world, layout.stake_vault_address(world.program))
    with refused(140):
        world.submit(wish, node)


def test_a_mint_of_token_2022_is_no_mint(world: World) -> None:
    fresh = World(initialise=False)
    create, initialise = fresh.initialise_instructions()
    fresh.send([create], [fresh.admin])
    _disguised(fresh, fresh.mint)
    with refused(124):
        fresh.send([initialise], [fresh.admin])
    account = fresh.ata(fresh.treasury.pubkey())  # a token account is longer than a mint, and of the right program
    with refused(124):
        fresh.send([_at(initialise, {3: account})], [fresh.admin])


def test_a_budget_of_another_mint_buys_nothing(world: World) -> None:
    other = world.new_mint("other mint")
    world.pay(world.requester.pubkey(), 10**9, other)
    world.pay(world.requester.pubkey(), 10**9)
    (open_job,) = world.encode(world.open_job_wish(), world.requester)
    theirs = world.ata(world.requester.pubkey(), other)
    for changes, code in (({5: other, 4: theirs}, 123), ({5: other}, 123), ({4: theirs}, 142)):
        with refused(code):
            world.send([_at(open_job, changes)], [world.requester])
    world.send([open_job], [world.requester])


def test_an_owner_that_gives_its_payout_account_away_is_still_paid_there(world: World, job: JobAccount) -> None:
    """Who may spend it is its own affair: the address decides, so nobody blocks a settlement like this."""
    worker = world.outsider(job)
    *create, precompile, settle = world.encode(world.signed(job, world.settlement(job)), world.admin)
    world.send(create, [world.admin])
    payout = world.ata(Pubkey(world.node(worker).payout))
    world.patch(payout, 32, bytes(key("stranger").pubkey()))
    world.send([precompile, settle], [world.admin])
    assert world.tokens_at(payout) == 36 * MICRO


# sysvars


@pytest.mark.parametrize("name", ["settle", "slash"])
def test_a_forged_instructions_sysvar(world: World, job: JobAccount, name: str) -> None:
    """Bytes that say that the precompile verified everything, at an address that anyone could have made."""
    if name == "settle":
        *_, precompile, step = world.encode(world.signed(job, world.settlement(job, Verdict.UNSOLD)), world.admin)
        at = 2
    else:
        *_, precompile, step = world.encode(world.contradiction(job, world.members(job)[0]), world.admin)
        at = 5
    said = bytes(precompile.data)
    entry = (0).to_bytes(2, "little") + bytes(precompile.program_id) + len(said).to_bytes(2, "little") + said
    forged = (2).to_bytes(2, "little") + (6).to_bytes(2, "little") * 2 + entry + (1).to_bytes(2, "little")
    place = Pubkey.new_unique()
    world.svm.set_account(place, Account(10**9, forged, world.admin.pubkey()))
    with refused(220):
        world.send([_at(step, {at: place})], [world.admin])
    with refused(220):
        world.send([precompile, _at(step, {at: layout.SLOT_HASHES_SYSVAR})], [world.admin])
    world.send([precompile, step], [world.admin])


def test_slot_hashes_of_ones_own(world: World) -> None:
    """A requester that could choose the hash could choose its committee."""
    job = world.open_job()
    world.advance()
    (seat,) = world.encode(chain.Seat(job.job, world.draw(job)), world.admin)
    place = Pubkey.new_unique()
    forged = (1).to_bytes(8, "little") + job.open_slot.to_bytes(8, "little") + bytes(32)
    world.svm.set_account(place, Account(10**9, forged, world.requester.pubkey()))
    for address in (place, layout.INSTRUCTIONS_SYSVAR):
        with refused(203):
            world.send([_at(seat, {2: address})], [world.admin])
    world.send([seat], [world.admin])


def test_another_instruction_between_the_statements_and_the_conviction(world: World, job: JobAccount) -> None:
    liar = world.members(job)[0]
    create, precompile, slash = world.encode(world.contradiction(job, liar), world.admin)
    for instructions, code in (([precompile, create, slash], 222), ([create, slash], 222), ([slash, precompile], 221)):
        with refused(code):
            world.send(instructions, [world.admin])
    assert world.node(liar).stake == MINIMUM_STAKE


# dust


def test_prices_too_small_to_share(world: World) -> None:
    """Fees round down to nothing, and what does not divide among the seats returns to the requester."""
    for nonce, price, payout, treasury, each in ((5, 1, 1, 0, 0), (6, 9, 9, 0, 0), (7, 10, 9, 1, 0), (8, 99, 90, 8, 0),
                                                 (9, 150, 135, 12, 1)):  # fmt: skip
        job = world.seated_job(world.open_job_wish(nonce=bytes([nonce]) * 32, budget=price))
        worker = world.outsider(job)
        before = world.tokens(Pubkey(world.node(worker).payout)), world.tokens(world.treasury.pubkey())
        earned = [world.node(member).earned for member in world.members(job)]
        world.submit(world.signed(job, replace(world.settlement(job), price=MicroCyx(price), fee_mask=0b111)))
        after = world.tokens(Pubkey(world.node(worker).payout)), world.tokens(world.treasury.pubkey())
        assert (after[0] - before[0], after[1] - before[1]) == (payout, treasury)
        home = world.tokens(world.requester.pubkey())
        world.submit(chain.CloseJob(job.job))
        assert world.tokens(world.requester.pubkey()) - home == price - payout - treasury - 3 * each
        assert [world.node(m).earned for m in world.members(job)] == [old + each for old in earned]


def test_lamports_sent_to_a_job_go_home_with_it(world: World, job: JobAccount) -> None:
    for address in (layout.job_address(world.program, job.job), layout.vault_address(world.program, job.job)):
        sent = TransferParams(from_pubkey=world.admin.pubkey(), to_pubkey=address, lamports=1)
        world.send([transfer(sent)], [world.admin])
    held = sum(
        world.lamports(at)
        for at in (layout.job_address(world.program, job.job), layout.vault_address(world.program, job.job))
    )
    world.settle(job, Verdict.UNSOLD)
    before = world.lamports(world.requester.pubkey())
    world.submit(chain.CloseJob(job.job))
    assert world.lamports(world.requester.pubkey()) - before == held - 5_000 * (job.m + 2)


def test_a_stake_vault_with_gifts_owes_no_more(world: World) -> None:
    """Tokens that a stranger sends there belong to nobody; stakes are paid as they are written down."""
    rich: Keypair = world.wallet("rich")
    world.pay(rich.pubkey(), 5)
    accounts = [
        AccountMeta(world.ata(rich.pubkey()), False, True),
        AccountMeta(layout.stake_vault_address(world.program), False, True),
        AccountMeta(rich.pubkey(), True, False),
    ]
    world.send([Instruction(layout.TOKEN_PROGRAM, b"\x03" + (5).to_bytes(8, "little"), accounts)], [rich])
    node = world.nodes[0]
    world.submit(chain.RequestUnstake(), node)
    world.advance(seconds=UNBONDING_S)
    world.submit(chain.WithdrawStake(node_id(node)))
    assert world.tokens(Pubkey(world.node(node).payout)) == MINIMUM_STAKE
    assert world.stakes() == 4 * MINIMUM_STAKE + 5
