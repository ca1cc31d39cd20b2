"""How Solana's JSON-RPC writes transactions and blocks (shapes as agave's RPC gives them).

`jsonParsed` names every account with its role; instructions of programs are given undecoded, which is what a cluster
does with programs that it does not know.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

from solders.instruction import CompiledInstruction
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from ..protocol.errors import RemoteError
from ..protocol.units import base58
from .escrow_layout import TOKEN_PROGRAM
from .history import TokenBalance, TransactionRecord
from .rpc_json import Decimals, Json, token_amount
from .rpc_params import INVALID_PARAMS, VERSION_UNSUPPORTED, RpcFault

TRANSACTION_ENCODINGS = ("json", "jsonParsed", "base58", "base64")


def transaction_encoding(wish: Any) -> str:
    """The encoding that an option names; json without one."""
    encoding = "json" if wish is None else wish
    if encoding not in TRANSACTION_ENCODINGS:
        known = ", ".join(TRANSACTION_ENCODINGS)
        raise RpcFault(INVALID_PARAMS, f"Invalid params: encoding: {str(encoding)[:32]!r} is not one of {known}")
    return str(encoding)


def transaction_json(record: TransactionRecord, encoding: str, decimals: Decimals, *, newest_version: Any) -> Json:
    """Transaction, meta and version. RpcFault: it is of version 0 and `newest_version` is not a number."""
    transaction = VersionedTransaction.from_bytes(record.raw)
    message = transaction.message
    assert isinstance(message, Message | MessageV0), "the cluster accepts no other"
    if not isinstance(message, Message) and not isinstance(newest_version, int):
        raise RpcFault(
            VERSION_UNSUPPORTED,
            "Transaction version (0) is not supported by the requesting client. Please try the request again with the"
            ' following configuration parameter: "maxSupportedTransactionVersion": 0',
        )
    written: Any
    if encoding == "base64":
        written = [b64encode(record.raw).decode(), "base64"]
    elif encoding == "base58":
        written = [base58(record.raw), "base58"]
    else:
        parsed = _parsed(record, message) if encoding == "jsonParsed" else _message(message)
        written = {"signatures": [str(signature) for signature in transaction.signatures], "message": parsed}
    version = "legacy" if isinstance(message, Message) else 0
    return {"transaction": written, "meta": _meta(record, message, decimals), "version": version}


def landed_json(record: TransactionRecord, encoding: str, decimals: Decimals, *, newest_version: Any) -> Json:
    """The answer of getTransaction: the same with slot and time."""
    written = transaction_json(record, encoding, decimals, newest_version=newest_version)
    return {"slot": record.slot, "blockTime": record.unix_s, **written}


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


def _meta(record: TransactionRecord, message: Message | MessageV0, decimals: Decimals) -> Json:
    error = json.loads(record.error) if record.error else None
    static, writable = len(message.account_keys), _loaded_writable(message)
    loaded = [base58(address) for address in record.addresses[static:]]
    return {
        "err": error,
        "status": {"Err": error} if error else {"Ok": None},
        "fee": record.fee,
        "preBalances": record.lamports_before,
        "postBalances": record.lamports_after,
        "preTokenBalances": [_token_balance(balance, decimals) for balance in record.tokens_before],
        "postTokenBalances": [_token_balance(balance, decimals) for balance in record.tokens_after],
        "innerInstructions": [],
        "logMessages": record.logs,
        "rewards": [],
        "loadedAddresses": {"writable": loaded[:writable], "readonly": loaded[writable:]},
        "computeUnitsConsumed": record.units,
    }


def _loaded_writable(message: Message | MessageV0) -> int:
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
    return sum(len(bytes(lookup.writable_indexes)) for lookup in lookups)


def _message(message: Message | MessageV0) -> Json:
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
    return {**written, **_lookups(message)}


def _lookups(message: Message | MessageV0) -> Json:
    if not isinstance(message, MessageV0):
        return {}
    return {
        "addressTableLookups": [
            {
                "accountKey": str(lookup.account_key),
                "writableIndexes": list(bytes(lookup.writable_indexes)),
                "readonlyIndexes": list(bytes(lookup.readonly_indexes)),
            }
            for lookup in message.address_table_lookups
        ]
    }


def _instruction(instruction: CompiledInstruction) -> Json:
    return {
        "programIdIndex": instruction.program_id_index,
        "accounts": list(bytes(instruction.accounts)),
        "data": base58(bytes(instruction.data)),
        "stackHeight": None,
    }


def _parsed(record: TransactionRecord, message: Message | MessageV0) -> Json:
    header, static = message.header, len(message.account_keys)
    signers, loaded_writable = header.num_required_signatures, _loaded_writable(message)
    names = [base58(address) for address in record.addresses]

    def writable(index: int) -> bool:
        if index < signers:
            return index < signers - header.num_readonly_signed_accounts
        if index < static:
            return index < static - header.num_readonly_unsigned_accounts
        return index < static + loaded_writable

    keys = [
        {
            "pubkey": name,
            "signer": index < signers,
            "writable": writable(index),
            "source": "transaction" if index < static else "lookupTable",
        }
        for index, name in enumerate(names)
    ]
    instructions = [
        {
            "programId": names[instruction.program_id_index],
            "accounts": [names[index] for index in bytes(instruction.accounts)],
            "data": base58(bytes(instruction.data)),
            "stackHeight": None,
        }
        for instruction in message.instructions
    ]
    parsed = {"accountKeys": keys, "recentBlockhash": str(message.recent_blockhash), "instructions": instructions}
    return {**parsed, **_lookups(message)}


def _token_balance(balance: TokenBalance, decimals: Decimals) -> Json:
    return {
        "accountIndex": balance.index,
        "mint": base58(balance.mint),
        "owner": base58(balance.owner),
        "programId": str(TOKEN_PROGRAM),
        "uiTokenAmount": token_amount(balance.amount, decimals(balance.mint)),
    }
