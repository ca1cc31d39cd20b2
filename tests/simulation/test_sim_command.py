"""Story: `cyxnode sim` as a user types it: a world with its report, a bug that is found and made small, Ctrl-C."""

from __future__ import annotations

import functools
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from cyxnode.cli.main import cli
from cyxnode.simulation import process
from cyxnode.simulation.plan import NodeCrashes, Plan, schedule
from cyxnode.simulation.process import Worlds
from cyxnode.simulation.report import crashed

pytestmark = pytest.mark.slow
TINY = ["--peers", "6", "--minutes", "1.5", "--jobs", "2", "--faults", "default"]
OWED = {
    *("seed", "trace_hash", "jobs", "paid", "refunded", "cheats_tried", "cheats_caught", "cheats_paid"),
    *("invariants_violated", "cpu_seconds", "time_to_award_ms", "time_to_paid_ms", "messages", "bytes", "topics"),
    *("gini", "command"),
}
WAIT_S = 30.0


def sim(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cyxnode.cli.main", "sim", *arguments]


def test_one_world_as_json_and_as_a_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    end = subprocess.run(
        sim("run", "--seed", "7", *TINY, "--json", "--html", str(page)), capture_output=True, text=True, check=True
    )
    report = json.loads(end.stdout)
    assert report.keys() >= OWED and "details" not in report
    assert (report["seed"], report["jobs"], report["invariants_violated"]) == (7, 2, [])
    assert report["jobs"] == report["paid"] + report["refunded"]
    assert set(report["time_to_award_ms"]) >= {"p50", "p90", "p99"}
    html = page.read_text()
    assert report["trace_hash"] in html and report["command"].replace("&", "\\u0026") in html

    words = shlex.split(report["command"])
    assert words[:3] == ["cyxnode", "sim", "run"]
    again = subprocess.run(sim(*words[2:], "--json"), capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["trace_hash"] == report["trace_hash"]


class Played(Worlds):
    """Remembers what it was asked to play."""

    plans: list[Plan]

    def play(self, plan: Plan, tell: Any = None) -> dict[str, Any]:
        self.plans.append(plan)
        return crashed(plan.seed, plan.command(), "planted")


@pytest.mark.parametrize(
    "plan",
    [
        Plan(seed=0),
        Plan(
            seed=12, peers=9, minutes=2.25, jobs=0, requesters=1, classes=3, faults="harsh", k=7, haste=2.5, drop=(0, 9)
        ),
        Plan(seed=1, cheaters=0.07, cheats=("sybil", "spammer")),
    ],
)
def test_the_printed_command_plays_the_same_plan(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    Played.plans = []
    monkeypatch.setattr(process, "Worlds", Played)
    end = CliRunner().invoke(cli, shlex.split(plan.command())[1:], standalone_mode=False)
    assert end.return_value == 8
    assert Played.plans == [plan]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(["--cheaters", "120%"], "20%"), (["--cheat", "nonsense"], "spammer"), (["--html", "/nowhere/x.html"], "folder")],
)
def test_a_wrong_option_names_itself(arguments: list[str], hint: str) -> None:
    end = subprocess.run(sim("run", *arguments), capture_output=True, text=True)
    assert end.returncode == 2
    assert arguments[0].lstrip("-").rstrip("s") in end.stderr and hint in end.stderr


def test_a_bug_is_found_made_small_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug breaks an invariant wherever a node crashes: one crash is all that must be left."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.setattr(process, "Worlds", functools.partial(Worlds, module="planted_world"))
    options = ["--peers", "5", "--minutes", "1", "--jobs", "1", "--faults", "harsh"]
    command = ["sim", "sweep", "--seeds", "30", "--shrink", "30", *options, "--json"]
    end = CliRunner().invoke(cli, command, standalone_mode=False)
    assert end.exception is None and end.return_value == 8
    found = json.loads(end.stdout)
    assert found["seeds"] == found["failed_seed"] + 1, "the first failing seed is reported, and nothing after it"
    assert found["invariants_violated"][0]["number"] == found["shrunk_violations"][0]["number"] == 6
    assert f"--seed {found['failed_seed']} " in found["shrunk_command"]

    again = CliRunner().invoke(cli, [*shlex.split(found["shrunk_command"])[1:], "--json"], standalone_mode=False)
    assert again.return_value == 8
    assert json.loads(again.stdout)["invariants_violated"] == found["shrunk_violations"]
    assert found["shrunk_command"] in again.stderr
    assert [type(happening.what) for happening in schedule(_plan_of(found["shrunk_command"]))] == [NodeCrashes]


def _plan_of(command: str) -> Plan:
    words = dict(re.findall(r"--(\w+) (\S+)", command))
    return Plan(
        seed=int(words["seed"]),
        peers=int(words["peers"]),
        minutes=float(words["minutes"]),
        jobs=int(words["jobs"]),
        requesters=int(words["requesters"]),
        faults=words["faults"],
        drop=tuple(int(number) for number in re.findall(r"--drop (\d+)", command)),
    )


def test_ctrl_c_leaves_no_process_behind() -> None:
    child = subprocess.Popen(sim("run", "--peers", "30", "--minutes", "60"), stderr=subprocess.PIPE, text=True)
    worlds = _until_children(psutil.Process(child.pid))
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=WAIT_S)
    assert child.returncode == 130
    assert "Traceback" not in said
    assert all(not world.is_running() or world.status() == psutil.STATUS_ZOMBIE for world in worlds)


def _until_children(parent: psutil.Process) -> list[psutil.Process]:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if children := parent.children():
            return children
        time.sleep(0.05)
    raise AssertionError("no world was started")


def test_comparison_has_a_row_for_each_way() -> None:
    end = subprocess.run(sim("compare", "--seeds", "1", *TINY, "--json"), capture_output=True, text=True, check=True)
    rows = json.loads(end.stdout)
    assert rows[0]["name"] == "cyxnode" and len(rows) == 6
    assert {row["broken_worlds"] for row in rows} == {0}, end.stderr
    assert {row["jobs"] for row in rows} == {2}
    assert all(row["completed"] <= 2 and row["utilisation"] >= 0 for row in rows)
