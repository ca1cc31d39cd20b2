"""A task checked as a whole: spec, graph and both datasets fit one another. No torch.

The submitter runs this before anything is sent or paid, and every node runs it again on what it receives.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.errors import LocalError
from ..protocol.limits import STATE_MAX_BYTES
from ..protocol.ports import TrainTask
from ..protocol.spec import TrainSpec
from .data import Examples, load_examples
from .graph import Graph, check_batch, parse_graph


@dataclass(frozen=True, slots=True)
class CheckedTask:
    """What a trainer may trust."""

    spec: TrainSpec
    graph: Graph
    train: Examples
    validation: Examples


def check_task(task: TrainTask) -> CheckedTask:
    """Check everything that can be known without computing. Raises LocalError with field and fix."""
    spec, graph = task.spec, parse_graph(task.spec.graph)
    check_batch(graph, spec.batch_size)
    slots = 3 if spec.optimizer == "adamw" else 2
    if 4 * (slots * graph.parameters + 2 * graph.buffers) > STATE_MAX_BYTES:
        raise LocalError("the state of the model is too large", field="model", fix="make the model smaller")
    train = load_examples(task.train, graph, spec.loss, part="train")
    validation = load_examples(task.validation, graph, spec.loss, part="validation")
    if spec.batch_size > len(train):
        raise LocalError(
            f"is {spec.batch_size}, and there are {len(train)} examples", field="batch_size", fix="take fewer"
        )
    steps = spec.epochs * (len(train) // spec.batch_size)
    if spec.steps != steps:
        raise LocalError(f"is {spec.steps}, and this dataset gives {steps}", field="steps", fix=f"set it to {steps}")
    return CheckedTask(spec, graph, train, validation)
