"""A chain that was killed keeps every accepted transaction, and no old one can be played again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import plyvel
import pytest

from cyxnode.ledger.chain_client import find_slot_hash
from cyxnode.ledger.escrow_layout import SLOT_HASHES_SYSVAR
from cyxnode.ledger.genesis import ensure_genesis
from cyxnode.ledger.local_faucet import airdrop, give_tokens
from cyxnode.ledger.transaction import TransactionRefused
from cyxnode.protocol.errors import LocalError
from ledger_world import SOL, START_S, lamports_of, make_cluster, payment, wallet

ALICE = wallet("alice").pubkey()

SPENDER = """
import sys
from pathlib import Path
from ledger_world import *
cluster = make_cluster(Path(sys.argv[1]))
alice = wallet("alice").pubkey()
for number in range(1, 10_000):
    raw = payment(cluster, alice, SOL + number)
    signature = cluster.send(raw)
    print(signature, raw.hex(), SOL + number, flush=True)
    if number % 7 == 0:
        cluster.advance(START_S + number)
"""


def spend_until_killed(path: Path, transactions: int) -> list[tuple[str, bytes, int]]:
    """Run a process that pays Alice, and kill -9 it after it has reported some payments."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SPENDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(transactions)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
    parsed = [line.split() for line in lines if line.count(" ") == 2]
    return [(signature, bytes.fromhex(raw), int(lamports)) for signature, raw, lamports in parsed]


def test_kill_9_loses_no_accepted_transaction_and_none_can_be_replayed(tmp_path: Path) -> None:
    reported = spend_until_killed(tmp_path, 25)
    assert len(reported) >= 25
    cluster = make_cluster(tmp_path)
    recorded = [found.signature for found in reversed(cluster.transactions_of(bytes(ALICE)))]
    assert recorded[: len(reported)] == [signature for signature, _, _ in reported]
    assert len(recorded) - len(reported) <= 1, "at most the one whose answer the kill cut off"
    balance = lamports_of(cluster, ALICE)
    assert balance == sum(SOL + number for number in range(1, len(recorded) + 1))
    for _, raw, _ in reported:
        with pytest.raises(TransactionRefused) as caught:
            cluster.send(raw)
        assert caught.value.error == "BlockhashNotFound"
    assert lamports_of(cluster, ALICE) == balance
    cluster.close()


def test_restart_with_the_same_entropy_repeats_no_blockhash(tmp_path: Path) -> None:
    blockhashes: set[bytes] = set()
    for start in range(3):
        cluster = make_cluster(tmp_path)
        for _ in range(5):
            blockhashes.add(cluster.latest_blockhash()[0])
            cluster.advance(START_S)
        cluster.close()
        assert len(blockhashes) == 5 * (start + 1)


def test_slots_hashes_and_time_go_on(tmp_path: Path) -> None:
    first = make_cluster(tmp_path)
    for second in range(5):
        first.advance(START_S + second)
    slot, genesis, unix_s = first.slot, first.genesis_hash, first.unix_s
    account = first.account(bytes(SLOT_HASHES_SYSVAR))
    assert account is not None
    old = find_slot_hash(account.data, slot - 2)
    first.close()
    second_run = make_cluster(tmp_path)
    assert second_run.genesis_hash == genesis
    assert second_run.slot >= slot
    assert second_run.unix_s >= unix_s - 1
    account = second_run.account(bytes(SLOT_HASHES_SYSVAR))
    assert account is not None
    assert find_slot_hash(account.data, slot - 2) == old is not None
    second_run.close()


async def test_the_program_and_its_money_survive_and_genesis_is_idempotent(tmp_path: Path) -> None:
    first = make_cluster(tmp_path)
    await ensure_genesis(first)
    transactions = first.transaction_count
    give_tokens(first, bytes(ALICE), 5)
    first.close()
    second = make_cluster(tmp_path)
    await ensure_genesis(second)
    assert second.transaction_count == transactions + 1
    give_tokens(second, bytes(ALICE), 7)
    third = second.transactions_of(bytes(ALICE))[0]
    assert [balance.amount for balance in third.tokens_after] == [12]
    second.close()


def test_a_closed_account_stays_closed(tmp_path: Path) -> None:
    first = make_cluster(tmp_path)
    alice = wallet("alice")
    airdrop(first, bytes(alice.pubkey()), SOL)
    first.faucet, faucet = alice, first.faucet
    first.send(payment(first, faucet.pubkey(), SOL - 5000))
    assert lamports_of(first, ALICE) == 0
    first.close()
    second = make_cluster(tmp_path)
    assert lamports_of(second, ALICE) == 0
    second.close()


def test_a_refused_write_stops_the_chain_instead_of_forgetting(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path)
    airdrop(cluster, bytes(ALICE), SOL)
    cluster.close()  # every later write fails, as on a full disk
    with pytest.raises((LocalError, RuntimeError)):
        airdrop(cluster, bytes(ALICE), SOL)
    with pytest.raises(LocalError, match="free some disk space and restart"):
        airdrop(cluster, bytes(ALICE), SOL)
    reopened = make_cluster(tmp_path)
    assert lamports_of(reopened, ALICE) == SOL
    reopened.close()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path)
    airdrop(cluster, bytes(ALICE), SOL)
    cluster.close()
    database = plyvel.DB(str(tmp_path))
    database.put(b"a" + bytes(ALICE), b"short")
    database.close()
    with pytest.raises(LocalError, match=r"data dir: .* is damaged"):
        make_cluster(tmp_path)


def test_records_hold_json_errors(tmp_path: Path) -> None:
    first = make_cluster(tmp_path)
    name = first.send(payment(first, ALICE, 10**18), preflight=False)
    first.close()
    second = make_cluster(tmp_path)
    found = second.transaction(name)
    assert found is not None
    assert json.loads(found.error) == {"InstructionError": [0, {"Custom": 1}]}
    second.close()
