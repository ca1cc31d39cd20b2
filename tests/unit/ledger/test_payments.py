"""Payments are checked before they are signed: what would be lost, or would fail, is refused by field and fix."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from solders.account import Account
from solders.pubkey import Pubkey

from cyxnode.ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.escrow_layout import (
    SYSTEM_PROGRAM,
    associated_token_address,
    config_address,
    stake_vault_address,
)
from cyxnode.ledger.faucet import request_airdrop, request_tokens
from cyxnode.ledger.genesis import ensure_genesis
from cyxnode.ledger.token import TOKEN_ACCOUNT_BYTES
from cyxnode.ledger.wallet import FEE_LAMPORTS, Payment, pay, plan_lamports, plan_tokens
from cyxnode.protocol.errors import ChainRejected, LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import base58, parse_id
from ledger_world import SOL, make_cluster, wallet

ALICE, BOB = KeyPair(bytes([7] * 32)), bytes(wallet("bob").pubkey())
PROGRAM, MINT = Pubkey.from_bytes(LOCAL_PROGRAM_ID), Pubkey.from_bytes(LOCAL_MINT)


def tokens_of(owner: bytes) -> bytes:
    return bytes(associated_token_address(Pubkey.from_bytes(owner), MINT))


@dataclass
class Bank:
    """Alice with 10 CYX and 1 SOL on a founded chain."""

    cluster: LocalCluster
    rpc: DirectRpc

    async def plan(self, to: bytes, amount: int, *, sol: bool = False) -> Payment:
        if sol:
            return await plan_lamports(self.rpc, ALICE.node_id, to, amount)
        return await plan_tokens(self.rpc, LOCAL_MINT, ALICE.node_id, to, amount)

    async def refused(self, to: bytes, amount: int, *, sol: bool = False) -> LocalError:
        before = self.cluster.transaction_count
        with pytest.raises(LocalError) as caught:
            await self.plan(to, amount, sol=sol)
        assert caught.value.fix and self.cluster.transaction_count == before
        return caught.value

    async def balance(self, owner: bytes) -> tuple[int, int]:
        held = await ChainClient(self.rpc, ALICE, LOCAL_PROGRAM_ID).balance(owner)
        return held.micro_cyx, held.lamports


@pytest.fixture
async def bank() -> Bank:
    cluster = make_cluster()
    await ensure_genesis(cluster)
    rpc = DirectRpc(cluster)
    await request_airdrop(rpc, ALICE.node_id, SOL)
    await request_tokens(rpc, ALICE.node_id, 10 * MICRO)
    return Bank(cluster, rpc)


async def test_equal_payments_all_arrive_and_the_first_makes_the_account(bank: Bank) -> None:
    plan, rent = await bank.plan(BOB, MICRO), bank.cluster.rent(TOKEN_ACCOUNT_BYTES)
    assert (plan.text, plan.rent, plan.unseen) == ("1.000000 CYX", rent, True)
    await pay(bank.rpc, ALICE, LOCAL_MINT, plan, reference="a")
    second = await bank.plan(BOB, MICRO)
    assert (second.rent, second.unseen) == (0, False)
    await pay(bank.rpc, ALICE, LOCAL_MINT, plan, reference="b")
    await pay(bank.rpc, ALICE, LOCAL_MINT, await bank.plan(BOB, SOL // 2, sol=True), reference="c")
    assert await bank.balance(BOB) == (2 * MICRO, SOL // 2)
    assert await bank.balance(ALICE.node_id) == (8 * MICRO, SOL // 2 - rent - 3 * FEE_LAMPORTS)


async def test_the_last_unit_can_be_sent_and_not_one_more(bank: Bank) -> None:
    error = await bank.refused(BOB, 10 * MICRO + 1)
    assert error.field == "amount" and "10.000001 CYX is more than the balance of 10.000000 CYX" in str(error)
    await pay(bank.rpc, ALICE, LOCAL_MINT, await bank.plan(BOB, 10 * MICRO), reference="a")
    assert "than the balance of 0.000000 CYX" in str(await bank.refused(BOB, 1))
    left = (await bank.balance(ALICE.node_id))[1] - FEE_LAMPORTS
    assert (await bank.refused(BOB, left + 1, sol=True)).field == "amount"
    dust = await bank.refused(BOB, left - 1, sol=True)
    assert "less than an account must hold" in str(dust) and "or send all" in dust.fix
    await pay(bank.rpc, ALICE, LOCAL_MINT, await bank.plan(BOB, left, sol=True), reference="b")
    assert await bank.balance(ALICE.node_id) == (0, 0)
    assert (await bank.refused(BOB, 1, sol=True)).field == "amount"


@pytest.mark.parametrize("sol", [False, True])
async def test_nothing_and_oneself_are_refused(bank: Bank, sol: bool) -> None:
    zero, own = await bank.refused(BOB, 0, sol=sol), await bank.refused(ALICE.node_id, 1, sol=sol)
    assert (zero.field, own.field) == ("amount", "address")


@pytest.mark.parametrize("sol", [False, True])
async def test_an_address_without_a_key_is_refused_by_what_it_is(bank: Bank, sol: bool) -> None:
    await request_tokens(bank.rpc, BOB, MICRO)
    cases = {
        tokens_of(BOB): f"token account of {base58(BOB)}",
        tokens_of(ALICE.node_id): f"token account of {base58(ALICE.node_id)}",
        bytes(stake_vault_address(PROGRAM)): "a token account of a program",
        LOCAL_MINT: "a mint",
        LOCAL_PROGRAM_ID: "an account of the program",
        bytes(config_address(PROGRAM)): f"an account of the program {base58(LOCAL_PROGRAM_ID)}",
        tokens_of(bytes([9] * 32)): "no key can belong to this address",
        parse_id("11111111111111111111111111111111", field="x"): "an account of the program",
        parse_id("SysvarC1ock11111111111111111111111111111111", field="x"): "an account of the program",
    }
    for address, text in cases.items():
        error = await bank.refused(address, MICRO, sol=sol)
        assert error.field == "address" and text in str(error), text


@pytest.mark.parametrize(
    ("lamports", "short"), [(FEE_LAMPORTS, False), (FEE_LAMPORTS + 1, False), (895_879, True), (895_880, False)]
)
async def test_a_fee_must_not_sink_a_wallet_below_its_rent(bank: Bank, lamports: int, short: bool) -> None:
    """The same rule as the cluster's: whatever is let through lands."""
    bob = KeyPair(bytes([8] * 32))
    await request_tokens(bank.rpc, bob.node_id, MICRO)
    with pytest.raises(LocalError, match=r"0\.000000000 SOL do not cover 0\.000005000 SOL for the fee") as caught:
        await plan_tokens(bank.rpc, LOCAL_MINT, bob.node_id, ALICE.node_id, 1)
    assert caught.value.field == "balance" and "airdrop" in caught.value.fix
    poor = Account(lamports, b"", SYSTEM_PROGRAM, False, 2**64 - 1)
    bank.cluster._svm.set_account(Pubkey.from_bytes(bob.node_id), poor)
    if short:
        with pytest.raises(LocalError, match="and the rent of the wallet"):
            await plan_tokens(bank.rpc, LOCAL_MINT, bob.node_id, ALICE.node_id, 1)
        unchecked = Payment(ALICE.node_id, "CYX", 1, 0, unseen=False)
        with pytest.raises(ChainRejected):
            await pay(bank.rpc, bob, LOCAL_MINT, unchecked, reference="a")
    else:
        plan = await plan_tokens(bank.rpc, LOCAL_MINT, bob.node_id, ALICE.node_id, 1)
        assert await pay(bank.rpc, bob, LOCAL_MINT, plan, reference="a")


async def test_a_new_account_needs_its_rent(bank: Bank) -> None:
    least = bank.cluster.rent(0)
    assert f"{least}" in (await bank.refused(BOB, least - 1, sol=True)).fix.replace("0.000", "")
    await pay(bank.rpc, ALICE, LOCAL_MINT, await bank.plan(BOB, least, sol=True), reference="a")
    assert (await bank.plan(BOB, 1, sol=True)).amount == 1
