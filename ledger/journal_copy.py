"""A look into a journal that another process owns: LevelDB lets one process in, so a copy of its files is opened.

A LevelDB is a set of files that are only appended to or replaced as a whole. A copy is as good as what a kill at that
moment leaves behind, if no file came, went or was replaced while it was made: then it is made again. What the owner is
just writing may be missing in it, and nothing else.
"""

from __future__ import annotations

import fcntl
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..protocol.errors import LocalError
from ..protocol.limits import JOURNAL_COPY_RETRY_S, JOURNAL_COPY_TRIES_MAX
from .journal import LevelJournal

APPENDED = ".log"
SKIPPED = {"LOCK", "LOG", "LOG.old"}
_FIELD = "data dir"
_FLOCK = "hhqqi"
"""Linux's struct flock: asking who holds a lock takes none, so that no owner that starts now finds it taken by us."""


@contextmanager
def open_copy(path: Path) -> Iterator[LevelJournal]:
    """The journal at `path` as it is now, to be read; LocalError when it is damaged, or cannot be read."""
    with tempfile.TemporaryDirectory(prefix="cyxnode-journal-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "journal"
        try:
            _copy(path, copy)
        except OSError as error:
            fix = "check owner, mode and space"
            raise LocalError(f"{path} cannot be read: {error.strerror}", field=_FIELD, fix=fix) from error
        try:
            journal = LevelJournal(copy)
        except LocalError as error:
            message = error.message.replace(str(copy), str(path))
            raise LocalError(message, field=error.field, fix=error.fix.replace(str(copy), str(path))) from None
        try:
            yield journal
        finally:
            journal.close()


def owner_of(path: Path) -> int | None:
    """The process that has the journal at `path` open; 0 when the system does not tell which, None when there is
    none."""
    try:
        with (path / "LOCK").open("rb") as lock:
            if sys.platform != "linux":
                fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 0, 0)
            held, *_, process = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
            return None if held == fcntl.F_UNLCK else max(0, process)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return 0


def _copy(path: Path, copy: Path) -> None:
    if not path.is_dir():
        raise LocalError(f"{path} does not exist", field=_FIELD, fix="give the --home and --name of an identity")
    for _ in range(JOURNAL_COPY_TRIES_MAX):
        copy.mkdir()
        try:
            before = _listing(path)
            for name in before:
                shutil.copyfile(path / name, copy / name)
            if _listing(path) == before:
                return
        except FileNotFoundError:
            pass  # the owner has just removed it
        shutil.rmtree(copy)
        time.sleep(JOURNAL_COPY_RETRY_S)
    fix = "try again in a moment"
    raise LocalError(f"{path} changes faster than it can be copied", field=_FIELD, fix=fix)


def _listing(path: Path) -> dict[str, tuple[int, int]]:
    """The files, with what tells that one of them was replaced or, unless appending is harmless, appended to."""
    found = {}
    for one in path.iterdir():
        if one.name not in SKIPPED and one.is_file():
            status = one.stat()
            found[one.name] = (status.st_ino, 0 if one.suffix == APPENDED else status.st_size)
    return found
