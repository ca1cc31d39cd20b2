"""Deploying as on any cluster: interrupted, resumed, upgraded, initialised, made final; in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio
from solders.instruction import Instruction
from trio.testing import MockClock

from cyxnode.ledger.addresses import LOCAL_MINT
from cyxnode.ledger.chain_service import tick
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.deploy import (
    buffer_key,
    deploy_program,
    give_up_authority,
    install_or_upgrade,
    program_data,
    upload,
    verify_program,
    wait_for_slot_after,
)
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.genesis import ensure_genesis, program_elf
from cyxnode.ledger.initialisation import Terms, initialisation_cost, initialise_program, read_config
from cyxnode.ledger.local_faucet import airdrop
from cyxnode.ledger.rpc import TransactionFault
from cyxnode.ledger.sender import send_and_confirm
from cyxnode.protocol.errors import ChainRejected, LocalError
from cyxnode.protocol.limits import DEPLOY_CHUNK_BYTES, DEPLOY_PARALLEL_MAX, MICRO
from cyxnode.protocol.units import MicroCyx
from ledger_world import SOL, START_S, lamports_of, make_cluster, wallet

PAYER, PROGRAM = wallet("payer"), wallet("program")
ELF = program_elf()
CHUNKS = -(-len(ELF) // DEPLOY_CHUNK_BYTES)
OTHER = ELF + bytes(5_000) + b"\1"
"""The same program, with something else behind it: larger, and still a valid ELF."""


class PowerCut(Exception):
    """The deploying process ends."""


class Wire(DirectRpc):
    """Counts transactions, also those under way at once; ends the process before number `cut`."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster)
        self.cluster, self.sent, self.cut = cluster, 0, -1
        self.under_way = self.most_under_way = 0

    async def send(self, transaction: bytes, *, since_slot: int = 0) -> str:
        if self.sent == self.cut:
            raise PowerCut
        self.sent += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await trio.sleep(0.01)
            return await super().send(transaction, since_slot=since_slot)
        finally:
            self.under_way -= 1


@pytest.fixture
async def wire(nursery: trio.Nursery) -> AsyncIterator[Wire]:
    """A chain with a mint and no program; slots tick; the payer has 3 SOL."""
    cluster = make_cluster()
    await ensure_genesis(cluster, bare=True)
    airdrop(cluster, bytes(PAYER.pubkey()), 3 * SOL)
    nursery.start_soon(tick, cluster, lambda: START_S)
    yield Wire(cluster)
    nursery.cancel_scope.cancel()


async def runs(wire: Wire) -> bool:
    """Whether the program answers as the escrow does: it knows no instruction 255."""
    found = await program_data(wire, PROGRAM.pubkey())
    assert found is not None
    await wait_for_slot_after(wire, found.slot)
    with pytest.raises(TransactionFault) as called:
        await send_and_confirm(wire, [Instruction(PROGRAM.pubkey(), b"\xff", [])], [PAYER])
    return bool(called.value.error == {"InstructionError": [0, {"Custom": 100}]})


async def test_a_deployment_is_parallel_verified_and_done_once(wire: Wire, autojump_clock: MockClock) -> None:
    told: list[tuple[int, int]] = []
    sent = await install_or_upgrade(wire, PAYER, PROGRAM, ELF, told=lambda done, of: told.append((done, of)))
    assert sent == wire.sent == CHUNKS + 2
    assert 1 < wire.most_under_way <= DEPLOY_PARALLEL_MAX
    assert told[0] == (0, CHUNKS) and told[-1] == (CHUNKS, CHUNKS)
    found = await verify_program(wire, PROGRAM.pubkey(), ELF)
    assert found.authority == bytes(PAYER.pubkey())
    assert await runs(wire)
    before = wire.sent
    assert await install_or_upgrade(wire, PAYER, PROGRAM, ELF) == 0 and wire.sent == before


@pytest.mark.parametrize("cut", [0, 1, 10, CHUNKS, CHUNKS + 1])
async def test_an_interrupted_deployment_goes_on_where_it_stopped(
    wire: Wire, autojump_clock: MockClock, cut: int
) -> None:
    buffer = buffer_key(PAYER, PROGRAM.pubkey(), ELF)
    wire.cut = cut
    with pytest.raises(PowerCut):
        await deploy_program(wire, PAYER, PROGRAM, buffer, ELF)
    wire.cut = -1
    await install_or_upgrade(wire, PAYER, PROGRAM, ELF)
    assert wire.sent == CHUNKS + 2, "nothing was sent twice"
    assert await runs(wire)


async def test_code_that_the_chain_garbled_is_not_called_verified(wire: Wire, autojump_clock: MockClock) -> None:
    await install_or_upgrade(wire, PAYER, PROGRAM, ELF)
    with pytest.raises(ChainRejected, match="does not hold the code"):
        await verify_program(wire, PROGRAM.pubkey(), ELF[:-1] + b"\xff")
    with pytest.raises(ChainRejected, match="does not hold the code"):
        await verify_program(wire, wallet("nobody").pubkey(), ELF)


async def test_an_upgrade_has_to_be_wished_and_may_need_room(wire: Wire, autojump_clock: MockClock) -> None:
    with pytest.raises(LocalError, match=r"upgrade: .* is not deployed here"):
        await install_or_upgrade(wire, PAYER, PROGRAM, ELF, upgrade=True)
    await install_or_upgrade(wire, PAYER, PROGRAM, ELF)
    with pytest.raises(LocalError, match=r"deployed already, with other code \(fix: add --upgrade"):
        await install_or_upgrade(wire, PAYER, PROGRAM, OTHER)
    await install_or_upgrade(wire, PAYER, PROGRAM, OTHER, upgrade=True)
    await verify_program(wire, PROGRAM.pubkey(), OTHER)
    assert await runs(wire)
    await install_or_upgrade(wire, PAYER, PROGRAM, ELF, upgrade=True)
    await verify_program(wire, PROGRAM.pubkey(), ELF)
    assert await runs(wire)


async def test_only_the_authority_upgrades_and_nobody_once_it_was_given_up(
    wire: Wire, autojump_clock: MockClock
) -> None:
    await install_or_upgrade(wire, PAYER, PROGRAM, ELF)
    stranger = wallet("stranger")
    airdrop(wire.cluster, bytes(stranger.pubkey()), SOL)
    with pytest.raises(LocalError, match=f"{PAYER.pubkey()} may"):
        await install_or_upgrade(wire, stranger, PROGRAM, OTHER, upgrade=True)
    with pytest.raises(TransactionFault):
        await give_up_authority(wire, stranger, PROGRAM.pubkey())
    await give_up_authority(wire, PAYER, PROGRAM.pubkey())
    assert (await verify_program(wire, PROGRAM.pubkey(), ELF)).authority is None
    with pytest.raises(LocalError, match="given up for ever"):
        await install_or_upgrade(wire, PAYER, PROGRAM, OTHER, upgrade=True)
    assert await runs(wire)


async def test_what_is_missing_is_said_before_anything_is_paid(wire: Wire, autojump_clock: MockClock) -> None:
    poor = wallet("poor")
    with pytest.raises(
        LocalError, match=r"payer: .* holds 0.0000 SOL, and 0\.2\d+ are missing \(fix: send it 0\.2"
    ) as said:
        await install_or_upgrade(wire, poor, PROGRAM, ELF)
    assert wire.sent == 0
    missing = int(float(said.value.fix.split()[2]) * SOL + 0.5)
    airdrop(wire.cluster, bytes(poor.pubkey()), missing)
    await install_or_upgrade(wire, poor, PROGRAM, ELF)
    assert lamports_of(wire.cluster, poor.pubkey()) < SOL // 100, "no more than it takes was asked for"


async def test_a_buffer_or_an_address_in_other_hands_is_named(wire: Wire, autojump_clock: MockClock) -> None:
    buffer, stranger = buffer_key(PAYER, PROGRAM.pubkey(), ELF), wallet("stranger")
    airdrop(wire.cluster, bytes(stranger.pubkey()), SOL)
    await upload(wire, stranger, buffer, ELF[:100])
    with pytest.raises(LocalError, match=r"buffer: .* is in use"):
        await install_or_upgrade(wire, PAYER, PROGRAM, ELF)
    airdrop(wire.cluster, bytes(PROGRAM.pubkey()), SOL)
    with pytest.raises(LocalError, match=r"program: .* is an account of another kind"):
        await install_or_upgrade(wire, PAYER, PROGRAM, ELF)


async def test_config_is_made_once_and_other_terms_are_refused(wire: Wire, autojump_clock: MockClock) -> None:
    terms = Terms(LOCAL_MINT, bytes([7] * 32), 500, 2_000, MicroCyx(5 * MICRO), 86_400 * 31, 60)
    await install_or_upgrade(wire, PAYER, PROGRAM, ELF)
    found = await program_data(wire, PROGRAM.pubkey())
    assert found is not None
    await wait_for_slot_after(wire, found.slot)
    before = lamports_of(wire.cluster, PAYER.pubkey())
    assert await read_config(wire, PROGRAM.pubkey()) is None
    assert await initialise_program(wire, PAYER, PROGRAM.pubkey(), terms)
    assert before - lamports_of(wire.cluster, PAYER.pubkey()) <= await initialisation_cost(wire)
    config = await read_config(wire, PROGRAM.pubkey())
    assert config is not None and terms.kept_by(config)
    assert config.admin == bytes(PAYER.pubkey()) and config.genesis == wire.cluster.genesis_hash
    assert not await initialise_program(wire, PAYER, PROGRAM.pubkey(), terms)
    with pytest.raises(LocalError, match="other terms, which never change"):
        await initialise_program(wire, PAYER, PROGRAM.pubkey(), replace(terms, fee_bps=501))


async def test_a_mint_that_is_none_and_an_authority_that_is_not_are_named(
    wire: Wire, autojump_clock: MockClock
) -> None:
    await install_or_upgrade(wire, PAYER, PROGRAM, ELF)
    terms = Terms(bytes(PAYER.pubkey()), bytes([7] * 32), 500, 2_000, MicroCyx(5 * MICRO), 86_400 * 31, 60)
    with pytest.raises(LocalError, match=r"mint: .* is no mint"):
        await initialise_program(wire, PAYER, PROGRAM.pubkey(), terms)
    wire.cluster.advance(START_S)
    stranger = wallet("stranger")
    airdrop(wire.cluster, bytes(stranger.pubkey()), SOL)
    with pytest.raises(TransactionFault, match=r"authority .*\(fix: "):
        await initialise_program(wire, stranger, PROGRAM.pubkey(), replace(terms, mint=LOCAL_MINT))
