"""The chronicle of a job: what is written is what is read, whatever stands beside it in the journal."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicles import AT_MS, DECLINES, LACKING, OPENED, PLACED, SETTLED, STATES, WORKED, told, write
from cyxnode.cli.world import SystemClock
from cyxnode.ledger.journal import LevelJournal, MemoryJournal
from cyxnode.protocol import limits
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.inference import InferTask
from cyxnode.protocol.messages import Tokens
from cyxnode.protocol.units import MicroCyx, base58
from cyxnode.scheduler import chronicle
from cyxnode.scheduler.chronicle import (
    BY_ID,
    LAST,
    RECORDS,
    Chronicler,
    last_number,
    number_of,
    numbers_named,
    read_chronicle,
    read_chronicles,
)
from cyxnode.scheduler.chronicle_facts import Moved, Reached, Troubled
from cyxnode.scheduler.job import JobEvent, JobPhase
from cyxnode.scheduler.orders import InferOrder, Origin
from cyxnode.scheduler.requester_record import JobRecord
from sample_job import JOB, TERMS


@pytest.mark.parametrize("state", STATES)
def test_what_was_told_is_read(state: str) -> None:
    read = told(STATES[state])
    assert [record.fact for record in read.records] == [one for one in STATES[state] if one is not LACKING]
    assert read.lacking == (LACKING if LACKING in STATES[state] else None)
    assert read.damaged == 0
    assert read.placed == PLACED and read.placed_at_ms == AT_MS


def test_a_settled_job_has_all_its_evidence() -> None:
    read = told(SETTLED)
    assert read.phase is JobPhase.SETTLED and read.ended
    assert read.name == base58(JOB) and read.committee == TERMS.committee
    assert tuple(read.evidence) == ("announce", "certificate", "claim", "outcome")
    assert set(read.transactions) == {"open_job", "seat", "settle"}
    assert set(read.declines) == {one.node for one in DECLINES}
    assert read.stages["submitted"] == AT_MS
    assert [phase.value for _, phase, _ in read.moves] == [
        "opened", "bidding", "awarded", "running", "claimed", "settled",
    ]  # fmt: skip


def test_orders_are_numbered_and_the_newest_comes_first(tmp_path: Path) -> None:
    journal = LevelJournal(tmp_path)
    for state in ("queued", "settled", "cancelled"):
        write(journal, STATES[state])
    journal.close()
    journal = LevelJournal(tmp_path)
    assert [one.number for one in read_chronicles(journal, 10)] == [3, 2, 1]
    assert [one.number for one in read_chronicles(journal, 2)] == [3, 2]
    assert [one.name for one in read_chronicles(journal, 10)] == ["draft-3", base58(JOB), "draft-1"]
    assert number_of(journal, JOB) == 2
    journal.close()


def test_names_are_found_by_their_beginning() -> None:
    journal = MemoryJournal()
    write(journal, STATES["queued"])
    write(journal, OPENED)
    name = base58(JOB)
    assert numbers_named(journal, name) == numbers_named(journal, name[:3]) == {name: 2}
    assert numbers_named(journal, "draft-1") == {"draft-1": 1}
    assert numbers_named(journal, "draft-2") == {"draft-2": 2}, "an order keeps its number when it has an id"
    for nobody in ("draft-", "draft-0", "draft-3", "draft-x", "draft-" + "9" * 40, "draft-²", "0", name + "1"):
        assert numbers_named(journal, nobody) == {}


def test_progress_is_written_over(tmp_path: Path) -> None:
    journal = LevelJournal(tmp_path)
    chronicler = Chronicler.begin(journal)
    chronicler.tell(AT_MS, PLACED)
    for second in range(5):
        chronicler.tell(AT_MS + second, WORKED)
    read = read_chronicle(journal, 1)
    assert read is not None and read.worked == (AT_MS + 4, WORKED)
    assert len(list(journal.items(RECORDS))) == 2
    journal.close()


def test_notes_are_bounded_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = MemoryJournal()
    chronicler = Chronicler.begin(journal)
    for number in range(limits.CHRONICLE_NOTES_MAX + 9):
        chronicler.tell(AT_MS, Troubled(detail=str(number)))
    chronicler.tell(AT_MS, Moved(phase="expired", cause="the refund time has come"))
    chronicler.tell(AT_MS, Reached(stage="completed", detail=""))
    read = read_chronicle(journal, 1)
    assert read is not None and read.phase is JobPhase.EXPIRED and "completed" in read.stages
    assert len(read.records) == limits.CHRONICLE_NOTES_MAX + 2 and read.shortened
    assert not told(SETTLED).shortened


def test_the_oldest_chronicle_makes_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "CHRONICLES_MAX", 2)
    journal = MemoryJournal()
    for _ in range(2):
        write(journal, OPENED)
    for _ in range(2):
        write(journal, STATES["queued"])
    assert [one.number for one in read_chronicles(journal, 10)] == [4, 3]
    assert read_chronicle(journal, 1) is None and numbers_named(journal, base58(JOB)) == {}


def test_a_later_life_goes_on_where_the_last_one_ended() -> None:
    journal = MemoryJournal()
    number = write(journal, OPENED)
    Chronicler.resume(journal, number).tell(AT_MS + 10**6, Moved(phase="expired", cause="refunded"))
    read = read_chronicle(journal, number)
    assert read is not None and len(read.records) == len(OPENED) + 1
    assert read.phase is JobPhase.EXPIRED and read.ended_at_ms == AT_MS + 10**6


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_damaged_and_foreign_records_are_counted_and_passed_over(noise: bytes, place: int) -> None:
    journal = MemoryJournal()
    write(journal, OPENED)
    journal.put(RECORDS + (1).to_bytes(8, "big") + (place | 2**20).to_bytes(4, "big"), noise)
    journal.put(RECORDS + JOB + bytes(4), b"1\tsettled\tof an earlier version")
    read = read_chronicle(journal, 1)
    assert read is not None and read.name == base58(JOB)
    assert read.damaged == (1 if noise else 0)


@pytest.mark.parametrize("fact", [Moved(phase="levitating", cause=""), Reached(stage="s", detail="d" * 513)])
def test_what_cannot_be_is_damage(fact: Moved | Reached) -> None:
    journal = MemoryJournal()
    Chronicler.begin(journal).tell(AT_MS, fact)
    read = read_chronicle(journal, 1)
    assert read is not None and read.damaged == 1


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_a_damaged_index_raises_nothing(last: bytes, key: bytes, value: bytes) -> None:
    journal = MemoryJournal()
    journal.put(LAST, last)
    journal.put(BY_ID + key, value)
    assert last_number(journal) < 2**64
    numbers_named(journal, "")
    assert list(read_chronicles(journal, 3)) == []


class FullDisk(MemoryJournal):
    """A disk that refuses what the machine's power must not lose, or everything."""

    def __init__(self, *, notes_too: bool) -> None:
        super().__init__()
        self.notes_too, self.durable = notes_too, list[bytes]()

    def put(self, key: bytes, value: bytes) -> None:
        self.durable.append(key)
        raise LocalError("no space left", field="data dir", fix="free some disk space")

    def note(self, key: bytes, value: bytes) -> None:
        if self.notes_too:
            self.put(key, value)
        super().put(key, value)


def record_on(journal: MemoryJournal) -> JobRecord:
    order = InferOrder(model="m", task=InferTask(prompts=("p",), num_predict=1), budget=MicroCyx(1_000))
    record = JobRecord(order, SystemClock(), journal, lambda news: None)
    record.chronicler = Chronicler.begin(MemoryJournal())
    record.chronicler.journal = journal
    return record


def test_a_disk_that_refuses_a_note_ends_no_job_but_one_that_refuses_a_step_does() -> None:
    record = record_on(FullDisk(notes_too=True))
    record.trouble("a chain that is away")
    record.stage("announced", "a topic")
    record.keep("announce", b"raw")
    record.heard_tokens(Tokens(job=JOB, sequence=0, prompt_index=0, generated=1, text="x", last=False))
    with pytest.raises(LocalError, match="no space left"):
        record.event(JobEvent.QUEUED, "no class is large enough")
    with pytest.raises(LocalError, match="no space left"):
        record.place(Origin())


def test_only_the_id_and_the_steps_wait_for_the_disk() -> None:
    journal = FullDisk(notes_too=False)
    record = record_on(journal)
    record.place(Origin())
    record.stage("announced", "a topic")
    record.sent("open_job", "5" * 88)
    record.keep("announce", b"raw")
    assert journal.durable == []
    with pytest.raises(LocalError):
        record.named(JOB)
    assert len(journal.durable) == 1
