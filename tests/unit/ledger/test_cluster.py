"""The local chain keeps Solana's promises: blockhashes, slots, duplicates, sizes, history."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from cyxnode.ledger.addresses import CLOCK_SYSVAR
from cyxnode.ledger.chain_client import find_slot_hash
from cyxnode.ledger.cluster import SLOTS_PER_EPOCH, LocalCluster
from cyxnode.ledger.escrow_layout import SLOT_HASHES_SYSVAR
from cyxnode.ledger.history import History, TransactionRecord
from cyxnode.ledger.local_faucet import airdrop
from cyxnode.ledger.transaction import TransactionRefused
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import (
    AIRDROP_MAX_LAMPORTS,
    BLOCKHASHES_MAX,
    SLOT_HASHES_MAX,
    TRANSACTION_MAX_BYTES,
)
from ledger_world import SOL, START_S, lamports_of, make_cluster, payment, wallet

ALICE, BOB = wallet("alice").pubkey(), wallet("bob").pubkey()


def test_a_transfer_moves_lamports_and_has_a_record() -> None:
    cluster = make_cluster()
    signature = cluster.send(payment(cluster, ALICE, SOL))
    assert lamports_of(cluster, ALICE) == SOL
    record = cluster.transaction(signature)
    assert record is not None
    assert (record.error, record.slot, record.unix_s) == ("", cluster.slot, START_S)
    assert record.lamports_after[1] - record.lamports_before[1] == SOL
    assert [found.signature for found in cluster.transactions_of(bytes(ALICE))] == [signature]


def test_a_duplicate_is_refused_for_as_long_as_its_blockhash_lives() -> None:
    cluster = make_cluster()
    raw = payment(cluster, ALICE, SOL)
    cluster.send(raw)
    for _ in range(BLOCKHASHES_MAX - 1):
        with pytest.raises(TransactionRefused) as caught:
            cluster.send(raw)
        assert caught.value.error == "AlreadyProcessed"
        cluster.advance(START_S)
    cluster.advance(START_S)
    with pytest.raises(TransactionRefused, match="Blockhash not found"):
        cluster.send(raw)
    assert lamports_of(cluster, ALICE) == SOL


def test_a_blockhash_is_good_for_150_slots_and_no_longer() -> None:
    cluster = make_cluster()
    blockhash, last = cluster.latest_blockhash()
    while cluster.slot < last:
        cluster.advance(START_S)
    assert cluster.is_blockhash_valid(blockhash)
    cluster.send(payment(cluster, ALICE, SOL, blockhash=blockhash))
    cluster.advance(START_S)
    assert not cluster.is_blockhash_valid(blockhash)
    with pytest.raises(TransactionRefused) as caught:
        cluster.send(payment(cluster, ALICE, 2 * SOL, blockhash=blockhash))
    assert caught.value.error == "BlockhashNotFound"


def test_a_blockhash_from_nowhere_is_refused() -> None:
    cluster = make_cluster()
    with pytest.raises(TransactionRefused, match="Blockhash not found"):
        cluster.send(payment(cluster, ALICE, SOL, blockhash=bytes(32)))


def big_transaction(size: int) -> bytes:
    cluster = make_cluster()
    program = Pubkey.from_bytes(bytes([9] * 32))
    for padding in range(size):
        message = Message.new_with_blockhash(
            [Instruction(program, bytes(padding), [])], cluster.faucet.pubkey(), Hash(cluster.latest_blockhash()[0])
        )
        raw = bytes(VersionedTransaction(message, [cluster.faucet]))
        if len(raw) == size:
            return raw
    raise AssertionError("no padding gives this size")


def test_1232_bytes_are_taken_and_1233_refused() -> None:
    cluster = make_cluster()
    with pytest.raises(TransactionRefused) as caught:
        cluster.send(big_transaction(TRANSACTION_MAX_BYTES))
    assert "1232" not in str(caught.value), "the largest size must reach the runtime"
    with pytest.raises(TransactionRefused, match="1233 bytes, more than 1232"):
        cluster.send(big_transaction(TRANSACTION_MAX_BYTES + 1))


@pytest.mark.parametrize("raw", [b"", b"\0", b"\x01" + bytes(64), bytes(500), b"\xff" * 500])
def test_bytes_that_are_no_transaction_are_refused(raw: bytes) -> None:
    with pytest.raises(TransactionRefused, match="not a transaction"):
        make_cluster().send(raw)


def test_trailing_bytes_are_refused() -> None:
    cluster = make_cluster()
    with pytest.raises(TransactionRefused, match="trailing bytes"):
        cluster.send(payment(cluster, ALICE, SOL) + b"\0")


def test_a_forged_signature_is_refused_and_nothing_happens() -> None:
    cluster = make_cluster()
    raw = bytearray(payment(cluster, ALICE, SOL))
    raw[10] ^= 1
    for preflight in (True, False):
        with pytest.raises(TransactionRefused) as caught:
            cluster.send(bytes(raw), preflight=preflight)
        assert caught.value.error == "SignatureFailure"
    assert lamports_of(cluster, ALICE) == 0
    assert cluster.transaction_count == 0


def test_a_failing_transaction_lands_only_without_preflight_and_pays_its_fee() -> None:
    cluster = make_cluster()
    before = lamports_of(cluster, cluster.faucet.pubkey())
    raw = payment(cluster, ALICE, before * 2)
    with pytest.raises(TransactionRefused) as caught:
        cluster.send(raw)
    assert caught.value.error == {"InstructionError": [0, {"Custom": 1}]}
    assert any("insufficient lamports" in line for line in caught.value.logs)
    assert lamports_of(cluster, cluster.faucet.pubkey()) == before
    record = cluster.transaction(cluster.send(raw, preflight=False))
    assert record is not None
    assert json.loads(record.error) == {"InstructionError": [0, {"Custom": 1}]}
    assert before - lamports_of(cluster, cluster.faucet.pubkey()) == record.fee == 5000


def test_simulation_changes_nothing() -> None:
    cluster = make_cluster()
    raw = payment(cluster, ALICE, SOL)
    result = cluster.simulate(raw)
    assert not isinstance(result, TransactionRefused)
    assert lamports_of(cluster, ALICE) == 0
    assert cluster.send(raw)


def test_simulation_without_signatures_does_not_open_the_door() -> None:
    cluster = make_cluster()
    forged = bytearray(payment(cluster, ALICE, SOL))
    forged[1:65] = bytes(64)
    for preflight in (True, False):
        assert not isinstance(cluster.simulate(bytes(forged), verify=False), TransactionRefused)
        with pytest.raises(TransactionRefused):
            cluster.send(bytes(forged), preflight=preflight)
    assert isinstance(cluster.simulate(bytes(forged)), TransactionRefused)


def test_slots_clock_and_slot_hashes_advance_together() -> None:
    cluster = make_cluster()
    slot = cluster.slot
    cluster.advance(START_S + 1)
    clock = cluster.account(bytes(CLOCK_SYSVAR))
    hashes = cluster.account(bytes(SLOT_HASHES_SYSVAR))
    assert clock is not None and hashes is not None
    assert int.from_bytes(clock.data[:8], "little") == cluster.slot == slot + 1
    assert int.from_bytes(clock.data[32:40], "little") == cluster.unix_s == START_S + 1
    assert find_slot_hash(hashes.data, slot) is not None
    assert find_slot_hash(hashes.data, slot + 1) is None
    assert cluster.block_time(slot) == START_S


def test_slot_hashes_keep_the_last_512() -> None:
    cluster = make_cluster()
    first = cluster.slot
    for _ in range(SLOT_HASHES_MAX + 5):
        cluster.advance(START_S)
    account = cluster.account(bytes(SLOT_HASHES_SYSVAR))
    assert account is not None
    found = [slot for slot in range(cluster.slot + 1) if find_slot_hash(account.data, slot)]
    assert found == list(range(cluster.slot - SLOT_HASHES_MAX, cluster.slot))
    assert first not in found


def test_time_never_runs_backwards() -> None:
    cluster = make_cluster()
    cluster.advance(START_S - 100)
    assert cluster.unix_s == START_S


def slot_hash_after(seed: int, lamports: int) -> bytes:
    cluster = make_cluster(seed=seed)
    cluster.send(payment(cluster, ALICE, lamports))
    slot = cluster.slot
    cluster.advance(START_S)
    account = cluster.account(bytes(SLOT_HASHES_SYSVAR))
    assert account is not None
    found = find_slot_hash(account.data, slot)
    assert found is not None
    return found


def test_a_slot_hash_depends_on_entropy_and_transactions_and_replays_from_a_seed() -> None:
    assert slot_hash_after(1, SOL) == slot_hash_after(1, SOL)
    assert slot_hash_after(1, SOL) != slot_hash_after(2, SOL)
    assert slot_hash_after(1, SOL) != slot_hash_after(1, SOL + 1)


def test_a_slot_hash_is_drawn_at_the_end_of_its_slot() -> None:
    def cluster_with(last: bytes) -> LocalCluster:
        script = [bytes(32), bytes(32)]
        return LocalCluster(lambda _: script.pop(0) if script else last, now_unix_s=START_S)

    one, two = cluster_with(b"\1" * 32), cluster_with(b"\2" * 32)
    assert one.latest_blockhash() == two.latest_blockhash(), "alike until the slot ends"
    one.advance(START_S)
    two.advance(START_S)
    assert one.latest_blockhash() != two.latest_blockhash()


def test_genesis_hashes_differ_between_chains() -> None:
    assert make_cluster(seed=1).genesis_hash != make_cluster(seed=2).genesis_hash


def test_epochs_turn_without_harm() -> None:
    cluster = make_cluster()
    cluster.slot = SLOTS_PER_EPOCH - 1
    cluster.advance(START_S)
    assert cluster.epoch == 1
    assert cluster.send(payment(cluster, ALICE, SOL))


def test_equal_airdrops_in_one_slot_are_two_airdrops() -> None:
    cluster = make_cluster()
    assert airdrop(cluster, bytes(ALICE), SOL) != airdrop(cluster, bytes(ALICE), SOL)
    assert lamports_of(cluster, ALICE) == 2 * SOL


@pytest.mark.parametrize("lamports", [0, -1, AIRDROP_MAX_LAMPORTS + 1])
def test_airdrops_are_bounded(lamports: int) -> None:
    with pytest.raises(LocalError, match="lamports"):
        airdrop(make_cluster(), bytes(ALICE), lamports)


def test_program_accounts_lists_owners() -> None:
    cluster = make_cluster()
    airdrop(cluster, bytes(ALICE), SOL)
    assert ALICE in {address for address, _ in cluster.program_accounts(bytes(32))}


def record(name: str, address: bytes) -> TransactionRecord:
    return TransactionRecord(name, 1, 1, "", 5000, 0, b"", [], [address], [1], [1], [], [])


def test_history_forgets_the_oldest_first_everywhere() -> None:
    history = History(capacity=2)
    forgotten = [history.add(number, record(str(number), bytes(ALICE))) for number in range(4)]
    assert forgotten == [None, None, 0, 1]
    assert history.get("1") is None
    assert [found.signature for found in history.of_address(bytes(ALICE))] == ["3", "2"]
    assert list(history.of_address(bytes(BOB))) == []


def test_two_clusters_cannot_share_a_directory(tmp_path: Path) -> None:
    owner = make_cluster(tmp_path)
    with pytest.raises(LocalError, match="in use"):
        make_cluster(tmp_path)
    owner.close()


def test_transactions_before_another_one_that_does_not_name_the_address() -> None:
    cluster = make_cluster()
    first = cluster.send(payment(cluster, ALICE, SOL))
    other = cluster.send(payment(cluster, BOB, SOL))
    cluster.send(payment(cluster, ALICE, SOL + 1))
    assert [found.signature for found in cluster.transactions_of(bytes(ALICE), before=other)] == [first]
    assert cluster.transactions_of(bytes(ALICE), before=first) == []
    assert cluster.transactions_of(bytes(ALICE), before="unknown") == []
