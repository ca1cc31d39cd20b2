"""Transactions of the past, decoded from what an RPC server says of them (getTransaction, encoding base64).

The answer is hostile until it is decoded: anything but a transaction with its balances raises RemoteError.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from typing import Any

import msgspec
from solders.transaction import VersionedTransaction

from ..protocol.errors import CyxError, RemoteError
from ..protocol.units import parse_id
from .transaction import parse_transaction


@dataclass(frozen=True, slots=True)
class PastInstruction:
    """One instruction, its accounts resolved to addresses."""

    program: bytes
    accounts: tuple[bytes, ...]
    data: bytes

    def account(self, index: int) -> bytes:
        """The address of a role; empty when a failed transaction left it out."""
        return self.accounts[index] if index < len(self.accounts) else b""


@dataclass(frozen=True, slots=True)
class TokenChange:
    """What a token account held before and after, in base units."""

    mint: bytes
    owner: bytes
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class PastTransaction:
    """A transaction that landed. `error` is Solana's error as JSON, None when it succeeded; `unix_s` may be unknown.

    `lamports` maps each address that it names to its balance before and after, `tokens` each token account.
    """

    signature: str
    slot: int
    unix_s: int | None
    error: Any
    fee: int
    payer: bytes
    instructions: tuple[PastInstruction, ...]
    lamports: dict[bytes, tuple[int, int]]
    tokens: dict[bytes, TokenChange]


class _Amount(msgspec.Struct):
    amount: str


class _TokenBalance(msgspec.Struct, rename="camel"):
    account_index: int
    mint: str
    ui_token_amount: _Amount
    owner: str = ""


class _Loaded(msgspec.Struct):
    writable: list[str]
    readonly: list[str]


class _Meta(msgspec.Struct, rename="camel"):
    fee: int
    pre_balances: list[int]
    post_balances: list[int]
    err: Any = None
    pre_token_balances: list[_TokenBalance] | None = None
    post_token_balances: list[_TokenBalance] | None = None
    loaded_addresses: _Loaded | None = None


class _Answer(msgspec.Struct, rename="camel"):
    slot: int
    transaction: tuple[str, str]
    meta: _Meta
    block_time: int | None = None


def decode_transaction(signature: str, answer: dict[str, Any]) -> PastTransaction:
    """The transaction called `signature`; RemoteError when the answer is about another one, or about none."""
    try:
        return _decode(signature, msgspec.convert(answer, _Answer))
    except (msgspec.ValidationError, CyxError, Base64Error, ValueError, IndexError) as error:
        raise RemoteError(f"the RPC server describes transaction {signature} wrongly: {error}") from None


def _decode(signature: str, answer: _Answer) -> PastTransaction:
    written, encoding = answer.transaction
    if encoding != "base64":
        raise RemoteError(f"encoded as {encoding}")
    transaction, meta = parse_transaction(b64decode(written, validate=True)), answer.meta
    if str(transaction.signatures[0]) != signature:
        raise RemoteError("it has another signature")
    keys = [bytes(key) for key in transaction.message.account_keys]
    if meta.loaded_addresses is not None:
        loaded = meta.loaded_addresses.writable + meta.loaded_addresses.readonly
        keys += [parse_id(text, field="loadedAddresses") for text in loaded]
    return PastTransaction(
        signature=signature,
        slot=answer.slot,
        unix_s=answer.block_time,
        error=meta.err,
        fee=meta.fee,
        payer=keys[0],
        instructions=_instructions(transaction, keys),
        lamports=dict(zip(keys, zip(meta.pre_balances, meta.post_balances, strict=True), strict=True)),
        tokens=_tokens(keys, meta),
    )


def _instructions(transaction: VersionedTransaction, keys: list[bytes]) -> tuple[PastInstruction, ...]:
    return tuple(
        PastInstruction(
            keys[one.program_id_index], tuple(keys[index] for index in bytes(one.accounts)), bytes(one.data)
        )
        for one in transaction.message.instructions
    )


def _tokens(keys: list[bytes], meta: _Meta) -> dict[bytes, TokenChange]:
    before = {one.account_index: one for one in meta.pre_token_balances or ()}
    after = {one.account_index: one for one in meta.post_token_balances or ()}
    changes = {}
    for index in before.keys() | after.keys():
        known = after.get(index) or before[index]
        held = [int(side[index].ui_token_amount.amount) if index in side else 0 for side in (before, after)]
        owner = parse_id(known.owner, field="owner") if known.owner else b""
        changes[keys[index]] = TokenChange(parse_id(known.mint, field="mint"), owner, held[0], held[1])
    return changes
