"""How Solana's JSON-RPC writes accounts, token amounts and statuses (shapes as agave's RPC gives them)."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from solders.account import Account

from ..protocol.limits import BASE58_DATA_MAX_BYTES
from ..protocol.units import base58
from .escrow_layout import TOKEN_PROGRAM
from .history import TransactionRecord
from .rpc_params import INVALID_REQUEST, RpcFault
from .token import CYX_DECIMALS, TokenAccount, read_mint, read_token_account

Json = dict[str, Any]
Decimals = Callable[[bytes], int]
"""Decimals of a mint (32 bytes), 0 where there is none."""
ENCODINGS = ("binary", "base58", "base64", "jsonParsed")


def token_amount(amount: int, decimals: int = CYX_DECIMALS) -> Json:
    """UiTokenAmount."""
    whole, rest = divmod(amount, 10**decimals)
    text = f"{whole}.{rest:0{decimals}d}".rstrip("0").rstrip(".") if decimals else str(whole)
    return {"amount": str(amount), "decimals": decimals, "uiAmount": float(text), "uiAmountString": text}


def account_json(account: Account | None, encoding: str, part: tuple[int, int] | None, decimals: Decimals) -> Any:
    """UiAccount, None for None; `part` is (offset, length) of a dataSlice. What cannot be parsed comes in base64.

    RpcFault when base58 is asked for more than BASE58_DATA_MAX_BYTES.
    """
    if account is None:
        return None
    raw = bytes(account.data)
    data = raw[part[0] : part[0] + part[1]] if part else raw
    written: Any = [b64encode(data).decode(), "base64"]
    if encoding == "jsonParsed":
        written = _parsed(account, decimals) or written
    elif encoding in ("base58", "binary"):
        if len(data) > BASE58_DATA_MAX_BYTES:
            text = f"Encoded binary (base 58) data should be less than {BASE58_DATA_MAX_BYTES} bytes, please use Base64"
            raise RpcFault(INVALID_REQUEST, f"{text} encoding.")
        written = [base58(data), "base58"] if encoding == "base58" else base58(data)
    return {
        "lamports": account.lamports,
        "owner": str(account.owner),
        "data": written,
        "executable": account.executable,
        "rentEpoch": account.rent_epoch,
        "space": len(raw),
    }


def _parsed(account: Account, decimals: Decimals) -> Json | None:
    if account.owner != TOKEN_PROGRAM:
        return None
    raw = bytes(account.data)
    if held := read_token_account(raw):
        parsed = {"type": "account", "info": _token_account(held, raw, decimals(held.mint))}
    elif minted := read_mint(raw):
        info = {
            "mintAuthority": _optional_key(raw, 0),
            "supply": str(minted[0]),
            "decimals": minted[1],
            "isInitialized": True,
            "freezeAuthority": _optional_key(raw, 46),
        }
        parsed = {"type": "mint", "info": info}
    else:
        return None
    return {"program": "spl-token", "parsed": parsed, "space": len(raw)}


def _token_account(held: TokenAccount, raw: bytes, decimals: int) -> Json:
    """Offsets are those of SPL Token's Account: delegate 72, state 108, native 109, delegated 121, closer 129."""
    info: Json = {
        "mint": base58(held.mint),
        "owner": base58(held.owner),
        "tokenAmount": token_amount(held.amount, decimals),
        "state": "frozen" if raw[108] == 2 else "initialized",
        "isNative": raw[109] == 1,
    }
    if raw[109] == 1:
        info["rentExemptReserve"] = token_amount(int.from_bytes(raw[113:121], "little"), decimals)
    if delegate := _optional_key(raw, 72):
        info["delegate"] = delegate
        info["delegatedAmount"] = token_amount(int.from_bytes(raw[121:129], "little"), decimals)
    if closer := _optional_key(raw, 129):
        info["closeAuthority"] = closer
    return info


def _optional_key(raw: bytes, at: int) -> str | None:
    return base58(raw[at + 4 : at + 36]) if raw[at] else None


def status_json(record: TransactionRecord) -> Json:
    """One entry of getSignatureStatuses; the local chain is final at once."""
    error = json.loads(record.error) if record.error else None
    status = {"Err": error} if error else {"Ok": None}
    return {
        "slot": record.slot, "confirmations": None, "err": error, "status": status, "confirmationStatus": "finalized",
    }  # fmt: skip
