"""Reads an order file (TOML) into a job, checking everything that can be checked before anything is sent.

Numbers with decimals become fixed point with scale 10^6 by decimal arithmetic, never through floats.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from ..executor.graph import canonical_graph, check_batch, parse_graph
from ..executor.importers import Dataset, import_dataset
from ..executor.task import check_task
from ..executor.work import work_mflop
from ..protocol.errors import LocalError
from ..protocol.limits import GRAPH_MAX_BYTES, MICRO, QUORUMS, SAMPLES_MAX, SEGMENTS_MAX, STEPS_MAX
from ..protocol.ports import Blobs, TrainTask
from ..protocol.spec import TrainSpec, steps_per_segment
from ..protocol.units import MicroCyx, parse_cyx
from ..scheduler.orders import check_budget
from ..scheduler.requester_service import TrainOrder

TABLES: dict[str, set[str]] = {
    "": {"kind", "model", "data", "training", "job", "verification"},
    "model": {"graph"},
    "data": {"source"},
    "training": {
        "loss",
        "optimizer",
        "learning_rate",
        "weight_decay",
        "momentum",
        "batch_size",
        "epochs",
        "seed",
    },
    "job": {"budget_cyx", "work_seconds", "device", "memory_mb", "region", "unsandboxed_ok", "wait_seconds"},
    "verification": {"k", "segments", "samples"},
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked order: the dataset is loaded, the graph is valid, and all fits together."""

    spec_fields: dict[str, Any]
    dataset: Dataset
    order_fields: dict[str, Any]

    def place(self, blobs: Blobs) -> TrainOrder:
        """Store the data in `blobs` and complete the order."""
        train, validation = blobs.put(self.dataset.train), blobs.put(self.dataset.validation)
        spec = TrainSpec(train_cid=train, validation_cid=validation, secret=os.urandom(32), **self.spec_fields)
        check_task(TrainTask(spec, self.dataset.train, self.dataset.validation))
        return TrainOrder(spec=spec, **self.order_fields)


def load_plan(path: Path, *, budget: str | None = None, unsandboxed_ok: bool = False) -> Plan:
    """Read and check an order file; LocalError names the field and the fix."""
    try:
        text = path.read_text()
        order = tomllib.loads(text)
    except FileNotFoundError:
        raise LocalError(f"{path} does not exist", field="order", fix="give the path of an order file") from None
    except (OSError, ValueError) as error:
        raise LocalError(f"{path}: {error}", field="order", fix="write it as examples/digits.toml") from None
    _check_names(order)
    if order.get("kind") != "train":
        raise LocalError(f"{order.get('kind')!r} is not a kind of job", field="kind", fix='write kind = "train"')
    graph_bytes = _read_graph(path, order)
    graph = parse_graph(graph_bytes)
    read = _Reader(order)
    with _named("dataset", "data.source"):
        dataset = import_dataset(_data_source(path, read.text("data", "source")))
    batch_size = read.integer("training", "batch_size", 1, 65_536)
    epochs = read.integer("training", "epochs", 1, 10_000)
    steps = epochs * (dataset.train_examples // batch_size)
    with _named("batch_size", "training.batch_size"):
        check_batch(graph, batch_size)
    _check_fit(graph.input_shape, graph.output_shape, dataset, batch_size, steps)
    k = read.integer("verification", "k", 3, 7, 5)
    if k not in QUORUMS:
        raise LocalError(f"{k} is not a committee size", field="verification.k", fix="use 3, 5 or 7")
    segments = read.integer("verification", "segments", 1, SEGMENTS_MAX, SEGMENTS_MAX)
    spec_fields = {
        "graph": canonical_graph(graph_bytes),
        "loss": read.choice("training", "loss", ("cross_entropy", "mse"), "cross_entropy"),
        "optimizer": read.choice("training", "optimizer", ("adamw", "sgd"), "adamw"),
        "learning_rate_micro": read.micro("training", "learning_rate", 1, 10 * MICRO),
        "weight_decay_micro": read.micro("training", "weight_decay", 0, MICRO, "0"),
        "momentum_micro": read.micro("training", "momentum", 0, MICRO - 1, "0"),
        "batch_size": batch_size,
        "epochs": epochs,
        "steps": steps,
        "steps_per_segment": steps_per_segment(steps, segments),
        "seed": read.integer("training", "seed", 0, 2**53, 0),
    }
    order_fields = {
        "budget": _budget(budget or read.text("job", "budget_cyx"), k),
        "work_mflop": work_mflop(graph, dataset.train_examples * epochs),
        "device": read.choice("job", "device", ("any", "cpu", "cuda"), "any"),
        "memory_mb": read.integer("job", "memory_mb", 0, 2**31 - 1, 0),
        "region": read.text("job", "region", ""),
        "unsandboxed_ok": unsandboxed_ok or read.flag("job", "unsandboxed_ok"),
        "work_seconds": read.integer("job", "work_seconds", 10, 30 * 86_400, 600),
        "class_wait_ms": 1000 * read.integer("job", "wait_seconds", 0, 86_400, 60),
        "k": k,
        "samples": read.integer("verification", "samples", 1, SAMPLES_MAX, 2),
    }
    return Plan(spec_fields, dataset, order_fields)


def _budget(text: str, k: int) -> MicroCyx:
    budget = parse_cyx(text, field="job.budget_cyx")
    check_budget(budget, k, field="job.budget_cyx")
    return budget


@contextmanager
def _named(field: str, name: str) -> Iterator[None]:
    """What the executor calls `field` is called `name` in an order."""
    try:
        yield
    except LocalError as error:
        raise LocalError(error.message, field=name if error.field == field else error.field, fix=error.fix) from None


def _check_names(order: dict[str, Any]) -> None:
    for table, known in TABLES.items():
        found = order if not table else order.get(table, {})
        if not isinstance(found, dict):
            raise LocalError("is not a table", field=table, fix=f"write [{table}]")
        unknown = sorted(set(found) - known)
        if unknown:
            name = f"{table}.{unknown[0]}" if table else unknown[0]
            raise LocalError("is unknown", field=name, fix=f"known here: {', '.join(sorted(known))}")


def _read_graph(order_path: Path, order: dict[str, Any]) -> bytes:
    name = order.get("model", {}).get("graph")
    if not isinstance(name, str):
        raise LocalError("is missing", field="model.graph", fix="name the JSON file of the model graph")
    path = order_path.parent / name
    try:
        if path.stat().st_size > GRAPH_MAX_BYTES:
            raise LocalError(f"has more than {GRAPH_MAX_BYTES} bytes", field="model.graph", fix="use composite ops")
        return path.read_bytes()
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="model.graph", fix="correct the path") from None


def _data_source(order_path: Path, source: str) -> str:
    return str(order_path.parent / source) if source.endswith((".npz", ".txt")) else source


def _check_fit(
    input_shape: tuple[int, ...], output_shape: tuple[int, ...], dataset: Dataset, batch_size: int, steps: int
) -> None:
    if tuple(dataset.input_shape) != tuple(input_shape):
        raise LocalError(
            f"examples have shape {list(dataset.input_shape)}, the graph takes {list(input_shape)}",
            field="data.source",
            fix="change the graph's input.shape, or take another dataset",
        )
    if dataset.classes > 0 and output_shape[-1] < dataset.classes:
        raise LocalError(
            f"{dataset.classes} classes, but the graph has {output_shape[-1]} outputs",
            field="data.source",
            fix="widen the graph's last layer",
        )
    if steps < 1:
        raise LocalError(
            f"{dataset.train_examples} training examples do not fill one batch",
            field="training.batch_size",
            fix="make it smaller",
        )
    if steps > STEPS_MAX:
        raise LocalError(f"{steps} steps", field="training.epochs", fix=f"at most {STEPS_MAX} steps are allowed")


@dataclass(frozen=True, slots=True)
class _Reader:
    """Typed access to the order; every refusal names its field."""

    order: dict[str, Any]

    def _get(self, table: str, name: str, default: Any) -> Any:
        value = self.order.get(table, {}).get(name, default)
        if value is None:
            raise LocalError("is missing", field=f"{table}.{name}", fix=f"add it to [{table}]")
        return value

    def text(self, table: str, name: str, default: str | None = None) -> str:
        value = self._get(table, name, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or len(value) > 256:
            raise LocalError("is not a text", field=f"{table}.{name}", fix="put it in quotes")
        return value

    def flag(self, table: str, name: str) -> bool:
        value = self._get(table, name, False)
        if not isinstance(value, bool):
            raise LocalError("is neither true nor false", field=f"{table}.{name}", fix="write true or false")
        return value

    def integer(self, table: str, name: str, low: int, high: int, default: int | None = None) -> int:
        value = self._get(table, name, default)
        if type(value) is not int or not low <= value <= high:
            fix = f"write a whole number from {low} to {high}"
            raise LocalError(f"{value!r} is not allowed", field=f"{table}.{name}", fix=fix)
        return int(value)

    def choice(self, table: str, name: str, choices: tuple[str, ...], default: str) -> str:
        value = self.text(table, name, default)
        if value not in choices:
            raise LocalError(f"{value!r} is unknown", field=f"{table}.{name}", fix=f"one of {', '.join(choices)}")
        return value

    def micro(self, table: str, name: str, low: int, high: int, default: str | None = None) -> int:
        text = self.text(table, name, default)
        fix = f"write a number from {low / MICRO:g} to {high / MICRO:g} with at most six decimals"
        try:
            scaled = Decimal(text) * MICRO
            micro = int(scaled)
        except (InvalidOperation, ValueError, OverflowError):
            raise LocalError(f"{text!r} is not a number", field=f"{table}.{name}", fix=fix) from None
        if scaled != micro or not low <= micro <= high:
            raise LocalError(f"{text} is not allowed", field=f"{table}.{name}", fix=fix)
        return micro
