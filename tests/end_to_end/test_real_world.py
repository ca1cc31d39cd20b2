"""`cyxnode sim run --real`: a market of processes with a crash, a pause and a split, and nothing left of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from commands import assert_one_line, cyxnode, descendants, left_over, running, started, until

pytestmark = pytest.mark.slow
WORLD = ("sim", "run", "--real", "--peers", "5", "--minutes", "0.5", "--jobs", "2", "--requesters", "1")
TROUBLED = (*WORLD, "--faults", "harsh", "--haste", "20", "--seed", "1623")
"""A pause and a split while the first job is auctioned, and a crash before the second; each is over by second 23."""
OWED = {
    *("mode", "seed", "trace_hash", "jobs", "paid", "refunded", "cheats_tried", "cheats_caught", "cheats_paid"),
    *("invariants_violated", "cpu_seconds", "time_to_award_ms", "checks", "troubles", "command", "virtual_command"),
}


def test_a_market_of_processes_in_trouble(tmp_path: Path) -> None:
    keep, page = tmp_path / "kept", tmp_path / "report.html"
    ended = cyxnode(tmp_path, *TROUBLED, "--json", "--keep", str(keep), "--html", str(page), within_s=240)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert report.keys() >= OWED and "details" not in report
    assert (report["mode"], report["trace_hash"], report["invariants_violated"]) == ("real", None, [])
    assert report["troubles"] == {"down": 1, "pause": 1, "split": 1}
    assert report["jobs"] == 2 == report["paid"] + report["refunded"] and report["paid"] >= 1
    assert report["facts"]["lives"] == 6 and report["facts"]["journals"] == 6 and report["facts"]["stories"] == 2
    assert report["facts"]["votes"] >= 2 * report["paid"], "the quorum's votes are in the journals of its members"
    assert report["checks"]["7"].startswith("not checked")
    assert "--real" in report["command"] and "--real" not in report["virtual_command"]
    crashed, again = (keep / "peer3.1.log").read_text(), (keep / "peer3.2.log").read_text()
    assert "node ready" in crashed and "node ready" in again
    denied = [log for log in keep.glob("peer*.log") if '"deny_list_changed"' in log.read_text()]
    assert len(denied) == 5, "everyone lost somebody, and was told so"
    assert '"mode":"real"' in page.read_text() and report["command"] in page.read_text()
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_broken_off_world_leaves_no_process(tmp_path: Path, sent: signal.Signals) -> None:
    """Also none that stands still: a stopped process hears of nothing until it is told to go on."""
    log = tmp_path / "sim.log"
    pausing = ("--faults", "harsh", "--haste", "40", "--seed", "1679", "--drop", "1")
    with started(tmp_path, *WORLD, *pausing, log=log) as process:
        until(lambda: _standing(process), 90, "a node stands still")
        below = descendants(process)
        assert len(below) >= 7
        process.send_signal(sent)
        assert process.wait(timeout=15) == (-sent if sent is signal.SIGKILL else 130)
        until(lambda: not running(below) and not left_over(tmp_path), 15, f"all ended after {sent.name}")
    assert "Traceback" not in log.read_text(errors="replace")
    if sent is not signal.SIGKILL:
        assert list(tmp_path.glob("cyxnode-real-*")) == []


def _standing(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    assert process.poll() is None
    found = []
    for one in descendants(process):
        with suppress(psutil.NoSuchProcess):  # it was killed by the schedule meanwhile
            found += [one] if one.status() == psutil.STATUS_STOPPED else []
    return found


def test_a_node_that_ends_by_itself_breaks_the_world(tmp_path: Path) -> None:
    """Killed by somebody else than the schedule: reported with the end of its log, and the files stay."""
    log = tmp_path / "sim.log"
    with started(tmp_path, *WORLD, "--seed", "1", "--json", log=log) as process:
        until(lambda: list(tmp_path.glob("cyxnode-real-*/requester0/journal")), 90, "all nodes are ready")
        _nodes(process)[0].kill()
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
        assert process.wait(timeout=15) == 8
    (violation,) = report["invariants_violated"]
    assert violation["number"] == 0 and "peer" in violation["text"] and "code -9" in violation["text"]
    assert (Path(report["kept"]) / "chain.log").exists()
    assert "replay with" in log.read_text() and report["kept"] in log.read_text()
    assert left_over(tmp_path) == []


def _nodes(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [one for one in descendants(process) if "--simulated-runner" in one.cmdline()]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--real", "--cheaters", "20%"), "cheaters"),
        (("--real", "--peers", "1000"), "peers"),
        (("--real", "--torch", "--classes", "2"), "classes"),
        (("--torch",), "torch"),
        (("--keep", "somewhere"), "keep"),
        (("--real", "--keep", "."), "keep"),
    ],
)
def test_what_real_worlds_cannot_do(tmp_path: Path, arguments: tuple[str, ...], field: str) -> None:
    (tmp_path / "full").write_text("")
    given = tuple(str(tmp_path) if one == "." else one for one in arguments)
    assert_one_line(cyxnode(tmp_path, "sim", "run", *given), field, 2)


def test_a_stopped_process_goes_on_when_its_stopper_is_killed(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, trio\n"
        "from cyxnode.cli.processes import stopped\n"
        "async def main():\n"
        "    child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "    async with stopped(child):\n"
        "        print(child.pid, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as stopper:
        assert stopper.stdout is not None
        child = psutil.Process(int(stopper.stdout.readline()))
        try:
            until(lambda: child.status() == psutil.STATUS_STOPPED, 10, "it stands still")
            stopper.kill()
            until(lambda: child.status() != psutil.STATUS_STOPPED, 10, "it goes on")
        finally:
            child.kill()
