"""Accounts exchanged, prepared beforehand, closed or revived: every one is checked, and none can block a payment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain_world import CLASS, MINIMUM_STAKE, UNBONDING_S, World, key, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobAccount, Verdict
from cyxnode.protocol.units import MicroCyx

TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
Step = Callable[[World], tuple[list[Instruction], Keypair]]


def _initialise(world: World) -> tuple[list[Instruction], Keypair]:
    return world.initialise_instructions(), world.admin


def _register(world: World) -> tuple[list[Instruction], Keypair]:
    keypair = world.wallet("new")
    world.pay(keypair.pubkey(), MINIMUM_STAKE)
    wish = chain.Register(CLASS, MicroCyx(MINIMUM_STAKE), bytes(keypair.pubkey()))
    return world.encode(wish, keypair), keypair


def _open(world: World) -> tuple[list[Instruction], Keypair]:
    wish = world.open_job_wish()
    world.pay(world.requester.pubkey(), wish.budget)
    return world.encode(wish, world.requester), world.requester


def _seat(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.open_job()
    world.advance()
    return world.encode(chain.Seat(job.job, world.draw(job)), world.admin), world.admin


def _settle(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.seated_job()
    return world.encode(world.signed(job, world.settlement(job)), world.admin), world.admin


def _partial(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.seated_job()
    wish = replace(world.settlement(job, Verdict.PARTIAL), units=3)
    return world.encode(world.signed(job, wish), world.admin), world.admin


def _fraud(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.seated_job()
    return world.encode(world.signed(job, world.settlement(job, Verdict.FRAUD)), world.admin), world.admin


def _close_fraud(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.settle(world.seated_job(), Verdict.FRAUD)
    return world.encode(chain.CloseJob(job.job), world.admin), world.admin


def _request_unstake(world: World) -> tuple[list[Instruction], Keypair]:
    return world.encode(chain.RequestUnstake(), world.nodes[0]), world.nodes[0]


def _withdraw_stake(world: World) -> tuple[list[Instruction], Keypair]:
    world.submit(chain.RequestUnstake(), world.nodes[0])
    world.advance(seconds=UNBONDING_S)
    return world.encode(chain.WithdrawStake(node_id(world.nodes[0])), world.admin), world.admin


def _withdraw_earned(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.settle(world.seated_job())
    world.submit(chain.CloseJob(job.job))
    return world.encode(chain.WithdrawEarned(job.committee[0]), world.admin), world.admin


def _slash(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.seated_job()
    return world.encode(world.contradiction(job, world.members(job)[0]), world.admin), world.admin


def _close(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.settle(world.seated_job())
    return world.encode(chain.CloseJob(job.job), world.admin), world.admin


def _refund(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.open_job()
    world.advance(seconds=job.refund_at_s - world.unix_s)
    return world.encode(chain.RefundExpired(job.job), world.admin), world.admin


STEPS: dict[str, tuple[Step, list[int]]] = {
    # for each account of the instruction, the error when another one is put in its place
    "initialise": (_initialise, [0, 120, 130, 124, 106, 107, 132]),
    "register": (_register, [0, 121, 160, 140, 130, 106, 107]),
    "open_job": (_open, [0, 121, 180, 148, 140, 123, 106, 107]),
    "seat": (_seat, [181, 121, 203, 0, 161, 161, 161]),
    "settle": (_settle, [181, 121, 220, 0, 161, 148, 145, 146, 106]),
    "settle PARTIAL": (_partial, [181, 121, 220, 0, 161, 148, 145, 146, 106]),
    "settle FRAUD": (_fraud, [181, 121, 220, 0, 161]),
    "close_job": (_close, [181, 121, 148, 188, 147, 130, 106, 161, 161]),
    "close_job FRAUD": (_close_fraud, [181, 121, 148, 188, 147, 130, 106, 146]),
    "refund_expired": (_refund, [181, 121, 148, 188, 147, 130, 106]),
    "request_unstake": (_request_unstake, [0, 121, 161]),
    "withdraw_stake": (_withdraw_stake, [121, 161, 130, 145, 106]),
    "withdraw_earned": (_withdraw_earned, [121, 161, 130, 145, 106]),
    "slash_equivocation": (_slash, [121, 161, 130, 146, 106, 220]),
}


def _with_account(step: Instruction, at: int, account: Pubkey) -> Instruction:
    accounts = list(step.accounts)
    accounts[at] = AccountMeta(account, accounts[at].is_signer, accounts[at].is_writable)
    return Instruction(step.program_id, bytes(step.data), accounts)


@pytest.mark.parametrize("name", STEPS)
def test_an_unknown_account_in_each_place(name: str) -> None:
    prepare, errors = STEPS[name]
    world = World(0 if name == "initialise" else 5, initialise=name != "initialise")
    (*before, step), signer = prepare(world)
    assert len(step.accounts) == len(errors)
    for at, error in enumerate(errors):
        if error:
            with refused(error):
                world.send([*before, _with_account(step, at, Pubkey.new_unique())], [signer])
    world.send([*before, step], [signer])


@pytest.mark.parametrize("name", STEPS)
def test_every_other_account_of_the_instruction_in_each_place(name: str) -> None:
    prepare, _ = STEPS[name]
    world = World(0 if name == "initialise" else 5, initialise=name != "initialise")
    (*before, step), signer = prepare(world)
    for at, old in enumerate(step.accounts):
        for new in step.accounts:
            if new.pubkey == old.pubkey or old.is_signer:
                continue
            with pytest.raises(Exception, match="InstructionError"):
                world.send([*before, _with_account(step, at, new.pubkey)], [signer])
    world.send([*before, step], [signer])


@pytest.mark.parametrize("name", STEPS)
def test_one_account_more_or_less(name: str) -> None:
    prepare, _ = STEPS[name]
    world = World(0 if name == "initialise" else 5, initialise=name != "initialise")
    (*before, step), signer = prepare(world)
    for accounts in (step.accounts[:-1], [*step.accounts, step.accounts[-1]]):
        with refused(103):
            world.send([*before, Instruction(step.program_id, bytes(step.data), accounts)], [signer])
    with refused(103):
        world.send([*before, Instruction(step.program_id, bytes(step.data), [])], [signer])
    for data in (bytes(step.data) + b"\0", bytes(step.data)[:1] + b"\0" * 3):
        with refused(101):
            world.send([*before, Instruction(step.program_id, data, step.accounts)], [signer])


@pytest.mark.parametrize("name", STEPS)
def test_writable_accounts_must_be_writable(name: str) -> None:
    prepare, _ = STEPS[name]
    world = World(0 if name == "initialise" else 5, initialise=name != "initialise")
    (*before, step), signer = prepare(world)
    tried = 0
    for at, account in enumerate(step.accounts):
        if account.is_writable and not account.is_signer and account.pubkey not in _written(before):
            accounts = list(step.accounts)
            accounts[at] = AccountMeta(account.pubkey, False, False)
            tried += 1
            with refused(105):
                world.send([*before, Instruction(step.program_id, bytes(step.data), accounts)], [signer])
    assert tried


READ_THE_CLOCK = ("register", "open_job", "seat", "settle", "refund_expired", "request_unstake", "withdraw_stake")


@pytest.mark.parametrize("name", READ_THE_CLOCK)
def test_a_clock_before_1970_is_refused(name: str) -> None:
    """Seconds are unsigned everywhere else: a negative time would be one far in the future."""
    prepare, _ = STEPS[name]
    world = World(5)
    (*before, step), signer = prepare(world)
    if before and before[0].program_id == layout.ASSOCIATED_TOKEN_PROGRAM:
        world.send([i for i in before if i.program_id == layout.ASSOCIATED_TOKEN_PROGRAM], [signer])
        before = [i for i in before if i.program_id != layout.ASSOCIATED_TOKEN_PROGRAM]
    then, world.unix_s = world.unix_s, -1
    world.advance(slots=0)
    with refused(108):
        world.send([*before, step], [signer])
    world.unix_s = then
    world.advance(slots=0)
    world.send([*before, step], [signer])


def _written(instructions: list[Instruction]) -> set[Pubkey]:
    return {account.pubkey for step in instructions for account in step.accounts if account.is_writable}


@pytest.mark.parametrize("name", ["seat", "settle"])
def test_the_submitter_must_sign(name: str) -> None:
    prepare, _ = STEPS[name]
    world = World(5)
    (*before, step), signer = prepare(world)
    for is_signer, is_writable, error in ((False, True, 104), (True, False, 105)):
        accounts = list(step.accounts)
        accounts[3] = AccountMeta(signer.pubkey(), is_signer, is_writable)
        changed = Instruction(step.program_id, bytes(step.data), accounts)
        payer = world.wallet("payer")
        with refused(error):
            world.send([before[-1], changed] if before else [changed], [payer, signer] if is_signer else [payer])


def test_a_node_asks_itself_to_unbond() -> None:
    world = World(1)
    (step,), node = _request_unstake(world)
    accounts = [AccountMeta(node.pubkey(), False, False), *step.accounts[1:]]
    with refused(104):
        world.send([Instruction(step.program_id, bytes(step.data), accounts)], [world.admin])
    accounts = [AccountMeta(world.admin.pubkey(), True, False), *step.accounts[1:]]
    with refused(160):
        world.send([Instruction(step.program_id, bytes(step.data), accounts)], [world.admin])


@pytest.mark.parametrize("name", ["initialise", "register", "open_job"])
def test_the_payer_must_sign(name: str) -> None:
    prepare, _ = STEPS[name]
    world = World(initialise=name != "initialise")
    (*before, step), signer = prepare(world)
    accounts = [AccountMeta(step.accounts[0].pubkey, False, True), *step.accounts[1:]]
    unsigned = Instruction(step.program_id, bytes(step.data), accounts)
    accounts = [AccountMeta(step.accounts[0].pubkey, True, False), *step.accounts[1:]]
    unwilling = Instruction(step.program_id, bytes(step.data), accounts)
    if before:
        world.send(before, [signer])
    with refused(104):
        world.send([unsigned], [world.wallet("payer")])
    with refused(105):
        world.send([unwilling], [world.wallet("payer"), signer])


def test_unknown_instructions_and_floods_of_accounts() -> None:
    world = World()
    for data, count, error in ((b"\x0b", 0, 100), (b"", 0, 101), (b"\x03", 21, 102)):
        accounts = [AccountMeta(Pubkey.new_unique(), False, False) for _ in range(count)]
        with refused(error):
            world.send([Instruction(world.program, data, accounts)], [world.admin])


def _other_job(world: World) -> JobAccount:
    return world.seated_job(world.open_job_wish(nonce=b"\x02" * 32))


def test_accounts_of_the_right_kind_but_of_somebody_else() -> None:
    world = World(5)
    job, other = world.seated_job(), _other_job(world)
    *before, settle = world.encode(world.signed(job, world.settlement(job)), world.admin)
    worker = world.outsider(job)
    second = next(n for n in world.nodes if n != worker and node_id(n) not in job.committee)
    world.pay(second.pubkey(), 0)
    world.pay(key("impostor").pubkey(), 0)
    other_mint = world.new_mint("other mint")
    world.pay(key("impostor").pubkey(), 0, other_mint)
    impostor = world.ata(key("impostor").pubkey())
    foreign = world.ata(key("impostor").pubkey(), other_mint)
    for at, account, error in (
        (4, layout.node_address(world.program, bytes(second.pubkey())), 160),
        (5, layout.vault_address(world.program, other.job), 148),
        (6, world.ata(key("n0/payout").pubkey()), 145) if worker != world.nodes[0] else (6, impostor, 145),
        (6, world.ata(worker.pubkey()), 145),  # the node's own wallet is not its payout
        (7, impostor, 146),
        (6, foreign, 145),
        (7, foreign, 146),
    ):
        with refused(error):
            world.send([*before, _with_account(settle, at, account)], [world.admin])
    world.send([*before, settle], [world.admin])

    create, close = world.encode(chain.CloseJob(job.job), world.admin)
    for at, account, error in (
        (2, layout.vault_address(world.program, other.job), 148),
        (3, world.admin.pubkey(), 188),
        (4, impostor, 147),
        (4, foreign, 147),
        (5, layout.vault_address(world.program, other.job), 130),
        (7, layout.node_address(world.program, job.committee[2]), 160),
    ):
        with refused(error):
            world.send([create, _with_account(close, at, account)], [world.admin])
    world.send([create, close], [world.admin])


@pytest.mark.parametrize(("name", "at"), [("register", 3), ("open_job", 4)])
def test_nobody_pays_from_an_account_of_somebody_else(name: str, at: int) -> None:
    """Nor from one of another mint, or of another token program that looks the same."""
    prepare, _ = STEPS[name]
    world = World(5)
    (*before, step), signer = prepare(world)
    victim = key("victim").pubkey()
    world.pay(victim, 10**9)
    with refused(143):
        world.send([*before, _with_account(step, at, world.ata(victim))], [signer])
    other = world.new_mint("other mint")
    world.pay(signer.pubkey(), 10**9, other)
    with refused(142):
        world.send([*before, _with_account(step, at, world.ata(signer.pubkey(), other))], [signer])
    real = world.svm.get_account(step.accounts[at].pubkey)
    assert real is not None
    copied = Pubkey.new_unique()
    world.svm.set_account(copied, Account(real.lamports, real.data, TOKEN_2022))
    with refused(140):
        world.send([*before, _with_account(step, at, copied)], [signer])
    world.send([*before, step], [signer])


def test_a_forged_account_of_another_owner_is_not_believed() -> None:
    """The right bytes at another address, though the runtime would let nobody write them there."""
    world = World(3)
    job = world.open_job()
    world.advance()
    (seat,) = world.encode(chain.Seat(job.job, world.draw(job)), world.admin)
    forged = Pubkey.new_unique()
    real = world.svm.get_account(layout.job_address(world.program, job.job))
    assert real is not None
    world.svm.set_account(forged, real)
    with refused(180):
        world.send([_with_account(seat, 0, forged)], [world.admin])
    node = layout.node_address(world.program, job.requester)
    copied = world.svm.get_account(layout.node_address(world.program, node_id(world.nodes[0])))
    assert copied is not None
    world.svm.set_account(node, copied)
    for at in (4, 5, 6):
        with refused(160):
            world.send([_with_account(seat, at, node)], [world.admin])
    for at, error in ((0, 182), (1, 122), (4, 162)):
        address = [layout.config_address(world.program), layout.job_address(world.program, job.job)][at == 1]
        with refused(error):
            world.send([_with_account(seat, at, address)], [world.admin])


def _changed(data: bytes, how: str) -> bytes:
    return {
        "version": data[:1] + b"\x03" + data[2:], "tag": b"\xc4" + data[1:], "longer": data + bytes(8),
        "shorter": data[:-8],
    }[how]  # fmt: skip


@pytest.mark.parametrize("how", ["version", "tag", "longer", "shorter"])
def test_accounts_of_another_layout_are_not_read(how: str) -> None:
    """Of a later version of the program, say: it owns them, and they lie at the right addresses."""
    world = World(3)
    job = world.open_job()
    world.advance()
    (seat,) = world.encode(chain.Seat(job.job, world.draw(job)), world.admin)
    for at, error in ((0, 182), (1, 122), (4, 162)):
        address = seat.accounts[at].pubkey
        old = world.svm.get_account(address)
        assert old is not None
        world.svm.set_account(address, Account(old.lamports, _changed(bytes(old.data), how), old.owner))
        with refused(error):
            world.send([seat], [world.admin])
        world.svm.set_account(address, old)
    world.send([seat], [world.admin])
    (unstake,) = world.encode(chain.RequestUnstake(), world.nodes[0])
    address = unstake.accounts[2].pubkey
    old = world.svm.get_account(address)
    assert old is not None
    world.svm.set_account(address, Account(old.lamports, _changed(bytes(old.data), how), old.owner))
    with refused(162):
        world.send([unstake], [world.nodes[0]])
