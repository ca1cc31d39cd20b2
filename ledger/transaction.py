"""Transactions as bytes: parsing hostile ones, the accounts that they name, and Solana's errors as JSON and as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from solders.account import Account
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from ..protocol.errors import CyxError

_LOOKUP_TABLE_HEADER_BYTES = 56


class TransactionRefused(CyxError):
    """A cluster did not take a transaction, or a simulation of it failed.

    `error` is Solana's TransactionError as JSON ("BlockhashNotFound", {"InstructionError": [0, {"Custom": 1}]}), ""
    when the bytes are not a transaction at all.
    """

    exit_code = 5

    def __init__(self, message: str, error: Any, logs: tuple[str, ...] = (), units: int = 0) -> None:
        self.error, self.logs, self.units = error, logs, units
        super().__init__(message or error_text(error))


def parse_transaction(raw: bytes) -> VersionedTransaction:
    """Decode hostile bytes; TransactionRefused unless they are exactly one transaction with enough signatures."""
    try:
        transaction = VersionedTransaction.from_bytes(raw)
        transaction.sanitize()
    except Exception as error:  # solders raises ValueError, its own SanitizeError and pyo3 panics alike
        raise TransactionRefused(f"not a transaction: {error}", "") from error
    if not isinstance(transaction.message, Message | MessageV0):
        raise TransactionRefused("not a transaction: neither legacy nor version 0", "")
    if bytes(transaction) != raw or not transaction.signatures:
        raise TransactionRefused("not a transaction: trailing bytes or no signature", "")
    return transaction


def transaction_addresses(
    transaction: VersionedTransaction, account: Callable[[bytes], Account | None]
) -> tuple[list[Pubkey], list[Pubkey]]:
    """(all addresses in the order of the message's indexes, those that it may write), lookup tables resolved."""
    message = transaction.message
    header, static = message.header, list(message.account_keys)
    signers = header.num_required_signatures
    read_only_from = len(static) - header.num_readonly_unsigned_accounts
    writable = static[: signers - header.num_readonly_signed_accounts] + static[signers:read_only_from]
    loaded_writable: list[Pubkey] = []
    loaded_read_only: list[Pubkey] = []
    for lookup in message.address_table_lookups if isinstance(message, MessageV0) else ():
        table = account(bytes(lookup.account_key))
        entries = bytes(table.data)[_LOOKUP_TABLE_HEADER_BYTES:] if table else b""
        loaded_writable += _entries(entries, bytes(lookup.writable_indexes))
        loaded_read_only += _entries(entries, bytes(lookup.readonly_indexes))
    return static + loaded_writable + loaded_read_only, writable + loaded_writable


def _entries(table: bytes, indexes: bytes) -> list[Pubkey]:
    slices = (table[32 * index : 32 * index + 32] for index in indexes)
    return [Pubkey.from_bytes(address) for address in slices if len(address) == 32]


def instruction_error(error: Any) -> tuple[int, int | None] | None:
    """(instruction index, custom code or None) when `error` is an InstructionError."""
    if not isinstance(error, dict) or not isinstance(error.get("InstructionError"), list):
        return None
    index, detail = error["InstructionError"]
    code = detail.get("Custom") if isinstance(detail, dict) else None
    return int(index), code


def error_text(error: Any) -> str:
    """One line for a person, worded like Solana's."""
    found = instruction_error(error)
    if found is None:
        known = {
            "BlockhashNotFound": "Blockhash not found",
            "AlreadyProcessed": "This transaction has already been processed",
            "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
            "InsufficientFundsForFee": "Insufficient funds for fee",
            "SignatureFailure": "Transaction signature verification failure",
        }
        return known.get(error, str(error)) if isinstance(error, str) else f"transaction failed: {error}"
    index, code = found
    detail = f"custom program error: {code:#x}" if code is not None else str(error["InstructionError"][1])
    return f"Error processing Instruction {index}: {detail}"
