"""How Solana's JSON-RPC writes accounts, token amounts and transactions (shapes as agave's RPC gives them)."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

from solders.account import Account
from solders.instruction import CompiledInstruction
from solders.message import MessageV0
from solders.transaction import VersionedTransaction

from ..protocol.units import base58
from .escrow_layout import TOKEN_PROGRAM
from .history import TokenBalance, TransactionRecord
from .token import CYX_DECIMALS, read_mint, read_token_account

Json = dict[str, Any]
BASE58_DATA_MAX_BYTES = 128


def token_amount(amount: int, decimals: int = CYX_DECIMALS) -> Json:
    """UiTokenAmount."""
    whole, rest = divmod(amount, 10**decimals)
    text = f"{whole}.{rest:0{decimals}d}".rstrip("0").rstrip(".") if decimals else str(whole)
    return {"amount": str(amount), "decimals": decimals, "uiAmount": float(text), "uiAmountString": text}


def account_json(account: Account | None, encoding: str = "base64", part: tuple[int, int] | None = None) -> Json | None:
    """UiAccount; `part` is (offset, length) of a dataSlice. An unknown encoding gives base64, as jsonParsed may."""
    if account is None:
        return None
    raw = bytes(account.data)
    data = raw[part[0] : part[0] + part[1]] if part else raw
    written: Any = [b64encode(data).decode(), "base64"]
    if encoding == "jsonParsed":
        written = _parsed(account) or written
    elif encoding in ("base58", "binary") and len(data) <= BASE58_DATA_MAX_BYTES:
        written = [base58(data), "base58"] if encoding == "base58" else base58(data)
    return {
        "lamports": account.lamports,
        "owner": str(account.owner),
        "data": written,
        "executable": account.executable,
        "rentEpoch": account.rent_epoch,
        "space": len(raw),
    }


def _parsed(account: Account) -> Json | None:
    if account.owner != TOKEN_PROGRAM:
        return None
    raw = bytes(account.data)
    if held := read_token_account(raw):
        kind = "account"
        info: Json = {
            "mint": base58(held.mint),
            "owner": base58(held.owner),
            "tokenAmount": token_amount(held.amount),
            "state": "frozen" if raw[108] == 2 else "initialized",
            "isNative": False,
        }
    elif minted := read_mint(raw):
        kind = "mint"
        authority = base58(raw[4:36]) if raw[0] else None
        info = {
            "mintAuthority": authority,
            "supply": str(minted[0]),
            "decimals": minted[1],
            "isInitialized": True,
            "freezeAuthority": base58(raw[50:82]) if raw[46] else None,
        }
    else:
        return None
    return {"program": "spl-token", "parsed": {"type": kind, "info": info}, "space": len(raw)}


def status_json(record: TransactionRecord) -> Json:
    """One entry of getSignatureStatuses; the local chain is final at once."""
    error = json.loads(record.error) if record.error else None
    status = {"Err": error} if error else {"Ok": None}
    return {
        "slot": record.slot, "confirmations": None, "err": error, "status": status, "confirmationStatus": "finalized",
    }  # fmt: skip


def transaction_json(record: TransactionRecord, encoding: str) -> Json:
    """The answer of getTransaction."""
    transaction = VersionedTransaction.from_bytes(record.raw)
    versioned = isinstance(transaction.message, MessageV0)
    error = json.loads(record.error) if record.error else None
    written: Any
    if encoding == "base64":
        written = [b64encode(record.raw).decode(), "base64"]
    elif encoding == "base58":
        written = [base58(record.raw), "base58"]
    else:
        written = {"signatures": [str(s) for s in transaction.signatures], "message": _message(transaction)}
    static = len(transaction.message.account_keys)
    meta = {
        "err": error,
        "status": {"Err": error} if error else {"Ok": None},
        "fee": record.fee,
        "preBalances": record.lamports_before,
        "postBalances": record.lamports_after,
        "preTokenBalances": [_token_balance(balance) for balance in record.tokens_before],
        "postTokenBalances": [_token_balance(balance) for balance in record.tokens_after],
        "innerInstructions": [],
        "logMessages": record.logs,
        "rewards": [],
        "loadedAddresses": {"writable": [base58(a) for a in record.addresses[static:]], "readonly": []},
        "computeUnitsConsumed": record.units,
    }
    return {
        "slot": record.slot, "blockTime": record.unix_s, "transaction": written, "meta": meta,
        "version": 0 if versioned else "legacy",
    }  # fmt: skip


def _message(transaction: VersionedTransaction) -> Json:
    message = transaction.message
    header = message.header
    written: Json = {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": [str(key) for key in message.account_keys],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [_instruction(instruction) for instruction in message.instructions],
    }
    if isinstance(message, MessageV0):
        written["addressTableLookups"] = [
            {
                "accountKey": str(lookup.account_key),
                "writableIndexes": list(bytes(lookup.writable_indexes)),
                "readonlyIndexes": list(bytes(lookup.readonly_indexes)),
            }
            for lookup in message.address_table_lookups
        ]
    return written


def _instruction(instruction: CompiledInstruction) -> Json:
    return {
        "programIdIndex": instruction.program_id_index,
        "accounts": list(bytes(instruction.accounts)),
        "data": base58(bytes(instruction.data)),
        "stackHeight": None,
    }


def _token_balance(balance: TokenBalance) -> Json:
    return {
        "accountIndex": balance.index,
        "mint": base58(balance.mint),
        "owner": base58(balance.owner),
        "programId": str(TOKEN_PROGRAM),
        "uiTokenAmount": token_amount(balance.amount),
    }
