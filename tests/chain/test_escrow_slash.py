"""Equivocation: two statements that contradict take all stake and retire the key; nothing less does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from solders.keypair import Keypair

from chain_world import CLASS, MINIMUM_STAKE, UNBONDING_S, World, node_id, refused
from cyxnode.ledger.precompile import Statement, ed25519
from cyxnode.protocol import chain
from cyxnode.protocol.chain import JobAccount
from cyxnode.protocol.hashing import QuorumKind, quorum_context
from cyxnode.protocol.units import JobId, MicroCyx


@pytest.fixture
def world() -> World:
    return World(5)


@pytest.fixture
def job(world: World) -> JobAccount:
    return world.seated_job()


@pytest.fixture
def liar(world: World, job: JobAccount) -> Keypair:
    return world.members(job)[0]


def _unharmed(world: World, node: Keypair) -> None:
    account = world.node(node)
    assert (account.stake, account.slashed, account.retired) == (MINIMUM_STAKE, 0, False)


@pytest.mark.parametrize("kind", [QuorumKind.AWARD, QuorumKind.HANDOVER, QuorumKind.SETTLE])
def test_two_statements_take_all(world: World, job: JobAccount, liar: Keypair, kind: QuorumKind) -> None:
    world.submit(world.contradiction(job, liar, kind=kind, sequence=3, round_=700))
    account = world.node(liar)
    assert (account.stake, account.slashed, account.retired) == (0, MINIMUM_STAKE, True)
    assert world.tokens(world.treasury.pubkey()) == MINIMUM_STAKE
    assert world.stakes() == 4 * MINIMUM_STAKE


def test_a_retired_key_never_comes_back(world: World, job: JobAccount, liar: Keypair) -> None:
    wish = world.contradiction(job, liar)
    world.submit(wish)
    world.pay(liar.pubkey(), MINIMUM_STAKE)
    with refused(167):
        world.submit(chain.Register(CLASS, MicroCyx(MINIMUM_STAKE), bytes(liar.pubkey())), liar)
    with refused(167):
        world.submit(wish)
    with refused(168):
        world.submit(chain.RequestUnstake(), liar)


def test_leaving_does_not_save_a_stake(world: World, job: JobAccount, liar: Keypair) -> None:
    world.submit(chain.RequestUnstake(), liar)
    world.advance(seconds=UNBONDING_S)
    world.submit(world.contradiction(job, liar))
    with refused(170):
        world.submit(chain.WithdrawStake(node_id(liar)))
    assert world.tokens(world.treasury.pubkey()) == MINIMUM_STAKE


def test_a_conviction_needs_no_job_any_more(world: World, job: JobAccount, liar: Keypair) -> None:
    world.settle(job)
    world.submit(chain.CloseJob(job.job))
    earned = world.node(liar).earned
    world.submit(world.contradiction(job, liar))
    account = world.node(liar)
    assert (account.earned, account.retired) == (earned, True)
    world.submit(chain.WithdrawEarned(node_id(liar)))


def _sign(world: World, job: JobAccount, signer: Keypair, digest: bytes, *, kind: int = 1, round_: int = 1) -> bytes:
    context = quorum_context(world.config().genesis, bytes(world.program), job.job, job.open_slot)
    head = b"CYX1" + bytes([kind, 0]) + round_.to_bytes(2, "little")
    return bytes(signer.sign_message(head + sha256(context + digest).digest()))


OTHER_JOB = JobId(b"\x07" * 32)
Spoil = Callable[[World, JobAccount, chain.SlashEquivocation], chain.SlashEquivocation]
SPOILT: dict[str, tuple[Spoil, int]] = {
    "of another job": (lambda w, j, wish: replace(wish, job=OTHER_JOB), 2),
    "of another opening": (lambda w, j, wish: replace(wish, open_slot=wish.open_slot + 1), 2),
    "of another node": (lambda w, j, wish: replace(wish, node=node_id(w.members(j)[1])), 2),
    "forged": (lambda w, j, wish: replace(wish, signatures=(wish.signatures[0], wish.signatures[0])), 2),
}


@pytest.mark.parametrize("how", SPOILT)
def test_signatures_that_do_not_verify(world: World, job: JobAccount, liar: Keypair, how: str) -> None:
    spoil, code = SPOILT[how]
    with refused(code, index=1):
        world.submit(spoil(world, job, world.contradiction(job, liar)))
    _unharmed(world, liar)


def test_the_same_statement_twice_is_no_contradiction(world: World, job: JobAccount, liar: Keypair) -> None:
    wish = world.contradiction(job, liar)
    once = replace(wish, digests=(wish.digests[0],) * 2, signatures=(wish.signatures[0],) * 2)
    with refused(284):
        world.submit(once)
    _unharmed(world, liar)


def test_a_workers_claims_are_not_a_committees(world: World, job: JobAccount, liar: Keypair) -> None:
    with refused(282):
        world.submit(world.contradiction(job, liar, kind=QuorumKind.CLAIM))
    _unharmed(world, liar)


@pytest.mark.parametrize(
    ("at", "value", "code"),
    [(8, b"\x09" * 32, 285), (40, b"\x09", 285), (48, b"\x09" * 32, 285), (80, b"\x09" * 32, 285)],
)
def test_what_the_instruction_says_must_be_what_was_signed(
    world: World, job: JobAccount, liar: Keypair, at: int, value: bytes, code: int
) -> None:
    """Valid statements, but told to be about another job, opening or digest."""
    create, precompile, slash = world.encode(world.contradiction(job, liar), world.admin)
    data = bytearray(slash.data)
    data[at : at + len(value)] = value
    with refused(code):
        world.send([create, precompile, type(slash)(world.program, bytes(data), slash.accounts)], [world.admin])
    _unharmed(world, liar)


def test_statements_of_two_places_or_two_signers(world: World, job: JobAccount, liar: Keypair) -> None:
    wish = world.contradiction(job, liar)
    create, _, slash = world.encode(wish, world.admin)
    one, other = wish.digests
    later = _sign(world, job, liar, other, round_=2)
    settle = _sign(world, job, liar, other, kind=3)
    for signature, kind, round_ in ((later, 1, 2), (settle, 3, 1)):
        statements = [world.statement(job, liar, one, wish.signatures[0])]
        statements.append(world.statement(job, liar, other, signature, kind=kind, round_=round_))
        with refused(283):
            world.send([create, ed25519(statements), slash], [world.admin])
    friend = world.members(job)[1]
    first = world.statement(job, liar, one, wish.signatures[0])
    second = world.statement(job, friend, other, _sign(world, job, friend, other))
    for statements in ([first, second], [second, first]):
        with refused(281):
            world.send([create, ed25519(statements), slash], [world.admin])
    right = world.statement(job, liar, other, wish.signatures[1])
    for statements in ([first], [first, right, right]):
        with refused(280):
            world.send([create, ed25519(statements), slash], [world.admin])
    _unharmed(world, liar)
    world.send([create, ed25519([first, right]), slash], [world.admin])


def test_a_statement_of_another_protocol_is_not_one_of_ours(world: World, job: JobAccount, liar: Keypair) -> None:
    """The first four bytes name the protocol; the program compares all forty."""
    wish = world.contradiction(job, liar)
    create, _, slash = world.encode(wish, world.admin)
    context = quorum_context(world.config().genesis, bytes(world.program), job.job, job.open_slot)
    messages = [b"XYZ1\x01\x00\x01\x00" + sha256(context + digest).digest() for digest in wish.digests]
    precompile = ed25519(
        [Statement(bytes(liar.pubkey()), bytes(liar.sign_message(message)), message) for message in messages]
    )
    with refused(285):
        world.send([create, precompile, slash], [world.admin])
    _unharmed(world, liar)


@pytest.mark.parametrize("entry", [0, 1])
@pytest.mark.parametrize("field", [2, 6, 12], ids=["signature", "key", "message"])
def test_statements_read_from_elsewhere(world: World, job: JobAccount, liar: Keypair, entry: int, field: int) -> None:
    """The precompile would verify bytes of the instruction in front, while the program reads these."""
    create, honest, slash = world.encode(world.contradiction(job, liar), world.admin)
    data = bytearray(honest.data)
    at = 2 + 14 * entry + field
    data[at : at + 2] = b"\x01\x00"
    with refused(224):
        pointing = type(honest)(honest.program_id, bytes(data), [])
        world.send([create, honest, pointing, slash], [world.admin])
    _unharmed(world, liar)


def test_a_kind_that_no_member_signs(world: World, job: JobAccount, liar: Keypair) -> None:
    wish = world.contradiction(job, liar)
    create, _, slash = world.encode(wish, world.admin)
    context = quorum_context(world.config().genesis, bytes(world.program), job.job, job.open_slot)
    messages = [b"CYX1\x00\x00\x01\x00" + sha256(context + digest).digest() for digest in wish.digests]
    statements = [Statement(bytes(liar.pubkey()), bytes(liar.sign_message(one)), one) for one in messages]
    with refused(282):
        world.send([create, ed25519(statements), slash], [world.admin])
    _unharmed(world, liar)
