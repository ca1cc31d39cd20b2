"""`cyxnode demo`: one paid job on a network of processes, and nothing left of it, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import cyxnode, descendants, left_over, running, started, until
from cyxnode.protocol.errors import CyxError
from cyxnode.protocol.receipt import load_receipt, verify_receipt

pytestmark = pytest.mark.slow
KEYS = {
    "job_id",
    "status",
    "result_cid",
    "receipt",
    "completed_in_ms",
    "cost_micro_cyx",
    "verified_by",
    "validation_accuracy",
    "timeline_ms",
    "balances_before",
    "balances_after",
}
STAGES = ("submitted", "funded", "announced", "awarded", "started", "training", "claimed", "settled", "completed")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A whole demo, run once; its home and what it printed."""
    home = tmp_path_factory.mktemp("demo")
    ended = cyxnode(home, "demo", "--json", within_s=150)
    assert ended.returncode == 0, ended.stderr
    yield home, json.loads(ended.stdout)


def test_the_demo_prints_one_object_with_everything(demo: tuple[Path, dict[str, Any]]) -> None:
    _, end = demo
    assert end.keys() >= KEYS
    assert end["status"] == "settled"
    assert end["validation_accuracy"] >= 0.95
    assert len(end["verified_by"]) >= 2
    assert end["result_cid"].startswith("baf")
    assert Path(end["weights"]).stat().st_size > 0
    times = [end["timeline_ms"][stage] for stage in STAGES]
    assert times == sorted(times)
    assert end["completed_in_ms"] == times[-1]


def test_the_money_adds_up_over_all_parties(demo: tuple[Path, dict[str, Any]]) -> None:
    _, end = demo
    before, after = end["balances_before"], end["balances_after"]
    change = {name: after[name]["micro_cyx"] - before[name]["micro_cyx"] for name in before}
    earned = {name: after[name]["earned_micro_cyx"] - before[name]["earned_micro_cyx"] for name in before}
    assert -change["requester"] == sum(c for n, c in change.items() if n != "requester") + sum(earned.values())
    paid = sorted(c for n, c in change.items() if n.startswith("node") and c)
    assert paid == [end["cost_micro_cyx"] - end["cost_micro_cyx"] // 10]
    assert change["treasury"] > 0
    assert len(end["verified_by"]) <= sum(e > 0 for e in earned.values()) <= 3
    assert all(after[name]["stake_micro_cyx"] == before[name]["stake_micro_cyx"] for name in before)


def test_nothing_is_left_but_results(demo: tuple[Path, dict[str, Any]]) -> None:
    home, end = demo
    assert left_over(home) == []
    (folder,) = home.glob("cyxnode-demo-*")
    assert [path.name for path in folder.iterdir()] == ["results"]
    assert Path(end["receipt"]).parent == folder / "results"


def test_the_receipt_verifies_offline(demo: tuple[Path, dict[str, Any]]) -> None:
    home, end = demo
    ended = cyxnode(home, "receipt", "verify", end["receipt"])
    assert ended.returncode == 0, ended.stderr
    assert "the receipt holds" in ended.stdout


def changed(value: Any) -> Any:
    """The same value with its last character, or its last digit, replaced."""
    if isinstance(value, int):
        return value ^ 1
    text = str(value)
    return text[:-1] + ("a" if text[-1] != "a" else "b")


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("", "job"),
        ("", "status"),
        ("", "requester"),
        ("", "worker"),
        ("", "price_micro_cyx"),
        ("paid", "amount"),
        ("result", "uri"),
        ("metrics", "final_accuracy_micro"),
        ("transactions", "settle"),
        ("timeline_ms", "settled"),
    ],
)
def test_one_changed_character_is_named(demo: tuple[Path, dict[str, Any]], table: str, field: str) -> None:
    receipt = json.loads(Path(demo[1]["receipt"]).read_text())
    holder = receipt[table] if table else receipt
    holder[field] = changed(holder[field])
    with pytest.raises(CyxError) as refused:
        verify_receipt(load_receipt(json.dumps(receipt).encode()))
    assert table in str(refused.value) and (table or field) in str(refused.value)


def test_the_command_says_which_field_was_changed(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    text = Path(demo[1]["receipt"]).read_text().replace('"status": "OK"', '"status": "OJ"')
    (tmp_path / "receipt.json").write_text(text)
    ended = cyxnode(tmp_path, "receipt", "verify", str(tmp_path / "receipt.json"))
    assert ended.returncode != 0
    assert "status" in ended.stderr and "Traceback" not in ended.stderr


def said(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    """Wait until the demo has printed `text`."""
    until(lambda: text in log.read_text(errors="replace") or process.poll() is not None, 90, text)
    assert process.poll() is None, log.read_text(errors="replace")


@pytest.mark.parametrize(
    ("sent", "moment", "code"),
    [
        (signal.SIGINT, "  training ", 130),
        (signal.SIGTERM, "bootstrap  /ip4", 130),
        (signal.SIGKILL, "  training ", -signal.SIGKILL),
    ],
)
def test_a_broken_off_demo_leaves_no_process(tmp_path: Path, sent: signal.Signals, moment: str, code: int) -> None:
    log = tmp_path / "demo.log"
    with started(tmp_path, "demo", "--nodes", "4", log=log) as process:
        said(process, log, moment)
        below = descendants(process)
        assert len(below) >= 2
        process.send_signal(sent)
        assert process.wait(timeout=10) == code
        until(lambda: not running(below) and not left_over(tmp_path), 10, f"all ended after {sent.name}")
    assert "Traceback" not in log.read_text(errors="replace")
    if sent is not signal.SIGKILL:
        assert list(tmp_path.glob("cyxnode-demo-*")) == []
