"""What worlds cost, and what nodes hear as the network grows while its classes stay as large as they are.

Three parts, each world in a process of its own: 1,000 peers for ten virtual minutes with 100 jobs; 200 peers for ten
minutes under the default faults with 20 jobs; and the curve of messages per node and job from 50 to 1,000 peers, of the
nodes that neither work nor sit in any job. Everything that such a node receives counts, its presence included.

    .venv/bin/python benchmarks/simulation.py [--json] [--only presence|faults|curve] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from typing import Any

import structlog

from cyxnode.simulation.plan import Plan
from cyxnode.simulation.run import run_plan

CLASS_SIZE = 50
SIZES = (50, 100, 200, 500, 1000)
FLAT = 1.3
CURVE_MINUTES, CURVE_JOBS = 3.0, 6


def world(wished: dict[str, Any]) -> dict[str, Any]:
    """Play one world here, and measure it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    run = run_plan(Plan(**wished))
    idle = [node for node in run.nodes if not node.tasks and not node.replayed_s]
    ends = [job.result.phase.value if job.result is not None else "error" for job in run.jobs]
    jobs = max(1, len(run.jobs))
    return {
        **wished,
        "cpu_seconds": round(run.cpu_seconds, 1),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "virtual_seconds": round(run.virtual_s),
        "trace_hash": run.trace.digest(),
        "ends": {end: ends.count(end) for end in sorted(set(ends))},
        "invariants_violated": len(run.violations),
        "idle_nodes": len(idle),
        "idle_messages_per_node_and_job": round(sum(node.messages for node in idle) / max(1, len(idle)) / jobs, 1),
        "market_messages_per_class_member_and_job": round(run.trace.by_topic["market"] / CLASS_SIZE / jobs, 1),
        "messages_by_topic": dict(sorted(run.trace.by_topic.items())),
    }


def apart(**wished: Any) -> dict[str, Any]:
    """Play one world in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--world", json.dumps(wished)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "0"}, stdout=subprocess.PIPE, check=True, text=True
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def figure(name: str, value: float, most: float, unit: str) -> dict[str, Any]:
    """A figure, the most that it may be, and whether it is."""
    return {"name": name, "value": value, "most": most, "unit": unit, "passed": value <= most}


def presence(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The large world."""
    one = apart(seed=seed, peers=1000, minutes=10.0, jobs=100, requesters=10, classes=1000 // CLASS_SIZE)
    return [one], [
        figure("1,000 peers, 10 min, 100 jobs", one["cpu_seconds"], 600, "CPU s"),
        figure("1,000 peers, memory", one["memory_mib"], 4096, "MiB"),
        figure("1,000 peers, invariants violated", one["invariants_violated"], 0, ""),
    ]


def faults(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The troubled world."""
    one = apart(seed=seed, peers=200, minutes=10.0, jobs=20, classes=200 // CLASS_SIZE, faults="default")
    return [one], [
        figure("200 peers, 10 min, 20 jobs, faults", one["cpu_seconds"], 120, "CPU s"),
        figure("200 peers, invariants violated", one["invariants_violated"], 0, ""),
    ]


def curve(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Growing worlds with classes of one size."""
    worlds = [
        apart(seed=seed, peers=peers, minutes=CURVE_MINUTES, jobs=CURVE_JOBS, classes=peers // CLASS_SIZE)
        for peers in SIZES
    ]
    figures = []
    for name in ("idle_messages_per_node_and_job", "market_messages_per_class_member_and_job"):
        values = [one[name] for one in worlds]
        text = f"{name.replace('_', ' ')}: {', '.join(f'{v:g}' for v in values)} at {', '.join(map(str, SIZES))} peers"
        figures.append(figure(text, round(max(values) / values[0], 2), FLAT, "x the first"))
    return worlds, figures


PARTS = {"presence": presence, "faults": faults, "curve": curve}


def main() -> int:
    """0 when every figure holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--world", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.world:
        print(json.dumps(world(json.loads(asked.world))))
        return 0
    worlds: list[dict[str, Any]] = []
    figures: list[dict[str, Any]] = []
    for name in [asked.only] if asked.only else PARTS:
        played, found = PARTS[name](asked.seed)
        worlds += played
        figures += found
        if not asked.json:
            for one in found:
                verdict = "pass" if one["passed"] else "FAIL"
                print(f"{verdict}  {one['name']}: {one['value']:g} {one['unit']} (at most {one['most']:g})", flush=True)
    if asked.json:
        machine = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "load_average_1min": round(os.getloadavg()[0], 1),
        }
        print(json.dumps({"machine": machine, "figures": figures, "worlds": worlds}, indent=1))
    return 0 if all(one["passed"] for one in figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
