"""The local chain's memory of transactions: bounded, by signature and by address, oldest forgotten first."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

import msgspec

from ..protocol.limits import CHAIN_HISTORY_MAX, SIGNATURES_PAGE_MAX


class TokenBalance(msgspec.Struct, frozen=True, array_like=True):
    """What a token account named by a transaction held: `index` is its place among the transaction's accounts."""

    index: int
    mint: bytes
    owner: bytes
    amount: int


class TransactionRecord(msgspec.Struct, frozen=True, array_like=True):
    """An executed transaction. `error` is Solana's error as JSON text, empty when it succeeded."""

    signature: str
    slot: int
    unix_s: int
    error: str
    fee: int
    units: int
    raw: bytes
    logs: list[str]
    addresses: list[bytes]
    lamports_before: list[int]
    lamports_after: list[int]
    tokens_before: list[TokenBalance]
    tokens_after: list[TokenBalance]


class History:
    """The last CHAIN_HISTORY_MAX transactions."""

    def __init__(self, capacity: int = CHAIN_HISTORY_MAX) -> None:
        self._capacity = capacity
        self._records: OrderedDict[str, tuple[int, TransactionRecord]] = OrderedDict()
        self._by_address: dict[bytes, deque[str]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[TransactionRecord]:
        """All records, oldest first."""
        return (record for _, record in self._records.values())

    def add(self, sequence: int, record: TransactionRecord) -> int | None:
        """Remember a transaction; returns the sequence number of the one that was forgotten for it."""
        self._records[record.signature] = (sequence, record)
        for address in set(record.addresses):
            self._by_address.setdefault(address, deque(maxlen=SIGNATURES_PAGE_MAX)).append(record.signature)
        if len(self._records) <= self._capacity:
            return None
        _, (forgotten, old) = self._records.popitem(last=False)
        for address in set(old.addresses):
            self._forget(address, old.signature)
        return forgotten

    def get(self, signature: str) -> TransactionRecord | None:
        """The record of a signature (base58)."""
        found = self._records.get(signature)
        return found[1] if found else None

    def sequence_of(self, signature: str) -> int | None:
        """The place of a transaction among all that were executed; None when it is not remembered."""
        found = self._records.get(signature)
        return found[0] if found else None

    def of_address(self, address: bytes) -> Iterator[TransactionRecord]:
        """Transactions that name `address`, newest first, at most SIGNATURES_PAGE_MAX."""
        for signature in reversed(self._by_address.get(address, ())):
            yield self._records[signature][1]

    def _forget(self, address: bytes, signature: str) -> None:
        signatures = self._by_address[address]
        if signatures and signatures[0] == signature:
            signatures.popleft()
        if not signatures:
            del self._by_address[address]
