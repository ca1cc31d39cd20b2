"""The journal: ordered records that are on disk before `put` returns (DESIGN 11).

LevelDB with paranoid checks: a damaged record is an error, never a silent gap. One process owns a data directory at
a time. `MemoryJournal` behaves alike and forgets everything; the simulator and the tests use it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from pathlib import Path

import plyvel

from ..protocol.errors import LocalError

_FIELD = "data dir"


def open_database(path: Path) -> plyvel.DB:
    """Open or create a LevelDB at `path`; LocalError when it is in use, damaged, or cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        return plyvel.DB(str(path), create_if_missing=True, paranoid_checks=True)
    except plyvel.CorruptionError as error:
        raise _damaged(path, error) from error
    except (plyvel.IOError, OSError) as error:
        text = str(error)
        if "lock" in text:
            fix = "stop the other process, or choose another data directory"
            raise LocalError(f"{path} is in use by another process", field=_FIELD, fix=fix) from error
        if "No such file" in text or "Corruption" in text or "missing" in text:
            raise _damaged(path, error) from error
        raise LocalError(f"{path} cannot be opened: {text}", field=_FIELD, fix="check owner, mode and space") from error


def _damaged(path: Path, error: Exception) -> LocalError:
    fix = f"restore it from a backup, or move it away: mv {path} {path}.damaged"
    return LocalError(f"{path} is damaged: {error}", field=_FIELD, fix=fix)


class LevelJournal:
    """A journal in a LevelDB directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = open_database(path)

    def put(self, key: bytes, value: bytes) -> None:
        """Store a record; it is on disk when this returns. LocalError when the disk refuses it."""
        self._put(key, value, sync=True)

    def note(self, key: bytes, value: bytes) -> None:
        """Store a record; it is with the operating system when this returns, and on disk with the next `put`."""
        self._put(key, value, sync=False)

    def _put(self, key: bytes, value: bytes, *, sync: bool) -> None:
        try:
            self._database.put(key, value, sync=sync)
        except plyvel.IOError as error:
            raise LocalError(f"{self._path}: {error}", field=_FIELD, fix="free some disk space") from error

    def get(self, key: bytes) -> bytes | None:
        """The record of `key`, or None. LocalError when it is damaged."""
        try:
            value: bytes | None = self._database.get(key)
        except (plyvel.CorruptionError, plyvel.IOError) as error:
            raise _damaged(self._path, error) from error
        return value

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Records under `prefix` in key order, as of the call. LocalError on the first damaged one."""
        try:
            with self._database.iterator(prefix=prefix, verify_checksums=True) as records:
                yield from records
        except (plyvel.CorruptionError, plyvel.IOError) as error:
            raise _damaged(self._path, error) from error

    def close(self) -> None:
        """Release the directory; harmless when repeated."""
        self._database.close()


class MemoryJournal:
    """A journal in memory."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._values: dict[bytes, bytes] = {}

    def put(self, key: bytes, value: bytes) -> None:
        """Store a record."""
        if key not in self._values:
            insort(self._keys, key)
        self._values[key] = value

    def note(self, key: bytes, value: bytes) -> None:
        """The same."""
        self.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        """The record of `key`, or None."""
        return self._values.get(key)

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Records under `prefix` in key order, as of the first step."""
        first = bisect_left(self._keys, prefix)
        for key in self._keys[first:]:
            if not key.startswith(prefix):
                return
            yield key, self._values[key]

    def close(self) -> None:
        """Nothing to release."""
