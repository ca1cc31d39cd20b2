"""What training through the executor costs beyond a plain PyTorch loop of the same work, in CPU time.

Each repetition runs one after another: a session of the executor (the node's process and its worker together, from
sending the task to the last event), a plain loop under the same determinism settings with the fused AdamW, and a plain
loop as one would write it by default (no settings but one thread, default AdamW). Imports are not counted. The figure
is the ratio of the minima over the repetitions; the first ratio must not exceed 1.05.

    .venv/bin/python benchmarks/training.py [--json] [--repetitions N] [--sandbox auto|bubblewrap|none]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import trio

from cyxnode.executor.determinism import ENVIRONMENT
from cyxnode.executor.graph import canonical_graph
from cyxnode.executor.importers import import_dataset
from cyxnode.executor.process import ProcessRunner, open_runner
from cyxnode.protocol.ports import SegmentDone, TrainEvent, TrainTask
from cyxnode.protocol.spec import TrainSpec, steps_per_segment

ROOT = Path(__file__).parents[1]
BATCH, EPOCHS, RATE, DECAY = 32, 12, 0.002, 0.01
LIMIT = 1.05


def make_task() -> TrainTask:
    """The digits example with its hyper-parameters."""
    data = import_dataset("digits")
    steps = EPOCHS * (data.train_examples // BATCH)
    spec = TrainSpec(
        graph=canonical_graph((ROOT / "examples" / "digits_cnn.json").read_bytes()),
        train_cid="b" + "a" * 20,
        validation_cid="b" + "a" * 20,
        loss="cross_entropy",
        optimizer="adamw",
        learning_rate_micro=round(RATE * 1e6),
        weight_decay_micro=round(DECAY * 1e6),
        momentum_micro=0,
        batch_size=BATCH,
        epochs=EPOCHS,
        steps=steps,
        steps_per_segment=steps_per_segment(steps),
        seed=7,
        secret=bytes(32),
    )
    return TrainTask(spec, data.train, data.validation)


def plain_loop(fused: bool) -> None:
    """Child process: run the loop once for each line on standard input and print its CPU seconds and accuracy."""
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional

    from cyxnode.executor.tensors import read_tensors

    torch.set_num_threads(1)
    task = make_task()
    parts = [read_tensors(task.train), read_tensors(task.validation)]
    x, y, held_x, held_y = (torch.from_numpy(np.array(part[name])) for part in parts for name in ("x", "y"))
    for _ in sys.stdin:
        started = time.process_time()
        torch.manual_seed(7)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(512, 10),
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY, fused=fused or None)
        for _ in range(EPOCHS):
            model.train()
            order, losses = torch.randperm(len(x)), []
            for first in range(0, len(x) - BATCH + 1, BATCH):
                chosen = order[first : first + BATCH]
                loss = functional.cross_entropy(model(x[chosen]), y[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            model.eval()
            with torch.no_grad():
                output = model(held_x)
                functional.cross_entropy(output, held_y).item()
                accuracy = (output.argmax(-1) == held_y).float().mean().item()
        print(time.process_time() - started, accuracy, flush=True)


class PlainLoop:
    """A child process that runs the loop on demand."""

    def __init__(self, *, fused: bool) -> None:
        settings = ENVIRONMENT if fused else {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--plain", "fused" if fused else "default"]
        # as a worker process does, so that neither is preferred by the scheduler
        self._process = subprocess.Popen(
            ["nice", "-n", "5", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | settings,
            text=True,
            bufsize=1,
        )

    def run(self) -> tuple[float, float]:
        """CPU seconds and validation accuracy of one training."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("go\n")
        seconds, accuracy = self._process.stdout.readline().split()
        return float(seconds), float(accuracy)

    def close(self) -> None:
        """End the child."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its threads, to the nanosecond (Linux' clock of another process)."""
    return time.clock_gettime((~pid << 3) | 2)


async def through_executor(runner: ProcessRunner, task: TrainTask) -> tuple[float, float, int]:
    """CPU seconds of both processes, validation accuracy, number of segments."""
    segments = 0

    async def emit(event: TrainEvent) -> None:
        nonlocal segments
        segments += isinstance(event, SegmentDone)

    async with runner.session(task) as session:
        family = [psutil.Process(session.pid), *psutil.Process(session.pid).children(recursive=True)]
        before = time.process_time() + sum(cpu_seconds(process.pid) for process in family)
        done = await session.train(emit)
        after = time.process_time() + sum(cpu_seconds(process.pid) for process in family)
    return after - before, done.final_accuracy_micro / 1e6, segments - 1


async def measure(repetitions: int, sandbox: str) -> dict[str, object]:
    """Interleaved repetitions; minima and ratios."""
    task = make_task()
    loops = {"plain_fused": PlainLoop(fused=True), "plain_default": PlainLoop(fused=False)}
    times: dict[str, list[float]] = {"executor": [], **{name: [] for name in loops}}
    accuracies: dict[str, float] = {}
    try:
        async with open_runner(sandbox=sandbox, device="cpu", warm=0) as runner:  # type: ignore[arg-type]
            for loop in loops.values():
                await trio.to_thread.run_sync(loop.run)  # first use of kernels
            for _ in range(repetitions):
                seconds, accuracies["executor"], segments = await through_executor(runner, task)
                times["executor"].append(seconds)
                for name, loop in loops.items():
                    seconds, accuracies[name] = await trio.to_thread.run_sync(loop.run)
                    times[name].append(seconds)
            description = runner.description
    finally:
        for loop in loops.values():
            loop.close()
    least = {name: min(values) for name, values in times.items()}
    return {
        "ratio_to_plain_fused": round(least["executor"] / least["plain_fused"], 4),
        "ratio_to_plain_default": round(least["executor"] / least["plain_default"], 4),
        "limit": LIMIT,
        "cpu_seconds_min": {name: round(value, 4) for name, value in least.items()},
        "cpu_seconds": {name: [round(value, 4) for value in values] for name, values in times.items()},
        "validation_accuracy": {name: round(value, 4) for name, value in accuracies.items()},
        "steps": task.spec.steps,
        "segments": segments,
        "repetitions": repetitions,
        "load_average": os.getloadavg()[0],
        "machine": description,
    }


def main() -> int:
    """Print the figures; exit code 1 when the limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--sandbox", choices=["auto", "bubblewrap", "none"], default="auto")
    parser.add_argument("--plain", choices=["fused", "default"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain_loop(options.plain == "fused")
        return 0
    figures = trio.run(measure, options.repetitions, options.sandbox)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            if name not in ("cpu_seconds", "machine"):
                print(f"{name:24} {value}")
    return int(float(str(figures["ratio_to_plain_fused"])) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
