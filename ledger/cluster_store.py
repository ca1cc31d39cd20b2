"""What the local chain keeps on disk, so that kill -9 loses no accepted transaction (one LevelDB).

A transaction's record and all accounts that it could write go into one batch, synchronously, before the sender gets
its signature; while `deferring`, several transactions share one batch (`group_commit`). Slot hashes are written without
a sync: the next synced batch carries them, and a slot that a power loss takes away held no transaction. Recent
blockhashes are deliberately not kept: after a restart nothing that was signed before it can land, so nothing can be
replayed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import plyvel
from solders.account import Account
from solders.pubkey import Pubkey

from ..protocol.errors import LocalError
from .history import TransactionRecord
from .journal import open_database

_ACCOUNT, _SLOT, _TRANSACTION, _GENESIS = b"a", b"s", b"t", b"genesis"
T = TypeVar("T")
Batch = dict[bytes, bytes | None]
"""Keys and their new values; None deletes."""

_HEADER = struct.Struct("<QQ?32s")


class ClusterStore:
    """Accounts, slots and transactions of one local chain in one directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = open_database(path)
        self._pending: Batch = {}
        self.deferring = False
        """Whether transactions wait for `write_pending` instead of being written one by one."""
        self.accepted = 0
        """Transactions stored, or waiting, since this store was opened."""

    def genesis(self) -> bytes | None:
        """The genesis hash, or None when the directory is new."""
        value: bytes | None = self._read(_GENESIS)
        return value

    def begin(self, genesis: bytes, accounts: Mapping[Pubkey, Account | None]) -> None:
        """Store the genesis hash and the first accounts of a new chain."""
        self.write({_GENESIS: genesis, **_account_records(accounts)})

    def put_transaction(
        self, sequence: int, record: TransactionRecord, accounts: Mapping[Pubkey, Account | None]
    ) -> None:
        """Store an accepted transaction and the accounts after it; on disk when this returns, unless deferring."""
        key = _TRANSACTION + struct.pack(">Q", sequence)
        self._put({key: msgspec.msgpack.encode(record), **_account_records(accounts)})
        self.accepted += 1

    def put_slot(self, slot: int, digest: bytes, unix_s: int, expired: int) -> None:
        """Store the hash and time of a finished slot, and forget slot `expired`."""
        try:
            with self._database.write_batch() as batch:
                batch.put(_SLOT + struct.pack(">Q", slot), digest + struct.pack("<q", unix_s))
                batch.delete(_SLOT + struct.pack(">Q", max(0, expired)))
        except plyvel.IOError as error:
            raise self._full(error) from error

    def forget_transaction(self, sequence: int) -> None:
        """Drop the oldest record of a bounded history."""
        key = _TRANSACTION + struct.pack(">Q", sequence)
        if self.deferring:
            self._pending[key] = None
        else:
            self._database.delete(key)

    def take_pending(self) -> Batch:
        """What waits to be written, for `write`; the caller answers for it from now on."""
        pending, self._pending = self._pending, {}
        return pending

    def write(self, batch: Batch) -> None:
        """All or nothing, on disk when this returns; may run in a thread. LocalError when the disk refuses."""
        try:
            with self._database.write_batch(sync=True) as writing:
                for key, value in batch.items():
                    if value is None:
                        writing.delete(key)
                    else:
                        writing.put(key, value)
        except plyvel.IOError as error:
            raise self._full(error) from error

    def accounts(self) -> Iterator[tuple[Pubkey, Account]]:
        """All stored accounts."""
        for key, value in self._items(_ACCOUNT):
            yield Pubkey.from_bytes(key), self._decode(_decode_account, value)

    def slots(self) -> Iterator[tuple[int, bytes, int]]:
        """(slot, hash, Unix seconds), oldest first."""
        for key, value in self._items(_SLOT):
            yield int.from_bytes(key, "big"), value[:32], int.from_bytes(value[32:40], "little", signed=True)

    def transactions(self) -> Iterator[tuple[int, TransactionRecord]]:
        """(sequence, record), oldest first."""
        for key, value in self._items(_TRANSACTION):
            yield int.from_bytes(key, "big"), self._decode(_decode_record, value)

    def close(self) -> None:
        """Write what waits, and release the directory."""
        try:
            if self._pending:
                self.write(self.take_pending())
        finally:
            self._database.close()

    def _put(self, batch: Batch) -> None:
        if self.deferring:
            self._pending.update(batch)
        else:
            self.write(batch)

    def _read(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._database.get(key)
        except (plyvel.CorruptionError, plyvel.IOError) as error:
            raise self._damaged(error) from error
        return value

    def _items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            with self._database.iterator(prefix=prefix, verify_checksums=True) as records:
                for key, value in records:
                    yield key[len(prefix) :], value
        except (plyvel.CorruptionError, plyvel.IOError) as error:
            raise self._damaged(error) from error

    def _decode(self, decode: Callable[[bytes], T], value: bytes) -> T:
        try:
            return decode(value)
        except (struct.error, ValueError, msgspec.DecodeError) as error:
            raise self._damaged(error) from error

    def _full(self, error: Exception) -> LocalError:
        return LocalError(f"{self._path}: {error}", field="data dir", fix="free some disk space and restart")

    def _damaged(self, error: Exception) -> LocalError:
        fix = f"restore it from a backup, or start a new chain: mv {self._path} {self._path}.damaged"
        return LocalError(f"{self._path} is damaged: {error}", field="data dir", fix=fix)


def _account_records(accounts: Mapping[Pubkey, Account | None]) -> Batch:
    return {
        _ACCOUNT + bytes(address): None if account is None else _encode_account(account)
        for address, account in accounts.items()
    }


def _encode_account(account: Account) -> bytes:
    header = _HEADER.pack(account.lamports, account.rent_epoch, account.executable, bytes(account.owner))
    return header + bytes(account.data)


def _decode_account(value: bytes) -> Account:
    lamports, rent_epoch, executable, owner = _HEADER.unpack_from(value)
    return Account(lamports, value[_HEADER.size :], Pubkey.from_bytes(owner), executable, rent_epoch)


def _decode_record(value: bytes) -> TransactionRecord:
    return msgspec.msgpack.decode(value, type=TransactionRecord)
