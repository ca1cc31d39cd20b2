"""Forged, borrowed, repeated and misplaced signatures: fewer honest ones than the quorum move nothing."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from chain_world import World, key, node_id, refused
from cyxnode.ledger.escrow_layout import ED25519_PRECOMPILE
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobAccount, Verdict
from cyxnode.protocol.hashing import QuorumKind
from cyxnode.protocol.units import MicroCyx, NodeId


@pytest.fixture
def world() -> World:
    return World(5)


@pytest.fixture
def job(world: World) -> JobAccount:
    return world.seated_job()


def _parts(world: World, wish: chain.Settle) -> tuple[list[Instruction], Instruction, Instruction]:
    *create, precompile, settle = world.encode(wish, world.admin)
    return create, precompile, settle


def _unpaid(world: World, job: JobAccount) -> None:
    assert world.vault(job.job) == job.budget
    assert world.job(job.job) == job


def test_one_flipped_bit_of_a_signature(world: World, job: JobAccount) -> None:
    wish = world.signed(job, world.settlement(job))
    (first, good), second = wish.signatures
    bad = bytes([good[0] ^ 1]) + good[1:]
    with refused(2, index=2):  # the precompile's own InvalidSignature
        world.submit(replace(wish, signatures=((first, bad), second)))
    _unpaid(world, job)


def test_one_of_three(world: World, job: JobAccount) -> None:
    with refused(228):
        world.submit(world.signed(job, world.settlement(job), world.members(job)[:1]))
    _unpaid(world, job)


def test_no_signature_at_all(world: World, job: JobAccount) -> None:
    wish = world.settlement(job, Verdict.UNSOLD)
    *_, settle = world.encode(wish, world.admin)
    with refused(228):  # the precompile itself has nothing against it
        world.send([Instruction(ED25519_PRECOMPILE, b"\0\0", []), settle], [world.admin])
    _unpaid(world, job)


@pytest.mark.parametrize(("k", "m"), [(5, 3), (7, 5)])
def test_one_less_than_the_quorum(k: int, m: int) -> None:
    world = World(k + 1)
    job = world.seated_job(world.open_job_wish(k=k))
    with refused(228):
        world.submit(world.signed(job, world.settlement(job), world.members(job)[: m - 1]))
    world.submit(world.signed(job, world.settlement(job), world.members(job)[-m:]))


def test_the_same_member_twice(world: World, job: JobAccount) -> None:
    with refused(227):
        world.submit(world.signed(job, world.settlement(job), world.members(job)[:1] * 2))
    _unpaid(world, job)


@pytest.mark.parametrize("who", ["stranger", "registered", "requester"])
def test_a_signer_outside_the_committee(world: World, job: JobAccount, who: str) -> None:
    outsider = {"stranger": key("stranger"), "registered": world.outsider(job), "requester": world.requester}[who]
    with refused(226):
        world.submit(world.signed(job, world.settlement(job), [world.members(job)[0], outsider]))
    _unpaid(world, job)


@pytest.mark.parametrize(
    "changes",
    [
        {"price": MicroCyx(41_000_000)}, {"units": 9}, {"result_hash": b"\x01" * 32}, {"fee_mask": 7}, {"round": 1},
        {"worker": "other"},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_fields_changed_after_signing(world: World, job: JobAccount, changes: dict[str, object]) -> None:
    wish = world.signed(job, world.settlement(job))
    if changes == {"worker": "other"}:
        other = next(n for n in world.nodes if node_id(n) not in (*job.committee, wish.worker))
        changes = {"worker": node_id(other)}
    signed_for = world.message(job, wish)
    forged = replace(wish, **changes)  # type: ignore[arg-type]
    create, _, settle = _parts(world, forged)
    with refused(225, index=3):
        world.send([*create, world.precompile(signed_for, wish.signatures), settle], [world.admin])
    _unpaid(world, job)


@pytest.mark.parametrize("bound", ["genesis", "program", "open_slot", "kind", "job"])
def test_signatures_of_another_place(world: World, job: JobAccount, bound: str) -> None:
    wish = world.settlement(job)
    message = {
        "genesis": lambda: world.message(job, wish, genesis=b"\x01" * 32),
        "program": lambda: world.message(job, wish, program=Pubkey.new_unique()),
        "open_slot": lambda: world.message(job, wish, open_slot=job.open_slot + 1),
        "kind": lambda: world.message(job, wish, kind=QuorumKind.AWARD),
        "job": lambda: world.message(replace(job, job=NodeId(b"\x01" * 32)), wish),  # type: ignore[arg-type]
    }[bound]()
    signatures = tuple((node_id(m), bytes(m.sign_message(message))) for m in world.members(job)[:2])
    create, _, settle = _parts(world, world.signed(job, wish))
    with refused(225, index=3):
        world.send([*create, world.precompile(message, signatures), settle], [world.admin])
    _unpaid(world, job)


def test_a_settlement_does_not_fit_another_job_of_the_same_committee() -> None:
    world = World(3)
    worker = world.add_node("worker", execution_class=b"\x03" * 32)
    world.nodes.remove(worker)
    first = world.seated_job()
    second = world.seated_job(world.open_job_wish(nonce=b"\x02" * 32))
    wish = world.signed(first, world.settlement(first, Verdict.UNSOLD), world.members(first)[:2])
    world.submit(wish)
    message = world.message(first, wish)
    *_, settle = world.encode(replace(wish, job=second.job), world.admin)
    with refused(225):
        world.send([world.precompile(message, wish.signatures), settle], [world.admin])


def test_a_settlement_is_not_replayed(world: World, job: JobAccount) -> None:
    wish = world.signed(job, world.settlement(job))
    world.submit(wish)
    paid = world.vault(job.job)
    with refused(240):
        world.submit(wish)
    with refused(240):
        world.submit(world.signed(job, replace(wish, sequence=1)))
    assert world.vault(job.job) == paid


def test_a_sequence_that_is_not_next(world: World, job: JobAccount) -> None:
    with refused(242):
        world.submit(world.signed(job, replace(world.settlement(job), sequence=1)))
    _unpaid(world, job)


def test_a_job_opened_again_does_not_take_old_signatures() -> None:
    world = World(4)
    wish = world.open_job_wish()
    first = world.seated_job(wish)
    settlement = world.signed(first, world.settlement(first, Verdict.UNSOLD))
    world.submit(settlement)
    world.submit(chain.CloseJob(first.job))
    again = world.seated_job(wish)
    assert again.job == first.job
    forged = world.message(first, settlement)
    *_, settle = world.encode(settlement, world.admin)
    with refused(225):
        world.send([world.precompile(forged, settlement.signatures), settle], [world.admin])


def test_another_instruction_in_between(world: World, job: JobAccount) -> None:
    create, precompile, settle = _parts(world, world.signed(job, world.settlement(job)))
    with refused(222):
        world.send([*create, precompile, set_compute_unit_limit(100_000), settle], [world.admin])
    _unpaid(world, job)


def test_the_precompile_behind_or_missing(world: World, job: JobAccount) -> None:
    _, precompile, settle = _parts(world, world.signed(job, world.settlement(job, Verdict.UNSOLD)))
    with refused(221):
        world.send([settle, precompile], [world.admin])
    with refused(221):
        world.send([settle], [world.admin])
    _unpaid(world, job)


def _precompile(entries: list[tuple[int, int, int, int, int, int, int]], tail: bytes) -> Instruction:
    head = bytes([len(entries), 0]) + b"".join(struct.pack("<7H", *entry) for entry in entries)
    return Instruction(ED25519_PRECOMPILE, head + tail, [])


@pytest.mark.parametrize("which", ["signature", "key", "message"])
def test_offsets_into_another_instruction(world: World, job: JobAccount, which: str) -> None:
    """The precompile would check bytes of instruction 0, while the program reads those of the second."""
    wish = world.signed(job, world.settlement(job, Verdict.UNSOLD))
    _, honest, settle = _parts(world, wish)
    data = bytearray(honest.data)
    field = {"signature": 1, "key": 3, "message": 6}[which]
    for entry in range(data[0]):
        struct.pack_into("<H", data, 2 + 14 * entry + 2 * field, 0)  # instruction 0 is an honest copy
    pointing = Instruction(ED25519_PRECOMPILE, bytes(data), [])
    with refused(224, index=2):
        world.send([honest, pointing, settle], [world.admin])
    _unpaid(world, job)


def test_a_longer_message_that_starts_the_same(world: World, job: JobAccount) -> None:
    wish = world.settlement(job, Verdict.UNSOLD)
    message = world.message(job, wish) + b"!"
    signatures = tuple((node_id(m), bytes(m.sign_message(message))) for m in world.members(job)[:2])
    *_, settle = _parts(world, world.signed(job, wish))
    with refused(225):
        world.send([world.precompile(message, signatures), settle], [world.admin])


def test_a_shorter_message_at_the_end(world: World, job: JobAccount) -> None:
    """The program would read a byte behind the precompile's data."""
    wish = world.settlement(job, Verdict.UNSOLD)
    message = world.message(job, wish)[:39]
    signatures = tuple((node_id(m), bytes(m.sign_message(message))) for m in world.members(job)[:2])
    *_, settle = _parts(world, world.signed(job, wish))
    with refused(223):
        world.send([world.precompile(message, signatures), settle], [world.admin])


def test_the_message_may_stand_anywhere_in_the_precompile(world: World, job: JobAccount) -> None:
    """One copy per signature is as good as a shared one: what counts is what was checked."""
    wish = world.settlement(job, Verdict.UNSOLD)
    message = world.message(job, wish)
    tail, entries = b"", []
    for member in world.members(job)[:2]:
        at = 2 + 28 + len(tail)
        entries.append((at, 0xFFFF, at + 104, 0xFFFF, at + 64, 40, 0xFFFF))  # the last key ends where the data end
        tail += bytes(member.sign_message(message)) + message + node_id(member)
    *_, settle = _parts(world, world.signed(job, wish))
    world.send([_precompile(entries, tail), settle], [world.admin])
    assert (world.job(job.job) or job).verdict is Verdict.UNSOLD
