"""The chronicle of a job: what its requester's journal holds of it, from the order to the end (DESIGN 4, 11).

One record for each happening, so that whoever reads the journal later, or beside a running `submit`, knows as much as
the requester did: no record is lost by a kill, and none from before the last transition by a power cut. The id of a job
is on disk before its escrow is funded. Orders are numbered, since a job has no id before that. Keys: `job/` number
place; place 0 is written over and holds what is newest of a wait or of the work, all others are appended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..protocol import codec
from ..protocol.errors import RemoteError
from ..protocol.limits import (
    CHRONICLE_NOTES_MAX,
    CHRONICLE_RECORD_MAX_BYTES,
    CHRONICLES_MAX,
)
from ..protocol.ports import Journal
from ..protocol.units import JobId, base58
from .chronicle_facts import (
    BOUNDED,
    DURABLE,
    FLEETING,
    AnyFact,
    Declined,
    Funded,
    Kept,
    Lacking,
    Moved,
    Named,
    Placed,
    Reached,
    Record,
    Seated,
    Sent,
    Troubled,
    Worked,
)
from .job import FINAL, JobPhase

RECORDS, BY_ID, LAST = b"job/", b"job-id/", b"jobs"
NUMBER_BYTES, PLACE_BYTES = 8, 4
DRAFT = "draft-"


@dataclass(slots=True)
class Chronicler:
    """Writes the chronicle of one job."""

    journal: Journal
    number: int
    place: int = 0
    notes: int = 0

    @classmethod
    def begin(cls, journal: Journal) -> Chronicler:
        """The next number; the chronicle that is CHRONICLES_MAX older is emptied."""
        number = last_number(journal) + 1
        journal.note(LAST, number.to_bytes(NUMBER_BYTES, "big"))
        if number > CHRONICLES_MAX:
            _empty(journal, number - CHRONICLES_MAX)
        return cls(journal, number)

    @classmethod
    def resume(cls, journal: Journal, number: int) -> Chronicler:
        """Go on with one that an earlier life began."""
        keys = [key for key, _ in journal.items(_prefix(number))]
        place = int.from_bytes(keys[-1][-PLACE_BYTES:], "big") if keys else 0
        return cls(journal, number, place)

    def tell(self, at_ms: int, fact: AnyFact) -> None:
        """Append a record, or write over the last of its kind. What comes too often is left out, and the reader can
        tell."""
        if isinstance(fact, FLEETING):
            self.journal.note(self._key(0), codec.encode(Record(at_ms, fact)))
            return
        if isinstance(fact, BOUNDED):
            self.notes += 1
            if self.notes > CHRONICLE_NOTES_MAX:
                return
        if isinstance(fact, Named):
            self.journal.note(BY_ID + fact.job, self.number.to_bytes(NUMBER_BYTES, "big"))
        self.place += 1
        write = self.journal.put if isinstance(fact, DURABLE) else self.journal.note
        write(self._key(self.place), codec.encode(Record(at_ms, fact)))

    def _key(self, place: int) -> bytes:
        return _prefix(self.number) + place.to_bytes(PLACE_BYTES, "big")


@dataclass(frozen=True, slots=True)
class Decliner:
    """A node that would not bid, why, and what would have changed its mind."""

    node: bytes
    reason: str
    hint: str


@dataclass(slots=True)
class Chronicle:
    """What was read of one job. `damaged` counts records that cannot be read; `stages` are first times in Unix ms."""

    number: int
    records: list[Record] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    damaged: int = 0
    placed: Placed | None = None
    placed_at_ms: int = 0
    ended_at_ms: int = 0
    job: JobId | None = None
    phase: JobPhase = JobPhase.DRAFT
    since_ms: int = 0
    cause: str = ""
    moves: list[tuple[int, JobPhase, str]] = field(default_factory=list)
    stages: dict[str, int] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    lacking: Lacking | None = None
    funded: Funded | None = None
    committee: tuple[bytes, ...] = ()
    declines: dict[bytes, Decliner] = field(default_factory=dict)
    evidence: dict[str, bytes] = field(default_factory=dict)
    transactions: dict[str, str] = field(default_factory=dict)
    trouble: tuple[int, str] | None = None
    worked: tuple[int, Worked] | None = None
    notes: int = 0

    @property
    def name(self) -> str:
        """The job's id, or the order's number while it has none."""
        return name_of(self.job, self.number)

    @property
    def ended(self) -> bool:
        return self.phase in FINAL

    @property
    def shortened(self) -> bool:
        """Whether notes may have been left out."""
        return self.notes >= CHRONICLE_NOTES_MAX

    def add(self, place: int, record: Record) -> None:
        """Take in the next record."""
        fact, at_ms = record.fact, record.at_ms
        if place:
            self.records.append(record)
            self.places.append(place)
        self.notes += isinstance(fact, BOUNDED)
        match fact:
            case Placed():
                self.placed, self.placed_at_ms, self.since_ms = fact, at_ms, at_ms
                self.stages.setdefault("submitted", at_ms)
            case Lacking():
                self.lacking = fact
            case Named():
                self.job = JobId(fact.job)
                self._stage("named", at_ms, "")
            case Funded():
                self.funded = fact
                self._stage("funded", at_ms, "")
            case Seated():
                self.committee = fact.committee
                self._stage("seated", at_ms, "")
            case Moved():
                self._move(at_ms, fact)
            case Reached():
                self._stage(fact.stage, at_ms, fact.detail)
            case Troubled():
                self.trouble = (at_ms, fact.detail)
            case Declined():
                self.declines[fact.node] = Decliner(fact.node, fact.reason, fact.hint)
                self._stage("declined", at_ms, "")
            case Kept():
                self.evidence[fact.what] = fact.raw
            case Sent():
                self.transactions[fact.name] = fact.signature
            case Worked():
                self.worked = (at_ms, fact)

    def _stage(self, name: str, at_ms: int, detail: str) -> None:
        self.stages.setdefault(name, at_ms)
        self.details[name] = detail

    def _move(self, at_ms: int, fact: Moved) -> None:
        self.phase, self.since_ms, self.cause = JobPhase(fact.phase), at_ms, fact.cause
        self.moves.append((at_ms, self.phase, fact.cause))
        if self.phase is JobPhase.QUEUED:
            self._stage("queued", at_ms, fact.cause)
        if self.ended:
            self.ended_at_ms = at_ms


def name_of(job: JobId | None, number: int) -> str:
    """What a job is called: its id in base58, or the order's number while it has none."""
    return base58(job) if job is not None else f"{DRAFT}{number}"


def last_number(journal: Journal) -> int:
    """Of the newest chronicle; 0 when there is none."""
    return _number(journal.get(LAST))


def read_chronicle(journal: Journal, number: int) -> Chronicle | None:
    """One chronicle; None when there is none, or when it was emptied. Damaged records are counted and passed over."""
    chronicle, found = Chronicle(number), False
    for key, value in journal.items(_prefix(number)):
        if not value:
            continue
        found = True
        try:
            record = codec.decode(value, Record, max_bytes=CHRONICLE_RECORD_MAX_BYTES)
            chronicle.add(int.from_bytes(key[-PLACE_BYTES:], "big"), record)
        except (RemoteError, ValueError):
            chronicle.damaged += 1
    return chronicle if found else None


def read_chronicles(journal: Journal, limit: int) -> Iterator[Chronicle]:
    """Up to `limit` chronicles, newest first."""
    last, told = last_number(journal), 0
    for number in range(last, max(0, last - CHRONICLES_MAX), -1):
        if told == limit:
            return
        chronicle = read_chronicle(journal, number)
        if chronicle is not None:
            told += 1
            yield chronicle


def numbers_named(journal: Journal, prefix: str) -> dict[str, int]:
    """Names that begin with `prefix` (a draft's must be whole), and their numbers."""
    if prefix.startswith(DRAFT):
        digits = prefix.removeprefix(DRAFT)
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 2 * NUMBER_BYTES else 0
        return {prefix: number} if 0 < number <= last_number(journal) else {}
    named = ((base58(key.removeprefix(BY_ID)), value) for key, value in journal.items(BY_ID))
    return {name: _number(value) for name, value in named if value and name.startswith(prefix)}


def number_of(journal: Journal, job: JobId) -> int:
    """Of the chronicle of a job; 0 when there is none."""
    return _number(journal.get(BY_ID + job))


def _number(value: bytes | None) -> int:
    return int.from_bytes((value or b"")[:NUMBER_BYTES], "big")


def _empty(journal: Journal, number: int) -> None:
    old = read_chronicle(journal, number)
    if old is not None and old.job is not None:
        journal.put(BY_ID + old.job, b"")
    for key, value in list(journal.items(_prefix(number))):
        if value:
            journal.put(key, b"")


def _prefix(number: int) -> bytes:
    return RECORDS + number.to_bytes(NUMBER_BYTES, "big")
