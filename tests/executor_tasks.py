"""Small training tasks for tests: synthetic data, models of a few hundred parameters, some milliseconds a step."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from cyxnode.executor.graph import canonical_graph
from cyxnode.executor.tensors import write_tensors
from cyxnode.protocol.ports import TrainTask
from cyxnode.protocol.spec import TrainSpec, steps_per_segment

CID = "b" + "a" * 20


def node(name: str, op: str, sources: str | list[str] = "input", **args: Any) -> dict[str, Any]:
    """One node of a graph document."""
    return {"id": name, "op": op, "in": [sources] if isinstance(sources, str) else sources, "args": args}


def document(
    nodes: list[dict[str, Any]], shape: list[int], dtype: str = "float32", output: str | None = None
) -> dict[str, Any]:
    """A graph document whose output is the last node."""
    inputs = {"shape": shape, "dtype": dtype}
    return {"version": 1, "input": inputs, "nodes": nodes, "output": output or nodes[-1]["id"]}


def small_document() -> dict[str, Any]:
    """Convolution, batch norm and dropout: each thing that keeps buffers or draws random numbers."""
    return document(
        [
            node("conv", "Conv2d", in_channels=1, out_channels=4, kernel_size=3, padding=1, bias=False),
            node("norm", "BatchNorm2d", "conv", num_features=4),
            node("relu", "ReLU", "norm"),
            node("flat", "Flatten", "relu"),
            node("drop", "Dropout", "flat", p=0.2),
            node("head", "Linear", "drop", in_features=64, out_features=3),
        ],
        [1, 4, 4],
    )


def blob(examples: int, seed: int, *, classes: int = 3, shape: tuple[int, ...] = (1, 4, 4)) -> bytes:
    """Separable synthetic examples."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    y = rng.integers(0, classes, examples)
    x = rng.random((examples, *shape)) + y.reshape(-1, *[1] * len(shape)) * 0.3
    return write_tensors({"x": x.astype(np.float32), "y": y.astype(np.int64)})


def small_task(*, graph: dict[str, Any] | None = None, segments: int = 6, **changes: Any) -> TrainTask:
    """24 steps in 6 segments: 3 epochs of 8 batches of 8."""
    steps = changes.pop("steps", changes.get("epochs", 3) * (64 // changes.get("batch_size", 8)))
    fields: dict[str, Any] = {
        "graph": canonical_graph(json.dumps(graph or small_document())),
        "train_cid": CID,
        "validation_cid": CID,
        "loss": "cross_entropy",
        "optimizer": "adamw",
        "learning_rate_micro": 5_000,
        "weight_decay_micro": 10_000,
        "momentum_micro": 0,
        "batch_size": 8,
        "epochs": 3,
        "steps": steps,
        "steps_per_segment": steps_per_segment(steps, segments),
        "seed": 11,
        "secret": bytes(32),
    }
    return TrainTask(TrainSpec(**(fields | changes)), blob(64, 1), blob(20, 2))
