"""What a program on solana-py does with a chain, its websocket client included, which needs asyncio.

Usage: python solana_py_flow.py URL WEBSOCKET_URL PROGRAM. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.models import DataSliceOpts, MemcmpOpts
from solana.rpc.websocket_api import SolanaWsClient
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.rpc.config import RpcTransactionLogsFilterMentions
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

SOL = 10**9


async def main(url: str, websocket: str, program: str) -> dict[str, Any]:
    """Subscribe, pay, and read what was told."""
    alice, bob, found = Keypair(), Keypair().pubkey(), dict[str, Any]()
    async with AsyncClient(url, commitment=Confirmed) as client, SolanaWsClient(websocket) as socket:
        await client.request_airdrop(alice.pubkey(), 2 * SOL)
        blockhash = (await client.get_latest_blockhash()).value.blockhash
        gift = TransferParams(from_pubkey=alice.pubkey(), to_pubkey=bob, lamports=SOL)
        message = Message.new_with_blockhash([transfer(gift)], alice.pubkey(), blockhash)
        transaction = VersionedTransaction(message, [alice])
        signature = transaction.signatures[0]
        await socket.signature_subscribe(signature=signature, commitment=Confirmed)
        account = await socket.account_subscribe(pubkey=bob, commitment=Confirmed, encoding="base64")
        await socket.logs_subscribe(filter_=RpcTransactionLogsFilterMentions(bob))
        part = DataSliceOpts(offset=0, length=0)
        await socket.program_subscribe(program_id=Pubkey.default(), encoding="base64", data_slice=part)
        await client.send_transaction(transaction)
        while len(found) < 4:
            notification = await asyncio.wait_for(socket.recv(), 10)
            value = notification.result.value
            match type(notification).__name__:
                case "SignatureNotification":
                    found["signature"] = value.err
                case "AccountNotification":
                    found["account"] = value.lamports
                case "LogsNotification":
                    found["logs"] = [value.signature == signature, value.err]
                case "ProgramNotification":
                    found["program"] = str(value.account.owner)
        await socket.unsubscribe(account)
        await socket.slot_subscribe()
        while type(notification).__name__ != "SlotNotification":
            notification = await asyncio.wait_for(socket.recv(), 10)
        found["slot"] = notification.result.slot
        confirmed = await client.confirm_transaction(signature, Confirmed)
        found["confirmed"] = str(confirmed.value[0].confirmation_status)
        tag = MemcmpOpts(offset=0, bytes="4L")  # base58 of 0xc1, which opens Config
        configs = await client.get_program_accounts(Pubkey.from_string(program), encoding="base64", filters=[tag])
        found["configs"] = len(configs.value)
    return found


if __name__ == "__main__":
    json.dump(asyncio.run(main(*sys.argv[1:])), sys.stdout)
