"""What real nodes leave on disk, and every trouble that can be read from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from chronicles import FUNDED
from cyxnode.ledger.journal import LevelJournal
from cyxnode.protocol.hashing import QuorumKind, quorum_message
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.units import NodeId, base58
from cyxnode.scheduler.chronicle import Chronicler
from cyxnode.scheduler.chronicle_facts import Moved
from cyxnode.scheduler.quorum_signer import sign_quorum
from cyxnode.simulation.invariants import DEATH_PATIENCE_S
from cyxnode.simulation.judge import Bench, Judge
from cyxnode.simulation.postmortem import Remains, check_journals, check_logs

KEY, DEAD = KeyPair(b"k" * 32), NodeId(b"d" * 32)
CONTEXT, DIGEST = b"c" * 32, b"g" * 32
END_S = 1_000_000.0


@pytest.fixture
def judge() -> Judge:
    return Judge(Bench(lambda: 0.0, lambda: 0, lambda _: None, lambda _: False))


def numbers(judge: Judge) -> list[int]:
    return [violation.number for violation in judge.violations]


@pytest.fixture
def remains(tmp_path: Path) -> Remains:
    (tmp_path / "peer0").mkdir()
    return Remains("peer0", KEY.node_id, tmp_path / "peer0")


def vote(round_: int = 0) -> tuple[NodeId, bytes]:
    return KEY.node_id, quorum_message(QuorumKind.SETTLE, 0, round_, CONTEXT, DIGEST)


def test_a_settlement_that_was_signed_is_in_the_journal(judge: Judge, remains: Remains) -> None:
    journal = LevelJournal(remains.folder / "journal")
    sign_quorum(KEY, journal, QuorumKind.SETTLE, 0, 0, CONTEXT, DIGEST)
    journal.close()
    payments = [vote(), (DEAD, vote()[1]), (KEY.node_id, b"no statement of a quorum")]
    found = check_journals(judge, [remains], payments)
    assert (found.journals, found.records, found.votes, numbers(judge)) == (1, 1, 1, [])
    check_journals(judge, [remains], [vote(round_=1)])
    assert numbers(judge) == [3]


def test_a_journal_that_was_never_there_is_none(judge: Judge, remains: Remains) -> None:
    assert check_journals(judge, [remains], [vote()]).journals == 0
    assert numbers(judge) == []


def test_a_damaged_journal_breaks_the_world(judge: Judge, remains: Remains) -> None:
    journal = LevelJournal(remains.folder / "journal")
    for number in range(100):
        journal.put(b"nonce/%d" % number, bytes(1000))
    journal.close()
    for log in (remains.folder / "journal").glob("*.log"):
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 1
        log.write_bytes(data)
    check_journals(judge, [remains], [])
    assert numbers(judge) == [0] and "damaged" in judge.violations[0].text


def test_a_story_without_an_end(judge: Judge, remains: Remains) -> None:
    journal = LevelJournal(remains.folder / "journal")
    chronicler = Chronicler.begin(journal)
    chronicler.tell(1, FUNDED)
    for phase in ("opened", "running", "settled"):
        chronicler.tell(1, Moved(phase=phase, cause="a cause"))
    journal.close()
    assert check_journals(judge, [remains], []).stories == 1
    assert numbers(judge) == []
    journal = LevelJournal(remains.folder / "journal")
    unfinished, unfunded = Chronicler.begin(journal), Chronicler.begin(journal)
    unfinished.tell(1, FUNDED)
    for one in (unfinished, unfunded):
        one.tell(1, Moved(phase="running", cause="a cause"))
    journal.close()
    assert check_journals(judge, [remains], []).stories == 3
    assert numbers(judge) == [5] and "running" in judge.violations[0].text


def written(folder: Path, name: str, *records: dict[str, str]) -> Path:
    path = folder / f"{name}.log"
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"event": "cut by a ki')
    return path


def event(name: str, node: NodeId = DEAD) -> dict[str, str]:
    return {"event": name, "peer": base58(node)}


def observer(remains: Remains, *records: dict[str, str]) -> list[Remains]:
    """One that lives, with its log, and one that died long ago."""
    dead = Remains("peer1", DEAD, remains.folder, gone_at_unix_s=END_S - DEATH_PATIENCE_S - 1, ran_to_the_end=False)
    return [replace(remains, logs=(written(remains.folder, "peer0.1", *records),)), dead]


def test_the_dead_are_known_to_be_dead(judge: Judge, remains: Remains) -> None:
    seen = observer(remains, event("NodeAppeared"), event("NodeSuspected"), event("NodeDied"))
    assert check_logs(judge, seen, END_S) == 1
    assert numbers(judge) == []


@pytest.mark.parametrize("last", ["NodeAppeared", "NodeSuspected"])
def test_the_dead_are_taken_for_alive(judge: Judge, remains: Remains, last: str) -> None:
    alive = observer(remains, event("NodeAppeared"), event("NodeDied"), event(last))
    assert check_logs(judge, alive, END_S) == 1
    assert numbers(judge) == [8] and "takes peer1 for alive" in judge.violations[0].text


def test_who_died_lately_or_was_watched_by_a_sleeper_is_not_judged(judge: Judge, remains: Remains) -> None:
    alive, dead = observer(remains, event("NodeAppeared"))
    lately = replace(dead, gone_at_unix_s=END_S - DEATH_PATIENCE_S)
    assert check_logs(judge, [alive, lately], END_S) == 0
    assert check_logs(judge, [replace(alive, stood_s=2.0), dead], END_S) == 0
    assert check_logs(judge, [replace(alive, ran_to_the_end=False), dead], END_S) == 0
    assert numbers(judge) == []


def test_only_the_last_life_of_an_observer_counts(judge: Judge, remains: Remains) -> None:
    (one, dead) = observer(remains, event("NodeAppeared"))
    lives = (*one.logs, written(remains.folder, "peer0.2"))
    assert check_logs(judge, [replace(one, logs=lives), dead], END_S) == 1
    assert numbers(judge) == []


@pytest.mark.parametrize("name", ["effect raised", "handler raised", "stream_handler_raised"])
def test_a_defect_in_a_log_breaks_the_world(judge: Judge, remains: Remains, name: str) -> None:
    check_logs(judge, observer(remains, {"event": name, "exception": "Traceback\n  ...\nKeyError: 'x'"}), END_S)
    assert numbers(judge) == [0] and "KeyError: 'x'" in judge.violations[0].text
