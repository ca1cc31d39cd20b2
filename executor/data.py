"""Datasets as they enter a node: two safetensors blobs, each with tensors `x` (examples) and `y` (targets).

A blob is checked against the graph and the loss before any of it is computed with. What does not fit is a LocalError
that names the field and the fix, because the requester packed the wrong dataset for the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

import numpy as np

from ..protocol.errors import LocalError
from ..protocol.limits import DATASET_MAX_BYTES, EXAMPLES_MAX
from .graph import Graph
from .tensors import Array, BadTensors, read_tensors


@dataclass(frozen=True, slots=True)
class Examples:
    """Checked examples: `x` has the graph's input shape, `y` what the loss needs, both as read-only views."""

    x: Array
    y: Array

    def __len__(self) -> int:
        return len(self.x)


def load_examples(
    blob: bytes, graph: Graph, loss: Literal["cross_entropy", "mse"], *, part: Literal["train", "validation"]
) -> Examples:
    """Read one blob and check that this model can be trained on it. Raises LocalError with field 'data.<part>…'."""
    field = f"data.{part}"
    if len(blob) > DATASET_MAX_BYTES:
        _refuse(field, f"has {len(blob)} bytes", f"at most {DATASET_MAX_BYTES}")
    try:
        tensors = read_tensors(blob)
    except BadTensors as error:
        _refuse(field, str(error), "import the dataset again")
    if set(tensors) != {"x", "y"}:
        found = ", ".join(ascii(name[:40]) for name in sorted(tensors)[:4])
        _refuse(field, f"holds {found or 'nothing'}, not x and y", "import the dataset again")
    x, y = tensors["x"], tensors["y"]
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        _refuse(field, "has x and y of different lengths", "give each example one target")
    if not 1 <= len(x) <= EXAMPLES_MAX:
        _refuse(field, f"has {len(x)} examples", f"from 1 to {EXAMPLES_MAX}")
    _check_inputs(x, graph, f"{field}.x")
    if loss == "cross_entropy":
        _check_labels(y, graph, f"{field}.y")
    else:
        _check_targets(y, graph, f"{field}.y")
    return Examples(x, y)


def _refuse(field: str, message: str, fix: str) -> NoReturn:
    raise LocalError(message, field=field, fix=fix)


def _check_inputs(x: Array, graph: Graph, field: str) -> None:
    if x.shape[1:] != graph.input_shape:
        have, want = list(x.shape[1:]), list(graph.input_shape)
        _refuse(field, f"has examples of shape {have}, the model takes {want}", f"set model.input.shape to {have}")
    if x.dtype.name != graph.input_dtype:
        _refuse(field, f"is {x.dtype.name}, the model takes {graph.input_dtype}", f"store it as {graph.input_dtype}")
    if graph.index_limit is not None and (int(x.min()) < 0 or int(x.max()) >= graph.index_limit):
        span = f"{int(x.min())} to {int(x.max())}"
        _refuse(field, f"has indices from {span}, the Embedding takes 0 to {graph.index_limit - 1}", "widen it")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        _refuse(field, "holds NaN or infinity", "clean the dataset")


def _check_labels(y: Array, graph: Graph, field: str) -> None:
    """Cross entropy: the model's last dimension is the classes, y has one integer for each of the others."""
    classes = graph.output_shape[-1] if graph.output_shape else 0
    if y.dtype.name != "int64":
        _refuse(field, f"is {y.dtype.name}; cross_entropy takes class numbers", "use int64, or the loss mse")
    if y.shape[1:] != graph.output_shape[:-1] or classes < 1:
        have, want = list(y.shape[1:]), list(graph.output_shape[:-1])
        _refuse(field, f"has targets of shape {have}, the model's output needs {want}", "fix model.output")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        span = f"{int(y.min())} to {int(y.max())}"
        fix = f"give the last layer {int(y.max()) + 1} outputs" if int(y.min()) >= 0 else "number classes from 0"
        _refuse(field, f"has labels from {span}, the model has {classes} outputs", fix)


def _check_targets(y: Array, graph: Graph, field: str) -> None:
    if y.dtype.name != "float32":
        _refuse(field, f"is {y.dtype.name}; mse takes numbers", "use float32, or the loss cross_entropy")
    if y.shape[1:] != graph.output_shape:
        have, want = list(y.shape[1:]), list(graph.output_shape)
        _refuse(field, f"has targets of shape {have}, the model gives {want}", "fix model.output")
    if not np.isfinite(y).all():
        _refuse(field, "holds NaN or infinity", "clean the dataset")
