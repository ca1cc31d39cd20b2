"""Committees nobody drew: wrong order, wrong members, wrong slot, wrong sysvar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain_world import MINIMUM_STAKE, World, key, node_id, refused
from cyxnode.ledger import escrow_layout as layout
from cyxnode.protocol import chain
from cyxnode.protocol.limits import SEAT_DEADLINE_SLOTS
from cyxnode.protocol.units import MicroCyx, NodeId


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
