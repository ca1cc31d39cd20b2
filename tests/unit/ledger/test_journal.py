"""One suite for both journals, and what only a disk can do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cyxnode.ledger.journal import LevelJournal, MemoryJournal
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.ports import Journal


@pytest.fixture(params=["level", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    opened: Journal = LevelJournal(tmp_path / "journal") if request.param == "level" else MemoryJournal()
    yield opened
    opened.close()


def test_a_record_is_read_back_and_the_last_one_wins(journal: Journal) -> None:
    journal.put(b"job/1", b"first")
    journal.put(b"job/1", b"second")
    assert journal.get(b"job/1") == b"second"
    assert journal.get(b"job/2") is None


def test_empty_values_are_records(journal: Journal) -> None:
    journal.put(b"k", b"")
    assert journal.get(b"k") == b""
    assert list(journal.items(b"")) == [(b"k", b"")]


def test_items_are_in_key_order_and_of_the_prefix_alone(journal: Journal) -> None:
    for key in (b"b/2", b"a/9", b"b/10", b"b/1", b"c", b"b"):
        journal.put(key, key)
    assert [key for key, _ in journal.items(b"b/")] == [b"b/1", b"b/10", b"b/2"]


def test_a_prefix_of_highest_bytes_has_an_end(journal: Journal) -> None:
    journal.put(b"\xff\xff\x01", b"in")
    journal.put(b"\xff\x01", b"out")
    assert [key for key, _ in journal.items(b"\xff\xff")] == [b"\xff\xff\x01"]


def test_closing_twice_is_harmless(journal: Journal) -> None:
    journal.close()


@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=20), st.binary(max_size=2))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_journals_agree(
    tmp_path_factory: pytest.TempPathFactory, puts: list[tuple[bytes, bytes]], prefix: bytes
) -> None:
    disk, memory = LevelJournal(tmp_path_factory.mktemp("journal")), MemoryJournal()
    for key, value in puts:
        disk.put(key, value)
        memory.put(key, value)
    assert list(disk.items(prefix)) == list(memory.items(prefix))
    disk.close()


def test_records_survive_a_restart(tmp_path: Path) -> None:
    first = LevelJournal(tmp_path)
    first.put(b"a", b"1")
    first.close()
    second = LevelJournal(tmp_path)
    assert second.get(b"a") == b"1"
    second.close()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    owner = LevelJournal(tmp_path)
    with pytest.raises(LocalError, match=r"^data dir: .* in use by another process \(fix: stop the other"):
        LevelJournal(tmp_path)
    owner.close()


def damage(folder: Path, pattern: str) -> None:
    """Flip bits of a record in the middle of the first file that matches."""
    path = sorted(folder.glob(pattern))[0]
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2 + 60
    raw[middle : middle + 16] = bytes(byte ^ 0xFF for byte in raw[middle : middle + 16])
    path.write_bytes(bytes(raw))


def test_a_damaged_log_is_an_error_and_not_a_gap(tmp_path: Path) -> None:
    journal = LevelJournal(tmp_path)
    for number in range(50):
        journal.put(b"%03d" % number, bytes(100))
    journal.close()
    damage(tmp_path, "*.log")
    with pytest.raises(LocalError, match="is damaged") as caught:
        LevelJournal(tmp_path)
    assert caught.value.field == "data dir"
    assert "mv " in caught.value.fix


def test_a_lost_manifest_is_reported(tmp_path: Path) -> None:
    journal = LevelJournal(tmp_path)
    journal.put(b"a", b"1")
    journal.close()
    sorted(tmp_path.glob("MANIFEST-*"))[0].unlink()
    with pytest.raises(LocalError, match="is damaged"):
        LevelJournal(tmp_path)


def test_a_file_in_place_of_the_directory_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("not a directory")
    with pytest.raises(LocalError, match="data dir"):
        LevelJournal(path)


def test_importing_the_journal_does_not_import_solana() -> None:
    import subprocess
    import sys

    code = "import sys, cyxnode.ledger.journal; print(sorted({'solana', 'solders'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
