"""`cyxnode job list | status | explain | trace | audit` over journals of all kinds, without a network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from chronicles import BIDDING, PLACED, SETTLED, STATES, write
from cyxnode.cli.main import main
from cyxnode.ledger.journal import LevelJournal
from cyxnode.protocol.units import base58
from cyxnode.scheduler.chronicle import BY_ID, RECORDS, Chronicler
from cyxnode.scheduler.chronicle_facts import Declined, Moved
from sample_job import JOB, UNSOLD, WORKER, signed

CHAIN_DOWN = ("--rpc", "http://127.0.0.1:1")
NAME = base58(JOB)
SUBMIT = 4711
"""The process that has the journal open."""


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `cyxnode job ARGUMENTS` in this process."""
    for name in ("RPC", "PROGRAM", "LOG_LEVEL", "LOG_FORMAT"):
        monkeypatch.delenv(f"CYXNODE_{name}", raising=False)
    monkeypatch.setenv("CYXNODE_HOME", str(tmp_path))

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["cyxnode", "job", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[LevelJournal]:
    """The requester's journal, open as a running `submit` has it."""
    opened = LevelJournal(tmp_path / "requester" / "journal")
    yield opened
    opened.close()


@pytest.fixture
def submit_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process never finds itself in its own way: of locks, POSIX tells only those of others."""
    monkeypatch.setattr("cyxnode.cli.job_book.owner_of", lambda path: SUBMIT)


def refused(ended: Ended, field: str, text: str) -> None:
    (line,) = ended.err.strip().splitlines()
    assert line.startswith(f"error: {field}: ") and "(fix: " in line and text in line, line
    assert ended.code == 2 and ended.out == ""


def test_who_never_placed_a_job_is_told_so_and_nothing_is_made(job: Command, tmp_path: Path) -> None:
    assert job("list").out == "requester has placed no job yet\n"
    assert job("list", "--json").out == ""
    refused(job("status", NAME), "job_id", "job list")
    refused(job("list", "--name", "a/b"), "name", "letters")
    assert list(tmp_path.iterdir()) == []


def test_all_jobs_are_listed_newest_first(job: Command, journal: LevelJournal) -> None:
    for state in ("cancelled", "settled", "queued"):
        write(journal, STATES[state])
    rows = [json.loads(line) for line in job("list", "--json").out.splitlines()]
    assert [(row["job_id"], row["status"], row["left"]) for row in rows] == [
        ("draft-3", "queued", True),
        (NAME, "settled", False),
        ("draft-1", "cancelled", False),
    ]
    assert [json.loads(line)["job_id"] for line in job("list", "--json", "--limit", "1").out.splitlines()] == [
        "draft-3"
    ]
    heading, *lines = job("list").out.splitlines()
    assert heading.split()[:4] == ["id", "kind", "state", "placed"]
    assert len(lines) == 3 and NAME[:10] in lines[1] and "budget: too little" in lines[2]


@pytest.mark.parametrize("command", ["status", "explain", "trace"])
@pytest.mark.parametrize("state", STATES)
def test_every_state_is_told_while_submit_is_up(
    job: Command, journal: LevelJournal, submit_is_up: None, command: str, state: str
) -> None:
    write(journal, STATES[state])
    name = "draft-1"
    text, facts = job(command, name), job(command, name, "--json").json
    assert text.code == 0 and text.out and not text.err
    assert "unknown" not in text.out
    assert (facts["job_id"] in (NAME, name) and facts["job_id"] in text.out) or command == "trace"
    if command == "explain":
        assert facts["why"] in text.out
        assert facts["waits_for"] or facts["advice"]


def test_a_job_is_named_by_its_beginning_and_ambiguity_is_refused(job: Command, journal: LevelJournal) -> None:
    write(journal, SETTLED)
    assert job("status", NAME[:5], "--json").json["job_id"] == NAME
    other = (JOB[:-1] + bytes([JOB[-1] ^ 1]), JOB[:-1] + bytes([JOB[-1] ^ 2]))
    for number, one in enumerate(other):
        journal.put(BY_ID + one, (7 + number).to_bytes(8, "big"))
    ended = job("status", NAME[:5])
    refused(ended, "job_id", "could be 3 jobs")
    assert all(base58(one) in ended.err for one in (JOB, *other))
    refused(job("explain", "0"), "job_id", "no job of this requester")
    refused(job("explain", ""), "job_id", "no job of this requester")


def test_the_six_lines_stand_in_the_status(job: Command, journal: LevelJournal, tmp_path: Path) -> None:
    number = write(journal, SETTLED)
    results = tmp_path / "requester" / "results"
    results.mkdir()
    (results / f"{NAME}.receipt.json").write_text("{}")
    lines = job("status", f"draft-{number}").out.splitlines()
    assert [line[:14].strip() for line in lines[:7]] == [
        "job id", "status", "result", "receipt", "completed in", "cost", "verified by",
    ]  # fmt: skip
    assert lines[0].endswith(NAME) and lines[1].endswith("settled") and lines[2][14:].startswith("ipfs://")
    assert lines[3].endswith(f"{NAME}.receipt.json")
    assert job("status", NAME, "--json").json["receipt"].endswith(".receipt.json")


def test_a_running_job_says_what_it_has_cost_at_most(job: Command, journal: LevelJournal, submit_is_up: None) -> None:
    write(journal, STATES["running"])
    out = job("status", NAME).out
    assert "at most 5.000000 CYX" in out and base58(WORKER.node_id) in out


def test_declines_are_counted_with_hints(job: Command, journal: LevelJournal, submit_is_up: None) -> None:
    write(journal, BIDDING)
    assert job("explain", NAME, "--json").json["nodes"][0] == {
        "count": 2, "reason": "PRICE", "said": "from 0.03 CYX here", "advice": "raise the budget",
    }  # fmt: skip
    assert "2 PRICE (one says: from 0.03 CYX here): raise the budget" in job("explain", NAME).out


@pytest.mark.parametrize("command", ["status", "explain"])
def test_a_job_that_submit_left_asks_the_chain_and_lives_without_it(
    job: Command, journal: LevelJournal, command: str
) -> None:
    write(journal, STATES["running"])
    ended = job(command, NAME, *CHAIN_DOWN)
    assert ended.code == 0 and "`submit` ended" in ended.out
    if command == "explain":
        assert "could not be asked" in ended.out and "job reclaim" in ended.out
    refused(job(command, NAME, "--rpc", "nonsense"), "rpc", "URL")


def test_a_trace_adds_up(job: Command, journal: LevelJournal) -> None:
    write(journal, SETTLED)
    facts = job("trace", NAME, "--json").json
    assert list(facts["parts_ms"]) == ["queue", "funding", "auction", "work", "verification", "settlement"]
    assert sum(facts["parts_ms"].values()) == facts["stages_ms"]["completed"]
    assert [one["state"] for one in facts["transitions"]][-1] == "settled"
    assert all(one["cause"] for one in facts["transitions"])
    assert job("trace", NAME).out.count("█") > len(facts["transitions"])


def test_an_award_is_recomputed_from_the_journal_and_from_a_receipt(
    job: Command, journal: LevelJournal, tmp_path: Path
) -> None:
    write(journal, SETTLED)
    (tmp_path / "receipt.json").write_text(json.dumps(signed()))
    by_journal, by_receipt = (job("audit", what, "--json") for what in (NAME, str(tmp_path / "receipt.json")))
    assert by_journal.out == by_receipt.out
    facts = by_journal.json
    assert facts["winner"] == base58(WORKER.node_id) and facts["price_is_limit"]
    (bid,) = facts["ranking"]
    assert sum(bid["parts"].values()) == bid["score"]
    text = job("audit", NAME).out
    assert "ok  recomputed" in text and "reputation" in text and facts["winner"] in text


def test_where_there_is_no_award_there_is_nothing_to_recompute(
    job: Command, journal: LevelJournal, tmp_path: Path
) -> None:
    write(journal, STATES["unsold"])
    refused(job("audit", NAME), "certificate", f"cyxnode job explain {NAME}")
    (tmp_path / "receipt.json").write_text(json.dumps(signed(settlement=UNSOLD)))
    refused(job("audit", str(tmp_path / "receipt.json")), "certificate", "UNSOLD")
    (tmp_path / "receipt.json").write_text(json.dumps({**signed(), "status": "FAILED"}))
    ended = job("audit", str(tmp_path / "receipt.json"))
    assert ended.code == 2 and "receipt.status" in ended.err


def test_words_of_strangers_cannot_move_the_cursor(job: Command, journal: LevelJournal, submit_is_up: None) -> None:
    nasty = "\x1b[2J[red]\x07"
    facts = (*BIDDING, Declined(node=b"9" * 32, reason="BUSY", hint=nasty), Moved(phase="failed", cause=nasty))
    write(journal, facts)
    for command in ("list", "status", "explain", "trace"):
        ended = job(command, *((NAME,) if command != "list" else ()))
        assert "\x1b" not in ended.out and "\x07" not in ended.out
        assert "red" in ended.out


@pytest.mark.parametrize("command", ["list", "status", "explain", "trace", "audit"])
def test_damaged_records_are_told_and_cost_no_other(job: Command, journal: LevelJournal, command: str) -> None:
    number = write(journal, SETTLED)
    for place in (1, 5, 12):
        journal.put(RECORDS + number.to_bytes(8, "big") + place.to_bytes(4, "big"), b"\xff nonsense")
    ended = job(command, *((NAME,) if command != "list" else ()))
    if command == "audit":
        assert ended.code in (0, 2)
    else:
        assert ended.code == 0 and ("3 records" in ended.out + ended.err or command == "list")


def test_a_damaged_journal_is_named(job: Command, journal: LevelJournal, tmp_path: Path) -> None:
    write(journal, SETTLED)
    journal.close()
    (tmp_path / "requester" / "journal" / "CURRENT").write_text("nonsense\n")
    refused(job("explain", NAME), "data dir", str(tmp_path / "requester" / "journal"))


def test_only_the_newest_order_can_be_the_running_one(job: Command, journal: LevelJournal, submit_is_up: None) -> None:
    write(journal, STATES["running"])
    Chronicler.begin(journal).tell(1, PLACED)
    assert "`submit` ended" in job("explain", NAME, *CHAIN_DOWN).out
    assert "`submit` ended" not in job("explain", "draft-2").out


@pytest.mark.parametrize(("process", "running"), [(0, True), (SUBMIT, True), (SUBMIT + 1, False)])
def test_another_command_that_owns_the_journal_is_not_the_submit_of_a_job(
    job: Command, journal: LevelJournal, submit_is_up: None, process: int, running: bool
) -> None:
    placed = msgspec.structs.replace(PLACED, process=process)
    write(journal, tuple(placed if one is PLACED else one for one in STATES["running"]))
    assert ("`submit` ended" not in job("explain", NAME, *CHAIN_DOWN).out) == running


def test_a_result_that_is_here_is_named(job: Command, journal: LevelJournal, tmp_path: Path) -> None:
    write(journal, SETTLED)
    folder = tmp_path / "requester" / "results"
    folder.mkdir()
    for suffix in ("safetensors", "receipt.json"):
        (folder / f"{NAME}.{suffix}").write_text("{}")
    ended = job("result", NAME[:8], "--json")
    assert ended.code == 0 and ended.json == {
        "job_id": NAME,
        "status": "settled",
        "reason": "",
        "weights": str(folder / f"{NAME}.safetensors"),
        "answers": "",
        "receipt": str(folder / f"{NAME}.receipt.json"),
    }
    assert str(folder) in job("result", NAME).out


def test_results_are_looked_for_where_submit_put_them(job: Command, journal: LevelJournal, tmp_path: Path) -> None:
    placed = msgspec.structs.replace(PLACED, results=str(tmp_path / "elsewhere"))
    write(journal, tuple(placed if one is PLACED else one for one in SETTLED))
    (tmp_path / "elsewhere").mkdir()
    for suffix in ("answers.json", "receipt.json"):
        (tmp_path / "elsewhere" / f"{NAME}.{suffix}").write_text("{}")
    assert job("result", NAME, "--json").json["answers"].startswith(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("unsold", "no bid"),
        ("unsold unfunded", "2 of the 4 nodes"),
        ("failed", "out of memory"),
        ("fraud", "segment 3"),
        ("expired", "refund"),
        ("cancelled", "too little"),
        ("queued", "before anything was funded"),
    ],
)
def test_where_there_can_be_no_result_the_reason_is_told(
    job: Command, journal: LevelJournal, state: str, text: str
) -> None:
    write(journal, STATES[state])
    ended = job("result", "draft-1")
    assert ended.code == 7 and text in ended.out and "none is here" in ended.out
    assert job("result", "draft-1", "--json").json["weights"] == ""


def test_a_result_is_not_fetched_while_its_submit_or_another_command_is_at_work(
    job: Command, journal: LevelJournal, submit_is_up: None
) -> None:
    write(journal, STATES["running"])
    ended = job("result", NAME)
    assert ended.code == 7 and "`submit` is up" in ended.out
    Chronicler.begin(journal).tell(1, PLACED)
    refused(job("result", NAME), "data dir", "another command")


def test_a_result_cannot_be_fetched_from_nobody(job: Command, journal: LevelJournal) -> None:
    write(journal, STATES["running"])
    journal.close()
    refused(job("result", NAME, *CHAIN_DOWN), "bootstrap", "cyxnode bootstrap run")
