"""What the program refuses before money can move: wrong terms, wrong stakes, and committees nobody drew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.rent import Rent

from chain_world import CLASS, GRACE_S, MINIMUM_STAKE, World, key, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.limits import AMOUNT_MAX, SEAT_DEADLINE_SLOTS
from cyxnode.protocol.units import MicroCyx, NodeId

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
        (88, ((1 << 40) + 1).to_bytes(8, "little"), 128),
    ],
)
def test_initialise_refuses_terms_out_of_bounds(offset: int, value: bytes, code: int) -> None:
    world = World(initialise=False)
    create, instruction = world.initialise_instructions()
    data = bytearray(instruction.data)
    data[offset : offset + len(value)] = value
    with refused(code, index=1):
        world.send([create, Instruction(world.program, bytes(data), instruction.accounts)], [world.admin])


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


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"units_total": 0}, 185),
        ({"execution_class": bytes(32)}, 163),
        ({"work_deadline_s": 1_700_000_000}, 186),
        ({"work_deadline_s": (1 << 40) + 1, "refund_at_s": 1 << 41}, 186),
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


def test_the_latest_times_that_fit() -> None:
    world = World()
    latest = 1 << 40
    wish = replace(world.open_job_wish(), work_deadline_s=latest, refund_at_s=2 * latest)
    assert world.open_job(wish).refund_at_s == 2 * latest


def test_a_clock_before_1970_is_refused() -> None:
    world = World()
    world.pay(world.requester.pubkey(), 50_000_000)
    world.unix_s = -1
    world.advance()
    with refused(108):
        world.submit(replace(world.open_job_wish(), work_deadline_s=3600, refund_at_s=7200), world.requester)


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
    assert world.lamports(layout.job_address(world.program, job.job)) == minimum


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


def _swapped(committee: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    return (committee[1], committee[0], *committee[2:])


@pytest.mark.parametrize(
    ("rearrange", "code"),
    [
        (_swapped, 210),
        (lambda committee: (committee[0], committee[0], committee[2]), 210),
        (lambda committee: committee[:2], 103),
        (lambda committee: (*committee, committee[0]), 103),
        (lambda committee: (*committee[:2], node_id(key("stranger"))), 161),
    ],
    ids=["wrong order", "duplicate", "too few", "too many", "not registered"],
)
def test_seat_refuses_other_committees(
    rearrange: Callable[[tuple[NodeId, ...]], tuple[NodeId, ...]], code: int
) -> None:
    world = World(3)
    job = world.open_job()
    world.advance()
    with refused(code):
        world.submit(chain.Seat(job.job, rearrange(world.draw(job))))
    world.submit(chain.Seat(job.job, world.draw(job)))


def _set_class(world: World, node: Keypair) -> None:
    world.submit(chain.Register(b"\x05" * 32, MicroCyx(0), bytes(node.pubkey())), node)


def _patch(offset: int, value: int) -> Callable[[World, Keypair], None]:
    def patch(world: World, node: Keypair) -> None:
        world.patch(layout.node_address(world.program, bytes(node.pubkey())), offset, value.to_bytes(8, "little"))

    return patch


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(_set_class, 205), (_patch(136, 1001), 206), (_patch(176, 1), 207), (_patch(144, MINIMUM_STAKE - 1), 208)],
    ids=["class", "too new", "unbonding", "stake"],
)
def test_seat_refuses_ineligible_members(spoil: Callable[[World, Keypair], None], code: int) -> None:
    world = World(3)
    job = world.open_job()
    world.advance()
    spoil(world, world.nodes[1])
    with refused(code):
        world.submit(chain.Seat(job.job, world.draw(job)))


def test_a_node_registered_in_the_open_slot_does_not_sit() -> None:
    world = World(2)
    world.add_node("late")
    job = world.open_job()
    world.advance()
    with refused(206):
        world.submit(chain.Seat(job.job, world.draw(job)))


def test_the_requester_does_not_sit() -> None:
    world = World(2)
    world.requester = world.add_node("requester")
    world.advance()
    job = world.open_job()
    world.advance()
    world.requester = key("someone else")  # so that `draw` no longer leaves it out
    with refused(209):
        world.submit(chain.Seat(job.job, world.draw(job)))


def test_seat_has_its_slots() -> None:
    world = World(3)
    job, late = world.open_job(), world.open_job(world.open_job_wish(nonce=b"\x02" * 32))
    with refused(201):
        world.submit(chain.Seat(job.job, tuple(node_id(n) for n in world.nodes)))
    world.advance(slots=SEAT_DEADLINE_SLOTS)
    world.submit(chain.Seat(job.job, world.draw(job)))
    with refused(200):
        world.submit(chain.Seat(job.job, world.draw(job)))
    world.advance()
    with refused(202):
        world.submit(chain.Seat(late.job, world.draw(late)))


@pytest.mark.parametrize("skipped", ["none", "some"])
def test_the_slot_hash_is_found_wherever_it_lies(skipped: str) -> None:
    world = World(3)
    if skipped == "some":
        world.hashes = {slot: hash_ for slot, hash_ in world.hashes.items() if slot % 3}
    job = world.open_job()
    for ahead in (1, 2, 7, 300):
        world.advance(slots=ahead)
        if skipped == "some":
            world.hashes = {s: h for s, h in world.hashes.items() if s % 3 or s == job.open_slot}
            world.advance(slots=0)
        seat = world.encode(chain.Seat(job.job, world.draw(job)), world.admin)
        state = world.svm.get_account(layout.job_address(world.program, job.job))
        assert state is not None
        world.send(seat, [world.admin])
        world.svm.set_account(layout.job_address(world.program, job.job), state)


def test_a_missing_slot_hash_is_named() -> None:
    world = World(3)
    job = world.open_job()
    world.advance()
    committee = world.draw(job)
    del world.hashes[job.open_slot]
    world.advance()
    with refused(204):
        world.submit(chain.Seat(job.job, committee))


def test_seat_reads_the_real_sysvar_only() -> None:
    world = World(3)
    job = world.open_job()
    world.advance()
    (seat,) = world.encode(chain.Seat(job.job, world.draw(job)), world.admin)
    forged = Pubkey.new_unique()
    real = world.svm.get_account(layout.SLOT_HASHES_SYSVAR)
    assert real is not None
    world.svm.set_account(forged, real)
    accounts = list(seat.accounts)
    accounts[2] = AccountMeta(forged, False, False)
    with refused(203):
        world.send([Instruction(world.program, bytes(seat.data), accounts)], [world.admin])


def test_a_committee_of_another_slots_hash_is_refused() -> None:
    world = World(7)
    job = world.open_job()
    world.advance()
    wrong = replace(job, open_slot=job.open_slot - 1)
    assert world.draw(wrong) != world.draw(job)
    with refused(210):
        world.submit(chain.Seat(job.job, world.draw(wrong)))
