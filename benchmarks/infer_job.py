"""What an inference costs beyond its computing, on a whole network of processes on this machine.

Starts a chain, a bootstrap node and five nodes, trains examples/tiny_lm.toml there, puts it on the shelf of all nodes,
and asks prompts one after another. Overhead: from submit to paid, less what the worker says that it computed; told
also without what the worker needs besides (the start of a sandboxed process with torch, loading). The backend alone:
the same model and prompts in a session of a warm sandboxed worker, without a network. Its answers are too short to show
how fast tokens come: `infer_pace.py` does.

    .venv/bin/python benchmarks/infer_job.py [--jobs 10] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trio
from first_job import NODES, Target, percentile

from cyxnode.cli.compose import Place, open_client
from cyxnode.cli.demo import Network, open_network
from cyxnode.cli.demo_infer import MODEL, NUM_PREDICT, PROMPT, K, offered, train_and_serve
from cyxnode.cli.logs import configure_logs
from cyxnode.cli.prompts import make_task
from cyxnode.cli.settings import identity
from cyxnode.cli.shelf import shelf_folders
from cyxnode.executor.model_record import read_shelf
from cyxnode.executor.model_sources import TorchSource
from cyxnode.executor.process import open_runner
from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.protocol.inference import TokensGenerated
from cyxnode.protocol.messages import Tokens
from cyxnode.protocol.units import MicroCyx
from cyxnode.scheduler.orders import InferOrder, News, Stage

PUBLISHED_S, PUBLISHED_OVERHEAD_S = 17.0, 4.5
"""A published timeline of a comparable system: from submit to paid, and what of it is not computing."""
PAUSE_S = 6.0
"""Between jobs: nodes start the next worker then, and nobody who asks now and then waits for it."""
TASK = make_task((PROMPT,), system="", temperature="0", top_k=40, num_predict=NUM_PREDICT, seed=0)


async def ask_all(network: Network, count: int, echo: Any) -> list[dict[str, Any]]:
    """`count` jobs one after another; each with its stages in milliseconds."""
    pair, folder = identity(network.home, "requester", None)
    news: list[News] = []
    place = Place(network.rpc, LOCAL_PROGRAM_ID, network.bootstrap)
    order = InferOrder(model=MODEL, task=TASK, budget=MicroCyx(0), k=K, unsandboxed_ok=not network.sandboxed)
    rows = []
    async with open_client(pair, folder, place, news.append, faucet=True) as service:
        await train_and_serve(network, service, echo)
        await offered(service, order, NODES, echo)
        for number in range(1, count + 1):
            await trio.sleep(PAUSE_S)
            news.clear()
            began = time.monotonic()
            result = await service.submit(order)
            wall_ms = round(1000 * (time.monotonic() - began))
            receipt = result.receipt or {}
            row = {
                "status": result.phase.value,
                "reason": result.reason,
                "wall_ms": wall_ms,
                "pieces": sum(isinstance(one, Tokens) for one in news),
                "trouble": [one.detail for one in news if isinstance(one, Stage) and one.name == "trouble"],
                "timeline_ms": receipt.get("timeline_ms", {}),
                "metrics": receipt.get("metrics", {}),
            }
            rows.append(row | costs(row["timeline_ms"], row["metrics"]))
            echo(f"job {number:2}  {row['status']:8} {wall_ms:6} ms  {costs(row['timeline_ms'], row['metrics'])}")
    return rows


def costs(stages: dict[str, int], metrics: dict[str, Any]) -> dict[str, int]:
    """Milliseconds of the parts that the targets name; empty when the job was not settled or not streamed."""
    if not {"submitted", "awarded", "answering", "claimed", "settled"} <= stages.keys():
        return {}
    compute = metrics["compute_time_ms"]
    overhead = stages["settled"] - stages["submitted"] - compute
    return {
        "total_ms": stages["settled"] - stages["submitted"],
        "award_ms": stages["awarded"] - stages["submitted"],
        "first_token_ms": stages["answering"] - stages["awarded"],
        "answer_ms": stages["claimed"] - stages["answering"],
        "verify_and_settle_ms": stages["settled"] - stages["claimed"],
        "compute_ms": compute,
        "overhead_ms": overhead,
        "overhead_without_start_ms": overhead - max(0, stages["claimed"] - stages["awarded"] - compute),
    }


async def alone(home: Path, count: int) -> list[dict[str, float]]:
    """The backend without a network, in a warm process each time: first token, then the rest, in milliseconds."""
    (shelved,), _ = read_shelf(shelf_folders(home, None))
    rows = []
    async with open_runner(device="cpu", warm=1) as runner:
        loaded = await TorchSource(runner).load(shelved)
        for _ in range(count):
            await trio.sleep(PAUSE_S)
            began, times = time.monotonic(), list[float]()

            async def heard(event: TokensGenerated, times: list[float] = times) -> None:
                times.append(time.monotonic())

            async with loaded.session(TASK) as session:
                (answer,) = await session.generate(heard)
            first, end = times[0] - began, time.monotonic() - began
            rows.append({"first_token_ms": 1000 * first, "end_ms": 1000 * end, "compute_ms": answer.compute_ms})
    return rows


def judge(jobs: list[dict[str, Any]], bare: list[dict[str, float]]) -> list[Target]:
    """Every figure against its target."""

    def share(name: str, of: float) -> float:
        return percentile([row[name] for row in jobs if name in row], of)

    first = share("first_token_ms", 0.5) - percentile([row["first_token_ms"] for row in bare], 0.5)
    return [
        Target("jobs that did not settle", sum(row["status"] != "settled" for row in jobs), 0, ""),
        Target("submit to paid less compute, p50", share("overhead_ms", 0.5), 2_500, "ms"),
        Target("submit to paid less compute, p90", share("overhead_ms", 0.9), 2_500, "ms"),
        Target("the same less worker's start, p50", share("overhead_without_start_ms", 0.5), 2_500, "ms"),
        Target("first token, added to backend", round(first, 1), 20, "ms"),
    ]


async def measure(home: Path, count: int, echo: Any) -> tuple[list[dict[str, Any]], list[dict[str, float]]]:
    async with open_network(home, NODES, echo) as network:
        jobs = await ask_all(network, count, echo)
    return jobs, await alone(home, count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    configure_logs("error", "console")

    def echo(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    home = Path(tempfile.mkdtemp(prefix="cyxnode-bench-"))
    try:
        jobs, bare = trio.run(measure, home, arguments.jobs, echo)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    targets = judge(jobs, bare)
    if arguments.json:
        found = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "load_average_1min": os.getloadavg()[0],
            "nodes": NODES,
            "published_timeline_s": {"total": PUBLISHED_S, "overhead": PUBLISHED_OVERHEAD_S},
            "targets": [
                {"name": t.name, "value": t.value, "most": t.most, "unit": t.unit, "passed": t.passed} for t in targets
            ],
            "jobs": jobs,
            "backend_alone": bare,
        }
        print(json.dumps(found, indent=1))
    else:
        total = percentile([row["total_ms"] for row in jobs if "total_ms" in row], 0.5)
        print(f"\nsubmit to paid, p50: {total} ms; a published timeline of a comparable system: {PUBLISHED_S:.0f} s,")
        print(f"{PUBLISHED_OVERHEAD_S} s of it beyond computing\n")
        for one in targets:
            verdict = "pass" if one.passed else "FAIL"
            print(f"{one.name:36} {one.value:>10} {one.most:>8} {one.unit:3} {verdict}")
    return 0 if all(one.passed for one in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
