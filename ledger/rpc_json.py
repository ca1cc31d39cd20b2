"""How Solana's JSON-RPC writes accounts, token amounts and transactions (shapes as agave's RPC gives them)."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from solders.account import Account
from solders.instruction import CompiledInstruction
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from ..protocol.errors import RemoteError
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


def transaction_record(signature: str, answer: Json) -> TransactionRecord:
    """The transaction of an answer of getTransaction in base64; RemoteError when it is not one."""
    try:
        raw, meta = b64decode(answer["transaction"][0], validate=True), answer["meta"]
        loaded = meta.get("loadedAddresses") or {"writable": [], "readonly": []}
        keys = [bytes(key) for key in VersionedTransaction.from_bytes(raw).message.account_keys]
        keys += [bytes(Pubkey.from_string(text)) for text in (*loaded["writable"], *loaded["readonly"])]
        return TransactionRecord(
            signature=signature,
            slot=int(answer["slot"]),
            unix_s=int(answer["blockTime"] or 0),
            error=json.dumps(meta["err"]) if meta["err"] else "",
            fee=int(meta["fee"]),
            units=int(meta.get("computeUnitsConsumed") or 0),
            raw=raw,
            logs=[str(line) for line in meta.get("logMessages") or ()],
            addresses=keys,
            lamports_before=[int(lamports) for lamports in meta["preBalances"]],
            lamports_after=[int(lamports) for lamports in meta["postBalances"]],
            tokens_before=[_balance(one) for one in meta.get("preTokenBalances") or ()],
            tokens_after=[_balance(one) for one in meta.get("postTokenBalances") or ()],
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RemoteError(f"transaction {signature[:12]} is not written as Solana's RPC does: {error}") from None


def _balance(written: Json) -> TokenBalance:
    mint, owner = (bytes(Pubkey.from_string(written[name])) for name in ("mint", "owner"))
    return TokenBalance(int(written["accountIndex"]), mint, owner, int(written["uiTokenAmount"]["amount"]))


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
