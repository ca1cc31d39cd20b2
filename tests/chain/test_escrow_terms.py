"""Terms out of bounds: what initialise, register and open_job refuse before any money moves."""

from __future__ import annotations

import struct
from contextlib import nullcontext
from dataclasses import replace

import pytest
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.rent import Rent

from chain_world import CLASS, GRACE_S, MINIMUM_STAKE, UNBONDING_S, World, deposit, key, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.hashing import job_id
from cyxnode.protocol.limits import AMOUNT_MAX
from cyxnode.protocol.units import MicroCyx

Changes = dict[str, object]


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [
        (4, (1001).to_bytes(2, "little"), 125),
        (6, (10_001).to_bytes(2, "little"), 126),
        (8, bytes(32), 131),
        (40, bytes(32), 129),
        (72, bytes(8), 127),
        (72, (AMOUNT_MAX + 1).to_bytes(8, "little"), 127),
        (80, ((1 << 40) + 1).to_bytes(8, "little"), 128),
        (88, (86_400).to_bytes(8, "little"), 128),  # the grace is not below the unbonding time
    ],
)
def test_initialise_refuses_terms_out_of_bounds(offset: int, value: bytes, code: int) -> None:
    world = World(initialise=False)
    create, instruction = world.initialise_instructions()
    data = bytearray(instruction.data)
    data[offset : offset + len(value)] = value
    with refused(code, index=1):
        world.send([create, Instruction(world.program, bytes(data), instruction.accounts)], [world.admin])


def test_initialise_takes_terms_at_their_bounds() -> None:
    world = World(initialise=False)
    create, instruction = world.initialise_instructions()
    bounds = struct.pack("<QQQ", AMOUNT_MAX, 1 << 40, (1 << 40) - 1)
    data = bytes(instruction.data[:4]) + struct.pack("<HH", 1000, 10_000) + bytes(instruction.data[8:72]) + bounds
    world.send([create, Instruction(world.program, data, instruction.accounts)], [world.admin])
    config = world.config()
    assert (config.fee_bps, config.verifier_share_bps, config.minimum_stake) == (1000, 10_000, AMOUNT_MAX)
    assert (config.unbonding_s, config.grace_s) == (1 << 40, (1 << 40) - 1)


def test_only_the_upgrade_authority_initialises() -> None:
    """Else anyone could be first, with a treasury and a mint of its own."""
    world = World(initialise=False)
    for authority in (key("somebody").pubkey(), None):
        world.set_authority(authority)
        with refused(133, index=1):
            world.send(world.initialise_instructions(), [world.admin])
    address = layout.program_data_address(world.program)
    world.set_authority(world.admin.pubkey())
    right = world.svm.get_account(address)
    assert right is not None
    data = bytes(right.data)
    for owner, wrong in (
        (world.program, data),  # not the loader's
        (right.owner, data[:44]),
        (right.owner, b"\x02" + data[1:]),  # another kind of account of the loader
    ):
        world.svm.set_account(address, Account(right.lamports, wrong, owner))
        with refused(132, index=1):
            world.send(world.initialise_instructions(), [world.admin])
    world.svm.set_account(address, right)
    world.send(world.initialise_instructions(), [world.admin])


def test_the_authority_over_another_program_is_none_over_this_one() -> None:
    """Anyone can deploy a program and is then named in its data account; nor is a key that was once the authority."""
    world = World(initialise=False)
    create, initialise = world.initialise_instructions()
    real = world.svm.get_account(layout.program_data_address(world.program))
    assert real is not None
    other = Pubkey.new_unique()
    world.svm.set_account(other, real)
    accounts = [*initialise.accounts[:6], AccountMeta(other, False, False)]
    with refused(132):
        world.send([create, Instruction(world.program, bytes(initialise.data), accounts)], [world.admin])
    renounced = bytes(real.data[:12]) + b"\0" + bytes(real.data[13:])
    world.svm.set_account(layout.program_data_address(world.program), Account(real.lamports, renounced, real.owner))
    with refused(133):
        world.send([create, initialise], [world.admin])


def test_initialise_happens_once() -> None:
    world = World()
    with refused(111, index=1):
        world.send(world.initialise_instructions(), [world.admin])


def test_initialise_refuses_a_mint_of_another_token_program() -> None:
    world = World(initialise=False)
    mint = world.svm.get_account(world.mint)
    assert mint is not None
    create, instruction = world.initialise_instructions()
    world.send([create], [world.admin])
    world.svm.set_account(world.mint, Account(mint.lamports, mint.data, world.program, False, mint.rent_epoch))
    with refused(124):
        world.send([instruction], [world.admin])


def test_initialise_refuses_a_mint_without_six_decimals() -> None:
    world = World(initialise=False)
    world.mint = world.new_mint("coarse", decimals=2)
    with refused(124, index=1):
        world.send(world.initialise_instructions(), [world.admin])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"stake": MINIMUM_STAKE - 1}, 165),
        ({"stake": 0}, 165),
        ({"stake": MINIMUM_STAKE + 1}, 144),
        ({"execution_class": bytes(32)}, 163),
        ({"payout": bytes(32)}, 164),
    ],
)
def test_register_refuses(changes: Changes, code: int) -> None:
    world = World()
    keypair = world.wallet("n0")
    world.pay(keypair.pubkey(), MINIMUM_STAKE)
    wish = chain.Register(CLASS, MicroCyx(MINIMUM_STAKE), bytes(key("payout").pubkey()))
    with refused(code):
        world.submit(replace(wish, **changes), keypair)  # type: ignore[arg-type]
    assert world.stakes() == 0


def test_a_stake_has_a_ceiling() -> None:
    world = World()
    keypair = world.add_node("n0", stake=AMOUNT_MAX)
    assert world.node(keypair).stake == AMOUNT_MAX
    world.pay(keypair.pubkey(), 1)
    with refused(166):
        world.submit(chain.Register(CLASS, MicroCyx(1), bytes(keypair.pubkey())), keypair)
    with refused(166):
        world.add_node("n1", stake=AMOUNT_MAX + 1)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"units_total": 0}, 185),
        ({"execution_class": bytes(32)}, 163),
        ({"work_deadline_s": 1_700_000_000}, 186),
        ({"work_deadline_s": (1 << 40) + 1, "refund_at_s": 1 << 41}, 186),
        ({"refund_at_s": 1_700_000_000 + UNBONDING_S + 1}, 187),
        ({"refund_at_s": 1_700_003_600 + GRACE_S - 1}, 187),
        ({"refund_at_s": (1 << 41) + 1}, 187),
        ({"budget": 51_000_000}, 144),
    ],
)
def test_open_job_refuses(changes: Changes, code: int) -> None:
    world = World()
    wish = world.open_job_wish()
    world.pay(world.requester.pubkey(), wish.budget)
    with refused(code):
        world.submit(replace(wish, **changes), world.requester)  # type: ignore[arg-type]
    assert world.tokens(world.requester.pubkey()) == wish.budget


@pytest.mark.parametrize(
    ("offset", "value", "code"),
    [(8, bytes(8), 183), (8, (AMOUNT_MAX + 1).to_bytes(8, "little"), 183), (1, b"\x04", 184), (1, b"\x01", 184)],
)
def test_open_job_refuses_what_the_client_would_not_send(offset: int, value: bytes, code: int) -> None:
    world = World()
    wish = world.open_job_wish()
    world.pay(world.requester.pubkey(), AMOUNT_MAX)
    (instruction,) = world.encode(wish, world.requester)
    data = bytearray(instruction.data)
    data[offset : offset + len(value)] = value
    with refused(code):
        world.send([Instruction(world.program, bytes(data), instruction.accounts)], [world.requester])


def test_the_latest_time_that_fits() -> None:
    """A job ends before a stake that is liable for it can be withdrawn."""
    world = World()
    wish = replace(world.open_job_wish(), refund_at_s=world.unix_s + UNBONDING_S)
    assert world.open_job(wish).refund_at_s == world.unix_s + UNBONDING_S


@pytest.mark.parametrize("deadline", [1 << 40, (1 << 40) + 1])
def test_the_latest_deadline(deadline: int) -> None:
    """Only a network with a very long unbonding time gets there."""
    world = World()
    for offset, value in ((176, 1 << 40), (184, 0)):
        world.patch(layout.config_address(world.program), offset, value.to_bytes(8, "little"))
    wish = replace(world.open_job_wish(), work_deadline_s=deadline, refund_at_s=deadline)
    with refused(186) if deadline > 1 << 40 else nullcontext():
        world.open_job(wish)


@pytest.mark.parametrize(("threshold", "code"), [(1.0, None), (2.0, None), (1.5, 109)])
def test_rent_is_reckoned_without_floats(threshold: float, code: int | None) -> None:
    world = World()
    world.svm.set_rent(Rent(lamports_per_byte=3480, exemption_threshold=threshold, burn_percent=50))
    world.pay(world.requester.pubkey(), 50_000_000)
    if code is not None:
        with refused(code):
            world.submit(world.open_job_wish(), world.requester)
        return
    world.submit(world.open_job_wish(), world.requester)
    job = world.job_of(world.open_job_wish())
    minimum = (128 + layout.JOB_BYTES) * 3480 * int(threshold)
    assert world.lamports(layout.job_address(world.program, job.job)) == minimum + deposit(job.k)


def test_a_job_opens_once() -> None:
    world = World()
    wish = world.open_job_wish()
    world.open_job(wish)
    with refused(111):
        world.open_job(wish)


def test_too_little_sol_for_rent_is_named() -> None:
    world = World()
    poor = world.wallet("poor", lamports=3_000_000)
    world.pay(poor.pubkey(), 50_000_000)
    with refused(110):
        world.submit(world.open_job_wish(), poor)


@pytest.mark.parametrize("missing", [0, 1])
def test_sol_for_rent_to_the_last_lamport(missing: int) -> None:
    """What lies at the address already counts; somebody else pays the fee."""
    world = World()
    wish, poor, gift = world.open_job_wish(), key("poor"), 10**6
    job = job_id(node_id(poor), wish.nonce, wish.spec_hash)
    rents = [world.svm.minimum_balance_for_rent_exemption(size) for size in (165, layout.JOB_BYTES)]
    world.pay(poor.pubkey(), wish.budget)
    world.svm.airdrop(layout.job_address(world.program, job), gift)
    world.svm.airdrop(poor.pubkey(), sum(rents) + deposit(wish.k) - gift - missing)
    with refused(110) if missing else nullcontext():
        world.send(world.encode(wish, poor), [world.admin, poor])
    assert missing or world.lamports(poor.pubkey()) == 0


@pytest.mark.parametrize("what", ["uninitialised", "a token account that looks like one"])
def test_what_only_has_the_decimals_of_a_mint(what: str) -> None:
    world = World(initialise=False)
    create, initialise = world.initialise_instructions()
    world.send([create], [world.admin])
    real = world.svm.get_account(world.mint)
    assert real is not None
    data = bytearray(real.data)
    if what == "uninitialised":
        data[45] = 0
    else:
        data += bytes(165 - len(data))
        data[108] = 1
    world.svm.set_account(world.mint, Account(10**7, bytes(data), real.owner))
    with refused(124):
        world.send([initialise], [world.admin])


def test_the_first_second_of_all() -> None:
    world = World(1)
    world.unix_s = 0
    world.advance(slots=0)
    world.submit(chain.RequestUnstake(), world.nodes[0])
    assert world.node(world.nodes[0]).unbonding_at_s == UNBONDING_S


def test_a_token_account_of_another_length() -> None:
    world = World()
    node = world.wallet("n0")
    world.pay(node.pubkey(), MINIMUM_STAKE)
    address = world.ata(node.pubkey())
    real = world.svm.get_account(address)
    assert real is not None
    wish = chain.Register(CLASS, MicroCyx(MINIMUM_STAKE), bytes(key("payout").pubkey()))
    for data in (bytes(real.data) + bytes(8), bytes(real.data[:-8])):
        world.svm.set_account(address, Account(10**7, data, real.owner))
        with refused(140):
            world.submit(wish, node)
    world.svm.set_account(address, real)
    world.submit(wish, node)
