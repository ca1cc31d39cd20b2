"""What a job costs beyond its training, on a whole network of processes on this machine.

Starts a chain, a bootstrap node and five nodes, lets them idle while their memory and CPU are read, then runs jobs one
after another (the digits example) for one requester; last, one `cyxnode demo` from nothing to its receipt. Overhead is
the time from the announce to the payment, less training and the worker's set-up.

    .venv/bin/python benchmarks/first_job.py [--jobs 10] [--json] [--skip-demo]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import trio

from cyxnode.cli.compose import Place, open_client
from cyxnode.cli.demo import Network, example_order, open_network
from cyxnode.cli.logs import configure_logs
from cyxnode.cli.order import load_plan
from cyxnode.cli.settings import identity
from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.scheduler.orders import News, Stage

NODES = 5
SETTLE_IN_S, IDLE_S = 3.0, 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and the most that it may be."""

    name: str
    value: float
    most: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.value <= self.most


def family(name: str, home: Path) -> list[psutil.Process]:
    """The processes of one node: the command, and whatever it started."""
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if str(home) in command and "--name" in command and command[command.index("--name") + 1] == name:
            return [process, *process.children(recursive=True)]
    raise SystemExit(f"{name} does not run")


def cpu_s(processes: list[psutil.Process]) -> float:
    """CPU seconds used so far."""
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


async def idle_nodes(network: Network) -> dict[str, dict[str, float]]:
    """Resident and proportional memory in MB, and CPU in per cent of one core, of each node."""
    await trio.sleep(SETTLE_IN_S)
    families = {name: family(name, network.home) for name in network.nodes}
    before, began = {name: cpu_s(one) for name, one in families.items()}, time.monotonic()
    await trio.sleep(IDLE_S)
    seconds, result = time.monotonic() - began, {}
    for name, one in families.items():
        memory = [process.memory_full_info() for process in one]
        result[name] = {
            "processes": len(one),
            "rss_mb": round(sum(m.rss for m in memory) / 1e6, 1),
            "pss_mb": round(sum(m.pss for m in memory) / 1e6, 1),
            "cpu_percent": round(100 * (cpu_s(one) - before[name]) / seconds, 2),
        }
    return result


async def run_jobs(network: Network, count: int, echo: Any) -> list[dict[str, Any]]:
    """`count` jobs one after another; each with its stages in milliseconds, and how it ended."""
    plan, rows = load_plan(example_order(), unsandboxed_ok=not network.sandboxed), []
    pair, folder = identity(network.home, "requester", None)
    news: list[News] = []
    place = Place(network.rpc, LOCAL_PROGRAM_ID, network.bootstrap)
    async with open_client(pair, folder, place, news.append, faucet=True) as service:
        for number in range(1, count + 1):
            news.clear()
            began = time.monotonic()
            result = await service.submit(plan.place(service.blobs))
            wall_ms = round(1000 * (time.monotonic() - began))
            stages = (result.receipt or {}).get("timeline_ms", {})
            row = {
                "job": (result.receipt or {}).get("job", ""),
                "status": result.phase.value,
                "reason": result.reason,
                "trouble": [n.detail for n in news if isinstance(n, Stage) and n.name == "trouble"],
                "wall_ms": wall_ms,
                "timeline_ms": stages,
            }
            rows.append(row | costs(stages))
            echo(f"job {number:2}  {row['status']:8} {wall_ms:6} ms  award {rows[-1].get('award_ms', '-')} ms")
    return rows


def costs(stages: dict[str, int]) -> dict[str, int]:
    """Milliseconds of the parts that the targets name; empty when the job was not settled."""
    if not {"announced", "awarded", "training", "claimed", "settled"} <= stages.keys():
        return {}
    compute = stages["claimed"] - stages["training"]
    set_up = stages["training"] - stages["awarded"]
    return {
        "award_ms": stages["awarded"] - stages["submitted"],
        "set_up_ms": set_up,
        "compute_ms": compute,
        "overhead_ms": stages["settled"] - stages["announced"] - compute - set_up,
    }


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; infinite where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))] if ordered else float("inf")


def demo_wall_s() -> float:
    """Wall seconds of `cyxnode demo`, from nothing to all processes gone; infinite when it fails."""
    command = [sys.executable, "-m", "cyxnode.cli.main", "demo", "--json"]
    began = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=600, check=False)
    seconds = time.monotonic() - began
    if ended.returncode:
        return float("inf")
    shutil.rmtree(Path(json.loads(ended.stdout)["receipt"]).parents[1], ignore_errors=True)
    return seconds


def judge(idle: dict[str, dict[str, float]], jobs: list[dict[str, Any]], demo_s: float | None) -> list[Target]:
    """Every figure against its target."""
    awards = [row["award_ms"] for row in jobs if "award_ms" in row]
    overheads = [row["overhead_ms"] for row in jobs if "overhead_ms" in row]
    targets = [
        Target("jobs that did not settle", sum(row["status"] != "settled" for row in jobs), 0, ""),
        Target("submit to award, p50", percentile(awards, 0.5), 1_500, "ms"),
        Target("overhead, p50", percentile(overheads, 0.5), 4_500, "ms"),
        Target("overhead, p90", percentile(overheads, 0.9), 4_500, "ms"),
        Target("RSS of the largest idle node", max(node["rss_mb"] for node in idle.values()), 200, "MB"),
    ]
    return targets + ([] if demo_s is None else [Target("cyxnode demo", round(demo_s, 1), 60, "s")])


def report(idle: dict[str, dict[str, float]], jobs: list[dict[str, Any]], demo_s: float | None) -> dict[str, Any]:
    """All figures as JSON."""
    awards = [row["award_ms"] for row in jobs if "award_ms" in row]
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average_1min": os.getloadavg()[0],
        "nodes": NODES,
        "targets": [
            {"name": t.name, "value": t.value, "most": t.most, "unit": t.unit, "passed": t.passed}
            for t in judge(idle, jobs, demo_s)
        ],
        "award_p90_ms": percentile(awards, 0.9),
        "idle": idle,
        "jobs": jobs,
    }


def show(found: dict[str, Any]) -> None:
    """The figures as text."""
    print(f"\n{'node':8} {'RSS MB':>8} {'PSS MB':>8} {'CPU %':>7}   (idle, children included)")
    for name, node in found["idle"].items():
        print(f"{name:8} {node['rss_mb']:8} {node['pss_mb']:8} {node['cpu_percent']:7}")
    print(f"\nsubmit to award p90: {found['award_p90_ms']} ms")
    print(f"\n{'target':32} {'value':>10} {'most':>8}")
    for one in found["targets"]:
        verdict = "pass" if one["passed"] else "FAIL"
        print(f"{one['name']:32} {one['value']:>10} {one['most']:>8} {one['unit']:3} {verdict}")


async def measure(home: Path, jobs: int, echo: Any) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    async with open_network(home, NODES, echo) as network:
        return await idle_nodes(network), await run_jobs(network, jobs, echo)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--skip-demo", action="store_true")
    arguments = parser.parse_args()

    configure_logs("error", "console")

    def echo(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    home = Path(tempfile.mkdtemp(prefix="cyxnode-bench-"))
    idle, jobs = trio.run(measure, home, arguments.jobs, echo)
    found = report(idle, jobs, None if arguments.skip_demo else demo_wall_s())
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)
    if all(row["status"] == "settled" for row in jobs):
        shutil.rmtree(home)
    else:
        echo(f"the logs of the jobs that did not settle are in {home}")
    return 0 if all(one["passed"] for one in found["targets"]) else 1


if __name__ == "__main__":
    sys.exit(main())
