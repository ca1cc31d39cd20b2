"""The example that the documentation shows: it must learn, whatever the seed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cyxnode.executor.graph import canonical_graph
from cyxnode.executor.importers import import_dataset
from cyxnode.executor.inprocess import InProcessRunner
from cyxnode.protocol.limits import SEGMENTS_MAX
from cyxnode.protocol.ports import TrainEvent, TrainTask
from cyxnode.protocol.spec import steps_per_segment
from executor_tasks import small_task

EXAMPLE = Path(__file__).parents[3] / "examples" / "digits_cnn.json"


async def ignore(event: TrainEvent) -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2**53])
async def test_digits_reach_the_promised_accuracy(seed: int) -> None:
    pytest.importorskip("sklearn")
    data = import_dataset("digits")
    steps = 12 * (data.train_examples // 32)
    spec = msgspec.structs.replace(
        small_task().spec,
        graph=canonical_graph(EXAMPLE.read_bytes()),
        learning_rate_micro=2_000,
        batch_size=32,
        epochs=12,
        steps=steps,
        steps_per_segment=steps_per_segment(steps),
        seed=seed,
    )
    task = TrainTask(spec, data.train, data.validation)
    assert spec.segments <= SEGMENTS_MAX
    async with InProcessRunner().session(task) as session:
        done = await session.train(ignore)
    assert done.final_accuracy_micro >= 970_000
