"""A look into a journal that another process writes to, or was killed over: whole, and without a trace."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyxnode.ledger.journal import LevelJournal
from cyxnode.ledger.journal_copy import open_copy, owner_of
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import JOURNAL_COPY_TRIES_MAX

WRITER = """
import sys
from pathlib import Path
from cyxnode.ledger.journal import LevelJournal
journal = LevelJournal(Path(sys.argv[1]))
for number in range(10**6):
    (journal.note if number % 7 else journal.put)(b"n/%09d" % number, bytes([number % 251]) * 30_000)
    print(number, flush=True)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that owns a journal and writes as fast as it can; LevelDB changes its files all the time."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def written_at_least(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def looked(path: Path) -> int:
    """How many records a copy holds: the first ones, each whole."""
    with open_copy(path) as journal:
        records = list(journal.items(b"n/"))
    for number, (key, value) in enumerate(records):
        assert key == b"n/%09d" % number and value == bytes([number % 251]) * 30_000
    return len(records)


@pytest.mark.slow
def test_what_was_written_before_the_look_is_in_it_also_after_a_kill(
    tmp_path: Path, writer: subprocess.Popen[bytes]
) -> None:
    for _ in range(12):
        for _ in range(60):
            number = written_at_least(writer)
        assert looked(tmp_path) > number
        assert owner_of(tmp_path) == writer.pid
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert owner_of(tmp_path) is None
    assert looked(tmp_path) > number


def test_a_look_leaves_the_journal_as_it_is(tmp_path: Path) -> None:
    journal = LevelJournal(tmp_path)
    journal.put(b"a", b"1")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    with open_copy(tmp_path) as copy:
        assert copy.get(b"a") == b"1"
        copy.put(b"a", b"2")
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before
    assert journal.get(b"a") == b"1"
    journal.close()


def test_what_is_no_journal_is_refused_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="does not exist"), open_copy(tmp_path / "none"):
        pass
    journal = LevelJournal(tmp_path / "journal")
    journal.put(b"a", b"1")
    journal.close()
    (tmp_path / "journal" / "CURRENT").write_text("nonsense\n")
    with pytest.raises(LocalError, match=f"^data dir: {tmp_path}/journal is damaged.*mv {tmp_path}/journal "):
        open_copy(tmp_path / "journal").__enter__()


def test_files_that_never_rest_are_given_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "000001.ldb").write_bytes(b"")
    pauses = []

    def grow(seconds: float) -> None:
        pauses.append(seconds)

    def copied(source: Path, target: Path) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr("cyxnode.ledger.journal_copy.time.sleep", grow)
    monkeypatch.setattr("cyxnode.ledger.journal_copy.shutil.copyfile", copied)
    with pytest.raises(LocalError, match="changes faster"):
        open_copy(tmp_path).__enter__()
    assert len(pauses) == JOURNAL_COPY_TRIES_MAX
