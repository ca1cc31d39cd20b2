"""The simulated runner lives in virtual time and needs no torch. Its verification is tested with the real one's."""

from __future__ import annotations

import subprocess
import sys

import torch
import trio
from trio.testing import MockClock

from cyxnode.executor.class_digest import class_digest
from cyxnode.executor.classes import describe_class
from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.protocol.ports import SegmentDone, TrainEvent
from executor_tasks import small_task


async def test_training_takes_virtual_seconds(autojump_clock: MockClock) -> None:
    times: list[float] = []

    async def emit(event: TrainEvent) -> None:
        if isinstance(event, SegmentDone):
            times.append(trio.current_time() - started)

    started = trio.current_time()
    async with SimulatedRunner(100.0).session(small_task()) as session:
        done = await session.train(emit)
    assert [round(at) for at in times] == [0, 400, 800, 1200, 1600, 2000, 2400]
    assert done.total_time_ms == 2_400_000


def test_class_follows_from_its_name() -> None:
    assert SimulatedRunner(1.0).execution_class == SimulatedRunner(2.0).execution_class
    assert SimulatedRunner(class_name="a").execution_class != SimulatedRunner(class_name="b").execution_class


def test_it_imports_no_torch() -> None:
    script = "import sys, cyxnode.executor.simulated as s; s.SimulatedRunner(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def test_no_real_class_is_a_simulated_one() -> None:
    """A class is the digest of its description, and what computes stands in it: never "simulated" in a real one."""
    real = describe_class(torch.device("cpu"))
    pretended = SimulatedRunner(class_name=class_digest(real).hex())
    assert pretended.execution_class != class_digest(real)
    assert real["compute"] == "cpu" and pretended.description["compute"] == "simulated"
    assert pretended.execution_class == class_digest({"compute": "simulated", "name": class_digest(real).hex()})
