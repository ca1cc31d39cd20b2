"""Model graphs: from hostile JSON to a typed, ordered graph whose shapes and costs are known (DESIGN 6).

The law: a model is data. Only operations of `ops.OPS` exist, every argument is range-checked, the graph is finite and
acyclic, each node is used, and parameters and activations are counted with integer arithmetic before anything is
allocated. All refusals are LocalError with the path of the field. This file needs no torch, so that a submitter can
check a model in milliseconds; `build.py` turns the result into a module. The format is described in docs/graph.md.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NoReturn

from ..protocol.errors import LocalError
from ..protocol.limits import (
    ACTIVATION_BYTES_MAX,
    BATCH_BYTES_MAX,
    GRAPH_MAX_BYTES,
    GRAPH_NODES_MAX,
    GRAPH_RANK_MAX,
    NODE_INPUTS_MAX,
    PARAMETERS_MAX,
)
from .ops import OPS, Args, ArgValue, BadOp, Shape

INPUT = "input"
"""The name by which nodes refer to the model's input."""
_ID = re.compile(r"[a-z][a-z0-9_]{0,47}")
_SIDE_MAX = 1 << 24


@dataclass(frozen=True, slots=True)
class Node:
    """One checked operation. `position` is its place in the file; all defaults are filled in."""

    id: str
    op: str
    inputs: tuple[str, ...]
    args: Args
    position: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A checked model. Shapes are of one example; counts are of elements."""

    input_shape: Shape
    input_dtype: Literal["float32", "int64"]
    nodes: tuple[Node, ...]
    """In an order in which each node follows its inputs."""
    output: str
    output_shape: Shape
    shapes: dict[str, Shape]
    parameters: int
    buffers: int
    activations: int
    """Elements that the forward pass of one example keeps."""
    index_limit: int | None
    """Inputs must be below this, when they are indices of an Embedding."""


def parse_graph(text: str | bytes) -> Graph:
    """Check a graph completely, except against a batch size and a dataset. Raises LocalError."""
    document = _load(text)
    shape, dtype = _check_input(document["input"])
    nodes = _check_nodes(document["nodes"])
    output = document["output"]
    if not isinstance(output, str) or output not in nodes:
        _refuse("output", "names no node", "write the id of the last node")
    ordered = _sort(nodes, output)
    graph = _measure(shape, dtype, ordered, output)
    _check_biases(nodes, graph.shapes)
    return graph


def canonical_graph(text: str | bytes) -> bytes:
    """The one byte form of a graph: sorted keys, no spaces, defaults written out, nodes in the file's order."""
    graph = parse_graph(text)
    nodes = [
        {"id": node.id, "op": node.op, "in": list(node.inputs), "args": dict(node.args)}
        for node in sorted(graph.nodes, key=lambda node: node.position)
    ]
    shape = {"shape": list(graph.input_shape), "dtype": graph.input_dtype}
    document = {"version": 1, "input": shape, "nodes": nodes, "output": graph.output}
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    if len(data) > GRAPH_MAX_BYTES:
        _refuse("", f"takes {len(data)} bytes in canonical form", f"at most {GRAPH_MAX_BYTES} are allowed")
    return data


def check_batch(graph: Graph, batch_size: int) -> None:
    """Refuse a batch whose activations would not fit, or that a batch norm cannot normalise. Raises LocalError."""
    if 4 * graph.activations * batch_size > ACTIVATION_BYTES_MAX:
        most = ACTIVATION_BYTES_MAX // (4 * graph.activations)
        raise LocalError(
            f"{batch_size} examples need {4 * graph.activations * batch_size >> 20} MiB of activations",
            field="batch_size",
            fix=f"at most {most}" if most else "make the model smaller",
        )
    if 8 * math.prod(graph.input_shape) * batch_size > BATCH_BYTES_MAX:
        raise LocalError(f"{batch_size} examples are too large", field="batch_size", fix="take fewer")
    for node in graph.nodes:
        per_channel = batch_size * math.prod(graph.shapes[node.id][1:])
        if node.op in ("BatchNorm1d", "BatchNorm2d", "ResidualBlock") and per_channel < 2:
            raise LocalError(
                f"node {node.id} cannot normalise a single value per channel",
                field="batch_size",
                fix="take at least 2",
            )


def _refuse(path: str, message: str, fix: str) -> NoReturn:
    raise LocalError(message, field=f"model.{path}" if path else "model", fix=fix)


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _no_constants(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _load(text: str | bytes) -> dict[str, object]:
    if len(text) > GRAPH_MAX_BYTES:
        _refuse("", f"has {len(text)} bytes", f"at most {GRAPH_MAX_BYTES} are allowed")
    try:
        document = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        _refuse("", f"is not JSON: {str(error)[:80]}", "see docs/graph.md")
    _check_keys("", document, {"version", "input", "nodes", "output"})
    if type(document["version"]) is not int or document["version"] != 1:
        _refuse("version", "is not 1", 'write "version": 1')
    return document  # type: ignore[no-any-return]


def _check_keys(path: str, value: object, wanted: set[str]) -> None:
    if not isinstance(value, dict):
        _refuse(path, "is not an object", f"write an object with {', '.join(sorted(wanted))}")
    for key in value:
        if key not in wanted:
            _refuse(f"{path}.{_printable(key)}".lstrip("."), "is not known", f"one of {', '.join(sorted(wanted))}")
    for key in sorted(wanted - set(value)):
        _refuse(f"{path}.{key}".lstrip("."), "is missing", "add it; see docs/graph.md")


def _printable(key: str) -> str:
    """A stranger's key as it may stand in a one-line message."""
    return key if len(key) <= 40 and key.isidentifier() and key.isascii() else ascii(key[:40])


def _check_input(value: object) -> tuple[Shape, Literal["float32", "int64"]]:
    _check_keys("input", value, {"shape", "dtype"})
    assert isinstance(value, dict)
    shape, dtype = value["shape"], value["dtype"]
    if not isinstance(shape, list) or not 1 <= len(shape) <= GRAPH_RANK_MAX:
        _refuse("input.shape", "is not a list of 1 to 5 sizes", "write the shape of one example")
    if not all(type(side) is int and 1 <= side <= _SIDE_MAX for side in shape):
        _refuse("input.shape", "has a size that is not a positive integer", "write the shape of one example")
    if math.prod(shape) > _SIDE_MAX:
        _refuse("input.shape", f"has {math.prod(shape)} elements", f"at most {_SIDE_MAX}")
    if dtype == "float32":
        return tuple(shape), "float32"
    if dtype == "int64":
        return tuple(shape), "int64"
    _refuse("input.dtype", "is not a known type", '"float32", or "int64" for indices')


def _check_nodes(value: object) -> dict[str, Node]:
    if not isinstance(value, list) or not value:
        _refuse("nodes", "is not a list of nodes", "write at least one node")
    if len(value) > GRAPH_NODES_MAX:
        _refuse("nodes", f"has {len(value)} nodes", f"at most {GRAPH_NODES_MAX}")
    nodes: dict[str, Node] = {}
    for position, item in enumerate(value):
        node = _check_node(position, item)
        if node.id in nodes:
            first = nodes[node.id].position
            _refuse(f"nodes[{position}].id", f"repeats nodes[{first}]", "give it another id")
        nodes[node.id] = node
    for node in nodes.values():
        for place, source in enumerate(node.inputs):
            if source != INPUT and source not in nodes:
                path = f"nodes[{node.position}].in[{place}]"
                _refuse(path, f"names no node: {source[:48]!a}", f'use "{INPUT}" or the id of a node')
    return nodes


def _check_node(position: int, value: object) -> Node:
    path = f"nodes[{position}]"
    _check_keys(path, value, {"id", "op", "in", "args"})
    assert isinstance(value, dict)
    name, kind, sources = value["id"], value["op"], value["in"]
    if not isinstance(name, str) or not _ID.fullmatch(name) or name == INPUT:
        _refuse(f"{path}.id", "is not an id", "a small letter, then small letters, digits or _, 48 at most")
    if not isinstance(kind, str) or kind not in OPS:
        _refuse(f"{path}.op", f"{ascii(kind)[:40]} is no operation", "see the table in docs/graph.md")
    low, high = OPS[kind].inputs
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        _refuse(f"{path}.in", "is not a list of ids", f'for example ["{INPUT}"]')
    if not low <= len(sources) <= min(high, NODE_INPUTS_MAX):
        _refuse(f"{path}.in", f"has {len(sources)} ids", f"{kind} takes {low if low == high else f'{low} to {high}'}")
    return Node(name, kind, tuple(sources), _check_args(path, kind, value["args"]), position)


def _check_args(path: str, kind: str, given: object) -> dict[str, ArgValue]:
    known = OPS[kind].args
    if not isinstance(given, dict):
        _refuse(f"{path}.args", "is not an object", "write {} when there are none")
    for name in given:
        if name not in known:
            _refuse(f"{path}.args.{_printable(name)}", f"is unknown to {kind}", ", ".join(known) or "it takes none")
    checked: dict[str, ArgValue] = {}
    for name, arg in known.items():
        if name not in given and arg.default is None:
            _refuse(f"{path}.args.{name}", "is missing", f"add {arg.describe()}")
        try:
            checked[name] = arg.check(name, given.get(name, arg.default))
        except BadOp as error:
            _refuse(f"{path}.args.{name}", str(error), f"use {arg.describe()}")
    return checked


def _sort(nodes: dict[str, Node], output: str) -> list[Node]:
    """Order nodes after their inputs, without recursion; refuse cycles and nodes that the output does not need."""
    waiting = {name: len({source for source in node.inputs if source != INPUT}) for name, node in nodes.items()}
    users: dict[str, list[str]] = {name: [] for name in nodes}
    for name, node in nodes.items():
        for source in sorted(set(node.inputs) - {INPUT}):
            users[source].append(name)
    ready = deque(name for name, count in waiting.items() if count == 0)
    ordered: list[Node] = []
    while ready:
        name = ready.popleft()
        ordered.append(nodes[name])
        for user in users[name]:
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    if len(ordered) < len(nodes):
        stuck = next(node for name, node in nodes.items() if waiting[name])
        _refuse(f"nodes[{stuck.position}].in", f"node {stuck.id} waits for itself", "break the cycle")
    needed = set(_ancestors(nodes, output))
    for node in nodes.values():
        if node.id not in needed:
            _refuse(f"nodes[{node.position}]", f"node {node.id} leads nowhere", "use it or remove it")
    return ordered


def _ancestors(nodes: dict[str, Node], output: str) -> Iterator[str]:
    seen, stack = {output, INPUT}, [output]
    while stack:
        name = stack.pop()
        yield name
        fresh = [source for source in dict.fromkeys(nodes[name].inputs) if source not in seen]
        seen.update(fresh)
        stack.extend(fresh)


def _check_biases(nodes: dict[str, Node], shapes: dict[str, Shape]) -> None:
    """A bias before a batch norm has gradient zero, so rounding noise alone would steer it: it must be off."""
    for node in nodes.values():
        source = nodes.get(node.inputs[0])
        if node.op not in ("BatchNorm1d", "BatchNorm2d") or source is None:
            continue
        by_channel = source.op != "Linear" or len(shapes[source.id]) == 1
        if source.args.get("bias") and by_channel:
            path = f"nodes[{source.position}].args.bias"
            _refuse(path, f"is without effect before batch norm {node.id}", 'set "bias": false')


def _measure(shape: Shape, dtype: Literal["float32", "int64"], ordered: list[Node], output: str) -> Graph:
    shapes: dict[str, Shape] = {INPUT: shape}
    parameters = buffers = 0
    activations = math.prod(shape)
    index_limit: int | None = None
    for node in ordered:
        op, path = OPS[node.op], f"nodes[{node.position}]"
        sources = tuple(shapes[source] for source in node.inputs)
        indices = dtype == "int64" and INPUT in node.inputs
        if indices != op.takes_indices:
            wanted = "indices (int64)" if op.takes_indices else "numbers (float32)"
            _refuse(f"{path}.in", f"{node.op} takes {wanted}", "change input.dtype, or put an Embedding first")
        try:
            result = op.shape(node.args, sources)
        except BadOp as error:
            where = f"{path}.args.{error.arg}" if error.arg else path
            _refuse(where, f"{node.id} ({node.op}): {error}", "make it fit its input")
        if len(result) > GRAPH_RANK_MAX:
            _refuse(path, f"has {len(result)} dimensions", f"at most {GRAPH_RANK_MAX}")
        shapes[node.id] = result
        parameters += op.parameters(node.args)
        buffers += op.buffers(node.args)
        activations += math.prod(result) + op.scratch(node.args, result)
        if op.takes_indices:
            limit = int(node.args["num_embeddings"])  # type: ignore[arg-type]
            index_limit = limit if index_limit is None else min(limit, index_limit)
        if parameters > PARAMETERS_MAX:
            _refuse(path, f"brings the model to {parameters} parameters", f"at most {PARAMETERS_MAX}")
        if 4 * activations > ACTIVATION_BYTES_MAX:
            needed = 4 * activations >> 20
            _refuse(path, f"brings one example to {needed} MiB of activations", "make the model smaller")
    if parameters == 0:
        _refuse("nodes", "has nothing to train", "add a layer with parameters")
    return Graph(
        shape, dtype, tuple(ordered), output, shapes[output], shapes, parameters, buffers, activations, index_limit
    )
