"""What real nodes leave behind, read after they have ended: journals and logs (DESIGN 11, 13).

A journal must open undamaged whatever was done to its node, hold every settlement that its node has signed (a vote
that reaches the chain was on disk before), and tell each job of its requester to an end. A log shows what a node
thought of others, and every defect of ours that it survived.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..ledger.journal import LevelJournal
from ..protocol.errors import LocalError
from ..protocol.limits import CHRONICLES_MAX
from ..protocol.units import NodeId, base58
from ..scheduler.chronicle import Chronicle, read_chronicles
from .invariants import DEATH_PATIENCE_S
from .judge import Judge

SIGNED, QUORUM = b"signed/", b"CYX1"
_CONTEXT_BYTES = 32
DEFECTS = frozenset({"effect raised", "handler raised", "request_handler_raised", "stream_handler_raised"})
"""Log events of an exception that is no error of ours: somebody's message or timer found a defect."""
BELIEFS = {"NodeAppeared": True, "NodeSuspected": True, "NodeDied": False}


@dataclass(frozen=True, slots=True)
class Remains:
    """Of one participant: its logs in the order of its lives, and how long it stood still in all. `ran_to_the_end` is
    false for who was down at the end."""

    name: str
    node_id: NodeId
    folder: Path
    logs: tuple[Path, ...] = ()
    stood_s: float = 0.0
    ran_to_the_end: bool = True
    gone_at_unix_s: float | None = None


@dataclass(slots=True)
class Found:
    """How much there was to judge by."""

    journals: int = 0
    records: int = 0
    votes: int = 0
    stories: int = 0


def check_journals(judge: Judge, remains: Iterable[Remains], payments: Iterable[tuple[NodeId, bytes]]) -> Found:
    """Invariants 3 and 5 by the journals of all participants; `payments` are (member, message) of every signature that
    moved money. A damaged journal counts as a world that broke down."""
    found, signed = Found(), {(node, message) for node, message in payments}
    for one in remains:
        path = one.folder / "journal"
        if not path.exists():
            continue
        found.journals += 1
        try:
            journal = LevelJournal(path)
            try:
                records = dict(journal.items(b""))
                chronicles = list(read_chronicles(journal, CHRONICLES_MAX))
            finally:
                journal.close()
        except LocalError as error:
            judge.broken(0, f"the journal of {one.name}: {error}")
            continue
        found.records += len(records)
        held = set(_signed(records))
        for node, message in signed:
            if node == one.node_id and message.startswith(QUORUM):
                found.votes += 1
                if message[4:] not in held:
                    judge.broken(3, f"{one.name} signed a settlement that its journal does not hold")
        found.stories += _check_stories(judge, one.name, chronicles)
    return found


def _signed(records: dict[bytes, bytes]) -> Iterator[bytes]:
    """What the journal holds as signed: kind, sequence, round and hash, as in the last 36 of a quorum's 40 bytes."""
    for key, digest in records.items():
        if key.startswith(SIGNED):
            context, slot = key[len(SIGNED) :][:_CONTEXT_BYTES], key[len(SIGNED) + _CONTEXT_BYTES :]
            yield slot + sha256(context + digest).digest()


def _check_stories(judge: Judge, name: str, chronicles: list[Chronicle]) -> int:
    for one in chronicles:
        if one.damaged:
            judge.broken(0, f"the journal of {name} holds {one.damaged} records of job {one.name[:8]} that are none")
        if one.funded is not None and not one.ended:
            judge.broken(5, f"the journal of {name} leaves job {one.name[:8]} {one.phase.value}")
    return len(chronicles)


def check_logs(judge: Judge, remains: Iterable[Remains], end_unix_s: float) -> int:
    """Invariant 8 by what nodes logged of each other, and defects as broken worlds. How many pairs of a node that was
    gone long enough and another that ran to the end could be judged."""
    everyone, judged = list(remains), 0
    for one in everyone:
        beliefs: dict[str, bool] = {}
        for number, log in enumerate(one.logs):
            if number == len(one.logs) - 1:
                beliefs.clear()
            for record in log_records(log):
                _look(judge, one.name, record, beliefs)
        if one.ran_to_the_end:
            judged += _check_beliefs(judge, one, beliefs, everyone, end_unix_s)
    return judged


def _look(judge: Judge, name: str, record: dict[str, Any], beliefs: dict[str, bool]) -> None:
    event = record.get("event")
    if event in DEFECTS:
        cause = str(record.get("exception", "")).strip().splitlines()[-1:]
        judge.broken(0, f"{name} logged a defect: {event}: {' '.join(cause)}")
    elif event in BELIEFS and "peer" in record:
        beliefs[str(record["peer"])] = BELIEFS[event]


def _check_beliefs(
    judge: Judge, one: Remains, beliefs: dict[str, bool], everyone: list[Remains], end_unix_s: float
) -> int:
    judged = 0
    for other in everyone:
        patience_s = DEATH_PATIENCE_S + one.stood_s
        if other.gone_at_unix_s is None or end_unix_s - other.gone_at_unix_s <= patience_s:
            continue
        judged += 1
        if beliefs.get(base58(other.node_id)):
            judge.broken(8, f"{one.name} takes {other.name} for alive, which died long ago")
    return judged


def log_records(log: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a log; a line that was cut by a kill is none."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line) if line.startswith("{") else None
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record
