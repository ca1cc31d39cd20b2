"""The chain as a service: solana-py's own client, occupied ports, a full disk."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.core import RPCException
from solana.rpc.models import MemcmpOpts, TokenAccountOpts
from solders.message import Message
from solders.pubkey import Pubkey
from solders.rpc.errors import SendTransactionPreflightFailureMessage
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from cyxnode.ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_service import serve_chain
from cyxnode.ledger.http_rpc import open_http_rpc
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.units import base58
from ledger_world import SOL, wallet

ALICE, BOB = wallet("alice"), wallet("bob").pubkey()


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url, commitment=Confirmed) as opened:
        yield opened


async def payment(client: AsyncClient, lamports: int) -> VersionedTransaction:
    blockhash = (await client.get_latest_blockhash()).value.blockhash
    gift = TransferParams(from_pubkey=ALICE.pubkey(), to_pubkey=BOB, lamports=lamports)
    message = Message.new_with_blockhash([transfer(gift)], ALICE.pubkey(), blockhash)
    return VersionedTransaction(message, [ALICE])


async def test_solana_py_pays_and_reads_back(client: AsyncClient) -> None:
    await client.request_airdrop(ALICE.pubkey(), 3 * SOL)
    signature = (await client.send_transaction(await payment(client, SOL))).value
    status = (await client.get_signature_statuses([signature])).value[0]
    assert status is not None and status.err is None
    assert (await client.get_balance(BOB)).value == SOL
    assert [found.signature for found in (await client.get_signatures_for_address(BOB)).value] == [signature]
    found = (await client.get_transaction(signature, max_supported_transaction_version=0)).value
    assert found is not None and found.transaction.meta is not None
    assert found.transaction.meta.fee == 5000
    assert (await client.get_account_info(BOB)).value.lamports == SOL  # type: ignore[union-attr]
    several = (await client.get_multiple_accounts([BOB, Pubkey.from_bytes(bytes([5] * 32))])).value
    assert [account.lamports if account else None for account in several] == [SOL, None]


async def test_solana_py_reads_the_chain(client: AsyncClient) -> None:
    assert await client.is_connected()
    slot = (await client.get_slot()).value
    assert (await client.get_block_height()).value >= slot
    assert (await client.get_epoch_info()).value.absolute_slot >= slot
    assert (await client.get_block_time(slot)).value
    assert (await client.get_version()).value.solana_core
    assert (await client.get_minimum_balance_for_rent_exemption(0)).value == 890_880
    assert (await client.get_transaction_count()).value > 0
    assert (await client.get_recent_prioritization_fees()).value


async def test_solana_py_reads_tokens_and_programs(client: AsyncClient, url: str) -> None:
    async with open_http_rpc(url) as rpc:
        await rpc.request_tokens(bytes(BOB), 2_500_000)
    supply = (await client.get_token_supply(Pubkey.from_bytes(LOCAL_MINT))).value
    assert (supply.amount, supply.decimals) == ("2500000", 6)
    owned = (await client.get_token_accounts_by_owner(BOB, TokenAccountOpts(mint=Pubkey.from_bytes(LOCAL_MINT)))).value
    assert len(owned) == 1
    balance = (await client.get_token_account_balance(owned[0].pubkey)).value
    assert balance.ui_amount_string == "2.5"
    program = Pubkey.from_bytes(LOCAL_PROGRAM_ID)
    config = (await client.get_program_accounts(program, encoding="base64")).value
    assert len(config) == 1
    tag = MemcmpOpts(offset=0, bytes=base58(bytes([0xC2])))
    assert (await client.get_program_accounts(program, filters=[tag])).value == []


async def test_a_failing_transaction_reaches_solana_py_with_error_and_logs(client: AsyncClient) -> None:
    await client.request_airdrop(ALICE.pubkey(), SOL)
    with pytest.raises(RPCException) as caught:
        await client.send_transaction(await payment(client, 5 * SOL))
    failure = caught.value.args[0]
    assert isinstance(failure, SendTransactionPreflightFailureMessage)
    assert json.loads(failure.data.to_json())["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert any("insufficient lamports" in line for line in failure.data.logs or [])


async def test_a_duplicate_and_fees(client: AsyncClient) -> None:
    await client.request_airdrop(ALICE.pubkey(), 3 * SOL)
    transaction = await payment(client, SOL)
    assert (await client.get_fee_for_message(transaction.message)).value == 5000  # type: ignore[arg-type]
    simulated = (await client.simulate_transaction(transaction)).value
    assert simulated.err is None and simulated.units_consumed == 150
    await client.send_transaction(transaction)
    with pytest.raises(RPCException) as caught:
        await client.send_transaction(transaction)
    assert "already been processed" in str(caught.value.args[0].message)
    assert (await client.get_balance(BOB)).value == SOL


@pytest.mark.slow
async def test_slots_tick_by_themselves(client: AsyncClient) -> None:
    first = (await client.get_slot()).value
    with trio.fail_after(5):
        while (await client.get_slot()).value == first:  # noqa: ASYNC110 (a server has no event)
            await trio.sleep(0.02)


async def test_a_chain_whose_disk_fails_ends_with_one_local_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise LocalError("disk full", field="data dir")

    class BreakDisk:
        def started(self, value: str | None = None) -> None:
            monkeypatch.setattr("cyxnode.ledger.cluster_store.ClusterStore.put_slot", full)

    with trio.fail_after(5), pytest.raises(LocalError, match="data dir: disk full"):
        await serve_chain("127.0.0.1", 0, tmp_path, task_status=BreakDisk())


async def test_an_occupied_port_is_named_with_the_fix(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with trio.fail_after(5), pytest.raises(LocalError, match=f"port: {port} is in use") as caught:
            await serve_chain("127.0.0.1", port, tmp_path)
    assert (caught.value.field, caught.value.fix.split()[0]) == ("port", "stop")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.org", "::"])
async def test_only_loopback_is_served(host: str) -> None:
    with trio.fail_after(5), pytest.raises(LocalError, match=r"host: .* is not loopback"):
        await serve_chain(host, 0, None)
