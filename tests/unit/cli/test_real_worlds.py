"""`cyxnode sim run --real` before anything runs: which plan it plays, what it orders, where it keeps its files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cyxnode.cli import sim_real
from cyxnode.cli.main import cli
from cyxnode.cli.real_nodes import Participant, deny
from cyxnode.p2p.blob_store import MemoryBlobs
from cyxnode.p2p.deny_list import read_peers
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.simulation.judge import Violation
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.real_report import RealRun, real_command, real_report

SMALL = Plan(seed=0, peers=8, minutes=2.0, jobs=4, requesters=2, haste=5.0)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[RealRun]:
    """Runs that were asked for; nothing is started, and each of them fails."""
    runs: list[RealRun] = []

    def play(plan: Plan, home: Path, *, torch: bool, tell: Any) -> tuple[int, RealRun]:
        runs.append(RealRun(plan, torch=torch, violations=[Violation(0, 1.0, "planted")]))
        (home / "some.log").write_text("")
        return 0, runs[-1]

    monkeypatch.setattr(sim_real, "play_real", play)
    return runs


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["sim", "run", "--real", *arguments], standalone_mode=False)


def test_real_worlds_are_small_unless_somebody_says_otherwise(played: list[RealRun], tmp_path: Path) -> None:
    assert run("--keep", str(tmp_path / "one")).return_value == 8
    assert run("--jobs", "10", "--haste", "1", "--keep", str(tmp_path / "two")).return_value == 8
    assert [one.plan for one in played] == [SMALL, Plan(seed=0, peers=8, minutes=2.0, jobs=10, requesters=2)]


@pytest.mark.parametrize("plan", [SMALL, Plan(seed=7, peers=5, minutes=0.5, faults="harsh", k=5, drop=(1, 3))])
def test_the_printed_command_plays_the_same_plan(played: list[RealRun], tmp_path: Path, plan: Plan) -> None:
    torch = plan is not SMALL
    words = shlex.split(real_command(plan, torch=torch))
    assert words[:3] == ["cyxnode", "sim", "run"]
    CliRunner().invoke(cli, [*words[1:], "--keep", str(tmp_path / "kept")], standalone_mode=False)
    assert [(one.plan, one.torch) for one in played] == [(plan, torch)]


def test_what_failed_is_kept_and_named(played: list[RealRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_real.tempfile, "tempdir", str(tmp_path))
    end = run("--json")
    report = json.loads(end.stdout)
    assert (Path(report["kept"]) / "some.log").exists() and report["kept"] in end.stderr
    assert report["command"] in end.stderr and report["virtual_command"] in end.stderr


def test_what_went_well_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_real.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sim_real, "play_real", lambda plan, home, **_: (0, RealRun(plan)))
    assert run("--json").return_value == 0
    monkeypatch.setattr(sim_real, "play_real", lambda plan, home, **_: (130, RealRun(plan)))
    assert run("--json").return_value == 130
    assert list(tmp_path.iterdir()) == []


def test_a_folder_to_keep_things_in_is_new_or_empty(tmp_path: Path) -> None:
    with sim_real.open_home(tmp_path / "new" / "folder") as home:
        (home.path / "some.log").write_text("")
    assert (tmp_path / "new" / "folder" / "some.log").exists()
    with pytest.raises(LocalError, match="not empty"), sim_real.open_home(tmp_path):
        pass


def test_the_report_has_the_shape_of_a_virtual_one(played: list[RealRun]) -> None:
    report = real_report(RealRun(SMALL, events=[(1.0, "down", "peer1"), (2.0, "up", "peer1")], checks={7: "no"}))
    assert (report["mode"], report["trace_hash"], report["messages"]) == ("real", None, None)
    assert report["troubles"] == {"down": 1} and report["checks"] == {"7": "no"}
    assert report["details"]["events"] == [[1.0, "down", "peer1"], [2.0, "up", "peer1"]]


def test_both_sides_of_a_split_can_be_told_apart(tmp_path: Path) -> None:
    others = [Participant(f"peer{n}", "eu-west", KeyPair(bytes([n]) * 32), tmp_path / str(n)) for n in (1, 2)]
    deny(tmp_path / "deny.list", others)
    assert read_peers(tmp_path / "deny.list") == {other.node_id for other in others}
    deny(tmp_path / "deny.list", [])
    assert read_peers(tmp_path / "deny.list") == frozenset()


@pytest.mark.slow
def test_jobs_for_torch_are_one_epoch_of_the_example() -> None:
    make = sim_real.trained_order(SMALL)
    first, second = (make(number, MemoryBlobs(1 << 30)) for number in (0, 1))
    assert first.spec.epochs == 1 and 0 < first.spec.steps < 100
    assert first.spec.seed != second.spec.seed and first.k == SMALL.k
    assert first.work_mflop > 0 and first.work_seconds == sim_real.WORK_SECONDS
