"""Tokens per second as the requester sees them, against the backend alone, on long answers.

Starts a chain, a bootstrap node and five nodes that serve one model of some five million parameters, and asks it for
TOKENS tokens, again and again: once as a job of the market, whose pieces come over loopback, and once in a bare process
that has model and kernels warm and does nothing else. They take turns, in changing order, each after the machine has
become quiet, and do the same work. Pace: tokens after the first one over the time from the first one to the last.
The figure is the median of the pairs' ratios; the quartiles tell how noisy the machine was, and the fastest run of each
what it can do undisturbed.

    .venv/bin/python benchmarks/infer_pace.py [--pairs 25] [--json]
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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

import psutil
import trio
from first_job import NODES
from inference import model_of, run, untrained

from cyxnode.cli.compose import Place, open_client
from cyxnode.cli.demo import Network, open_network
from cyxnode.cli.demo_infer import GENERATED_RATE, PROMPT_RATE, K, offered
from cyxnode.cli.logs import configure_logs
from cyxnode.cli.prompts import make_task
from cyxnode.cli.settings import identity
from cyxnode.cli.shelf import own_folder
from cyxnode.executor.model_adding import Rates, draft_torch
from cyxnode.executor.model_record import write_record
from cyxnode.executor.tensors import read_tensors, write_tensors
from cyxnode.executor.tokens import END
from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.protocol.inference import ModelFiles
from cyxnode.protocol.messages import Tokens
from cyxnode.protocol.units import MicroCyx
from cyxnode.scheduler.orders import InferOrder, News

MODEL, TOKENS, CONTEXT = "pace", 512, 1024
PROMPT = "A harbour at night is a market w"
SLOWER_MAX = 1.02
BURST_S = 0.2
"""No machine that this is meant for generates TOKENS tokens so fast."""
QUIET_CPU_PERCENT, QUIET_LOOKS, QUIET_LOOK_S, QUIET_WITHIN_S = 12.0, 3, 0.5, 30.0
TASK = make_task((PROMPT,), system="", temperature="0.8", top_k=40, num_predict=TOKENS, seed=1)


def endless_model() -> ModelFiles:
    """An untrained transformer that never ends an answer by itself."""
    model = untrained(CONTEXT, 256, 6, 8)
    arrays = {name: array.copy() for name, array in read_tensors(model.weights).items()}
    arrays["head.bias"][END] = -1e3
    return model_of(model.graph, write_tensors(arrays))


@dataclass(slots=True)
class Pace:
    """When the first and the latest tokens came, in monotonic seconds, and how many have come."""

    first_s: float = 0.0
    first_count: int = 0
    last_s: float = 0.0
    count: int = 0

    def came(self, count: int) -> None:
        """`count` tokens are there by now."""
        self.last_s, self.count = time.monotonic(), count
        if not self.first_count:
            self.first_s, self.first_count = self.last_s, count

    @property
    def tokens_per_s(self) -> float:
        """Of those after the first piece."""
        took_s = self.last_s - self.first_s
        if self.count != TOKENS or took_s < BURST_S:
            raise SystemExit(f"{self.count} of {TOKENS} tokens came within {took_s:.3f} s: this was no stream")
        return (self.count - self.first_count) / took_s


def serve_bare(model_folder: Path) -> None:
    """The bare process: for each line on standard input it generates, and prints its pace."""
    import torch

    from cyxnode.executor import generation
    from cyxnode.executor.determinism import pin_torch

    pin_torch()
    files = model_of((model_folder / "graph.json").read_bytes(), (model_folder / "weights").read_bytes())
    writer = generation.Writer(files, TASK, torch.device("cpu"))
    run(generation.generate(writer))
    for _ in sys.stdin:
        pace = Pace()
        for event in generation.generate(writer):
            if event is not None:
                pace.came(event.position + len(event.tokens))
        print(pace.tokens_per_s, flush=True)


@dataclass(slots=True)
class Asker:
    """The requester. Pieces of the running job go to `pace`."""

    pace: Pace = field(default_factory=Pace)

    def heard(self, news: News) -> None:
        """Something happened to the job."""
        if isinstance(news, Tokens):
            self.pace.came(news.generated)


async def quiet() -> None:
    """Until nothing else works here: nodes start their next worker after each job."""
    looks, deadline = 0, time.monotonic() + QUIET_WITHIN_S
    psutil.cpu_percent()
    while looks < QUIET_LOOKS and time.monotonic() < deadline:
        await trio.sleep(QUIET_LOOK_S)
        looks = looks + 1 if psutil.cpu_percent() < QUIET_CPU_PERCENT else 0


async def compare(network: Network, pairs: int, echo: Any) -> list[dict[str, float]]:
    """Paces in pairs, in tokens per second."""
    model = endless_model()
    graph, weights = network.home / "graph.json", network.home / "weights"
    graph.write_bytes(model.graph or b"")
    weights.write_bytes(model.weights)
    draft = draft_torch(MODEL, graph, weights, Rates(PROMPT_RATE, GENERATED_RATE))
    write_record(own_folder(network.home, None), draft.record, graph=draft.graph, weights=draft.weights)
    pair, folder = identity(network.home, "requester", None)
    place, asker = Place(network.rpc, LOCAL_PROGRAM_ID, network.bootstrap), Asker()
    order = InferOrder(model=MODEL, task=TASK, budget=MicroCyx(0), k=K, unsandboxed_ok=not network.sandboxed)
    rows: list[dict[str, float]] = []
    async with trio.open_nursery() as nursery:
        command = [sys.executable, __file__, "--bare", str(network.home)]
        pipes = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        bare: trio.Process = await nursery.start(pipes)

        async def alone() -> float:
            assert bare.stdin is not None and bare.stdout is not None
            await bare.stdin.send_all(b"again\n")
            line = b""
            while not line.endswith(b"\n"):
                line += await bare.stdout.receive_some()
            return float(line)

        async with open_client(pair, folder, place, asker.heard, faucet=True) as service:
            await offered(service, order, NODES, echo)

            async def job() -> float:
                asker.pace = Pace()
                result = await service.submit(order)
                if result.phase.value != "settled":
                    raise SystemExit(f"a job ended as {result.phase.value}: {result.reason}")
                return asker.pace.tokens_per_s

            for number in range(pairs):
                row: dict[str, float] = {}
                turns = [("backend", alone), ("market", job)]
                for name, turn in turns if number % 2 else reversed(turns):
                    await quiet()
                    row[name] = round(await turn(), 1)
                rows.append(row | {"ratio": round(row["backend"] / row["market"], 4)})
                echo(f"pair {number + 1:2}  {rows[-1]}")
        nursery.cancel_scope.cancel()
    return rows


async def measure(home: Path, pairs: int, echo: Any) -> list[dict[str, float]]:
    """The network's life."""
    async with open_network(home, NODES, echo) as network:
        return await compare(network, pairs, echo)


def main() -> int:
    """0 when streaming through the market is at most SLOWER_MAX times slower."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        serve_bare(arguments.bare)
        return 0
    configure_logs("error", "console")

    def echo(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    home = Path(tempfile.mkdtemp(prefix="cyxnode-bench-"))
    try:
        rows = trio.run(measure, home, arguments.pairs, echo)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    low, middle, high = quantiles([row["ratio"] for row in rows], n=4)
    fastest = max(row["backend"] for row in rows) / max(row["market"] for row in rows)
    passed = middle <= SLOWER_MAX
    if arguments.json:
        found = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "load_average_1min": os.getloadavg()[0],
            "nodes": NODES,
            "tokens": TOKENS,
            "slower": {
                "median": round(middle, 4),
                "quartiles": [round(low, 4), round(high, 4)],
                "fastest": round(fastest, 4),
                "most": SLOWER_MAX,
                "passed": passed,
            },
            "pairs": rows,
        }
        print(json.dumps(found, indent=1))
    else:
        verdict = "pass" if passed else "FAIL"
        print(f"{verdict}  pace of the backend over the requester's: {middle:.3f} (at most {SLOWER_MAX}; ", end="")
        print(f"quartiles {low:.3f} and {high:.3f}, {len(rows)} pairs; of the fastest runs {fastest:.3f})")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
