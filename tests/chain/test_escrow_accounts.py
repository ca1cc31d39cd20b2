"""Accounts exchanged, prepared beforehand, closed or revived: every one is checked, and none can block a payment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain_world import CLASS, MINIMUM_STAKE, World, key, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobAccount
from cyxnode.protocol.units import MicroCyx

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


def _close(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.settle(world.seated_job())
    return world.encode(chain.CloseJob(job.job), world.admin), world.admin


def _refund(world: World) -> tuple[list[Instruction], Keypair]:
    job = world.open_job()
    world.advance(seconds=job.refund_at_s - world.unix_s)
    return world.encode(chain.RefundExpired(job.job), world.admin), world.admin


STEPS: dict[str, tuple[Step, list[int]]] = {
    # for each account of the instruction, the error when another one is put in its place
    "initialise": (_initialise, [0, 120, 130, 124, 106, 107]),
    "register": (_register, [0, 121, 160, 143, 130, 106, 107]),
    "open_job": (_open, [0, 121, 180, 148, 143, 123, 106, 107]),
    "seat": (_seat, [181, 121, 203, 161, 161, 161]),
    "settle": (_settle, [181, 121, 220, 161, 148, 145, 146, 106]),
    "close_job": (_close, [181, 121, 148, 188, 147, 106, 130, 161, 161]),
    "refund_expired": (_refund, [181, 121, 148, 188, 147, 106]),
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


def _written(instructions: list[Instruction]) -> set[Pubkey]:
    return {account.pubkey for step in instructions for account in step.accounts if account.is_writable}


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
    for data, count, error in ((b"\x07", 0, 100), (b"", 0, 101), (b"\x03", 21, 102)):
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
        (3, layout.node_address(world.program, bytes(second.pubkey())), 160),
        (4, layout.vault_address(world.program, other.job), 148),
        (5, world.ata(key("n0/payout").pubkey()), 145) if worker != world.nodes[0] else (5, impostor, 145),
        (5, world.ata(worker.pubkey()), 145),  # the node's own wallet is not its payout
        (6, impostor, 146),
        (5, foreign, 145),
        (6, foreign, 146),
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
        (6, layout.vault_address(world.program, other.job), 130),
        (7, layout.node_address(world.program, job.committee[2]), 160),
    ):
        with refused(error):
            world.send([create, _with_account(close, at, account)], [world.admin])
    world.send([create, close], [world.admin])


def test_a_forged_account_of_another_owner_is_not_believed() -> None:
    """The right bytes at another address, owned by another program, or by ours: none is taken for the Config."""
    world = World(3)
    job = world.open_job()
    world.advance()
    (seat,) = world.encode(chain.Seat(job.job, world.draw(job)), world.admin)
    real = world.svm.get_account(layout.config_address(world.program))
    assert real is not None
    forged = Pubkey.new_unique()
    world.svm.set_account(forged, real)
    with refused(120):
        world.send([_with_account(seat, 1, forged)], [world.admin])
    real = world.svm.get_account(layout.job_address(world.program, job.job))
    assert real is not None
    world.svm.set_account(forged, real)
    with refused(180):
        world.send([_with_account(seat, 0, forged)], [world.admin])
    node = layout.node_address(world.program, job.requester)
    copied = world.svm.get_account(layout.node_address(world.program, node_id(world.nodes[0])))
    assert copied is not None
    world.svm.set_account(node, copied)
    for at in (3, 4, 5):
        with refused(160):
            world.send([_with_account(seat, at, node)], [world.admin])
    for at, error in ((0, 182), (1, 122), (3, 162)):
        address = [layout.config_address(world.program), layout.job_address(world.program, job.job)][at == 1]
        with refused(error):
            world.send([_with_account(seat, at, address)], [world.admin])
