"""Graphs from strangers: what is accepted, and that each kind of nonsense names its field and the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cyxnode.executor.graph import canonical_graph, check_batch, parse_graph
from cyxnode.executor.ops import OPS
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import GRAPH_MAX_BYTES, GRAPH_NODES_MAX
from executor_tasks import document, node, small_document

Change = Callable[[dict[str, Any]], object]


def refused(text: str | bytes) -> LocalError:
    with pytest.raises(LocalError) as caught:
        parse_graph(text)
    assert caught.value.field.startswith("model")
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    return caught.value


def test_small_graph_is_measured() -> None:
    graph = parse_graph(json.dumps(small_document()))
    assert graph.output_shape == (3,)
    assert graph.parameters == 4 * 9 + 2 * 4 + 64 * 3 + 3
    assert graph.buffers == 2 * 4 + 1
    assert graph.activations == 16 + 4 * 16 * 3 + 64 + 2 * 64 + 3


def test_nodes_may_come_in_any_order_and_branch() -> None:
    nodes = [
        node("sum", "Add", ["left", "right"]),
        node("left", "Linear", in_features=5, out_features=2),
        node("right", "Linear", in_features=5, out_features=2),
    ]
    graph = parse_graph(json.dumps(document(nodes, [5], output="sum")))
    assert [item.id for item in graph.nodes] == ["left", "right", "sum"]


BAD: list[tuple[str, Change, str]] = [
    ("version", lambda d: d.update(version=2), "model.version"),
    ("boolean version", lambda d: d.update(version=True), "model.version"),
    ("extra key", lambda d: d.update(code="x"), "model.code"),
    ("key with control codes", lambda d: d.update({"a\n\x1b[2J": 1}), "model.'a\\n\\x1b[2J'"),
    ("missing key", lambda d: d.pop("output"), "model.output"),
    ("output", lambda d: d.update(output="nobody"), "model.output"),
    ("output is the input", lambda d: d.update(output="input"), "model.output"),
    ("shape", lambda d: d["input"].update(shape=[0]), "model.input.shape"),
    ("boolean shape", lambda d: d["input"].update(shape=[True, 4, 4]), "model.input.shape"),
    ("huge input", lambda d: d["input"].update(shape=[4096, 4096, 4096]), "model.input.shape"),
    ("dtype", lambda d: d["input"].update(dtype="float64"), "model.input.dtype"),
    ("no nodes", lambda d: d.update(nodes=[]), "model.nodes"),
    ("node is a string", lambda d: d["nodes"].__setitem__(2, "x"), "model.nodes[2]"),
    ("node key", lambda d: d["nodes"][2].update(name="x"), "model.nodes[2].name"),
    ("id", lambda d: d["nodes"][2].update(id="../x"), "model.nodes[2].id"),
    ("id is reserved", lambda d: d["nodes"][2].update(id="input"), "model.nodes[2].id"),
    ("duplicate id", lambda d: d["nodes"][2].update(id="conv"), "model.nodes[2].id"),
    ("operation", lambda d: d["nodes"][2].update(op="eval"), "model.nodes[2].op"),
    ("operation is a list", lambda d: d["nodes"][2].update(op=["ReLU"]), "model.nodes[2].op"),
    ("dangling", lambda d: d["nodes"][2].update({"in": ["nobody"]}), "model.nodes[2].in[0]"),
    ("too many inputs", lambda d: d["nodes"][2].update({"in": ["norm", "norm"]}), "model.nodes[2].in"),
    ("input is a number", lambda d: d["nodes"][2].update({"in": [1]}), "model.nodes[2].in"),
    ("cycle", lambda d: d["nodes"][0].update({"in": ["head"]}), "model.nodes[0].in"),
    ("self", lambda d: d["nodes"][2].update({"in": ["relu"]}), "model.nodes[2].in"),
    ("unreachable", lambda d: d["nodes"].append(node("idle", "ReLU", "norm")), "model.nodes[6]"),
    ("unknown argument", lambda d: d["nodes"][5]["args"].update(device="cuda"), "model.nodes[5].args.device"),
    ("missing argument", lambda d: d["nodes"][5]["args"].pop("in_features"), "model.nodes[5].args.in_features"),
    ("range", lambda d: d["nodes"][0]["args"].update(kernel_size=99), "model.nodes[0].args.kernel_size"),
    ("float for int", lambda d: d["nodes"][0]["args"].update(kernel_size=3.0), "model.nodes[0].args.kernel_size"),
    ("bool for int", lambda d: d["nodes"][0]["args"].update(kernel_size=True), "model.nodes[0].args.kernel_size"),
    ("int for bool", lambda d: d["nodes"][0]["args"].update(bias=0), "model.nodes[0].args.bias"),
    ("huge int", lambda d: d["nodes"][4]["args"].update(p=10**400), "model.nodes[4].args.p"),
    ("args is a list", lambda d: d["nodes"][0].update(args=[]), "model.nodes[0].args"),
    ("bias before norm", lambda d: d["nodes"][0]["args"].update(bias=True), "model.nodes[0].args.bias"),
    ("default bias before norm", lambda d: d["nodes"][0]["args"].pop("bias"), "model.nodes[0].args.bias"),
    ("channels", lambda d: d["nodes"][0]["args"].update(in_channels=3), "model.nodes[0].args.in_channels"),
    ("features", lambda d: d["nodes"][5]["args"].update(in_features=65), "model.nodes[5].args.in_features"),
    ("kernel", lambda d: d["nodes"][0]["args"].update(kernel_size=7, padding=0), "model.nodes[0].args.kernel_size"),
    ("numbers where indices belong", lambda d: d["input"].update(dtype="int64"), "model.nodes[0].in"),
]


@pytest.mark.parametrize(("change", "field"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_graphs_name_the_field(change: Change, field: str) -> None:
    bad = small_document()
    change(bad)
    assert refused(json.dumps(bad)).field == field


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"version":1,"version":1}', b"1" * 5000, b'{"p":NaN}'],
    ids=["empty", "null", "list", "cut", "not utf-8", "deep", "duplicate key", "digits", "nan"],
)
def test_text_that_is_no_graph(text: bytes) -> None:
    refused(text)


def test_size_and_count_are_bounded() -> None:
    refused(b" " * (GRAPH_MAX_BYTES + 1))
    nodes = [node(f"n{i}", "ReLU", f"n{i - 1}" if i else "input") for i in range(GRAPH_NODES_MAX + 1)]
    text = json.dumps(document(nodes, [4])).replace(" ", "")
    assert refused(text).field == "model.nodes"


def test_long_chains_do_not_recurse() -> None:
    nodes = [node("first", "Linear", in_features=4, out_features=4)]
    nodes += [node(f"n{i}", "ReLU", f"n{i - 1}" if i else "first") for i in range(GRAPH_NODES_MAX - 1)]
    assert len(parse_graph(json.dumps(document(nodes, [4]))).nodes) == GRAPH_NODES_MAX


def test_parameter_bomb_is_refused_by_arithmetic() -> None:
    layers = [
        node("wide", "Linear", in_features=4, out_features=65536),
        node("bomb", "Linear", "wide", in_features=65536, out_features=65536),
    ]
    error = refused(json.dumps(document(layers, [4])))
    assert error.field == "model.nodes[1]"
    assert "4295" in str(error)


def test_activation_bomb_is_refused_by_arithmetic() -> None:
    layers = [
        node("a", "Conv2d", in_channels=1, out_channels=4096, kernel_size=1),
    ]
    assert "activations" in str(refused(json.dumps(document(layers, [1, 1024, 1024]))))


def test_concat_cannot_double_its_way_to_a_bomb() -> None:
    nodes = [node("n0", "Linear", in_features=4, out_features=4)]
    nodes += [node(f"n{i}", "Concat", [f"n{i - 1}", f"n{i - 1}"], dim=1) for i in range(1, 60)]
    assert "activations" in str(refused(json.dumps(document(nodes, [4]))))


def test_batch_is_checked_against_memory_and_norms() -> None:
    graph = parse_graph(json.dumps(small_document()))
    check_batch(graph, 1)
    with pytest.raises(LocalError, match="activations") as caught:
        check_batch(graph, 10_000_000)
    assert caught.value.field == "batch_size"
    flat = document([node("a", "BatchNorm1d", num_features=4)], [4])
    with pytest.raises(LocalError, match="single value"):
        check_batch(parse_graph(json.dumps(flat)), 1)


def test_canonical_form_ignores_spelling_and_is_a_fixed_point() -> None:
    first = small_document()
    second = json.loads(json.dumps(first))
    second["nodes"][0]["args"]["stride"] = 1
    one, two = canonical_graph(json.dumps(first, indent=3)), canonical_graph(json.dumps(second))
    assert one == two == canonical_graph(one)


def test_every_operation_documents_its_ranges() -> None:
    for op in OPS.values():
        for arg in op.args.values():
            assert arg.describe()
            assert arg.default is None or arg.check("x", arg.default) == arg.default
