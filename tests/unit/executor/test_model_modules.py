"""The shape and cost arithmetic must agree with torch for every operation, and building must match counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cyxnode.executor.build import build_model
from cyxnode.executor.graph import parse_graph
from cyxnode.executor.modules import MODULES
from cyxnode.executor.ops import OPS
from executor_tasks import document, node

IMAGE, SEQUENCE, FLAT = [6, 8, 8], [5, 12], [12]
CASES: list[tuple[str, list[int], int, dict[str, Any]]] = [
    ("Linear", SEQUENCE, 1, {"in_features": 12, "out_features": 7}),
    ("Conv1d", SEQUENCE, 1, {"in_channels": 5, "out_channels": 4, "kernel_size": 3, "stride": 2, "padding": 1}),
    ("Conv2d", IMAGE, 1, {"in_channels": 6, "out_channels": 4, "kernel_size": 3, "dilation": 2, "groups": 2}),
    ("BatchNorm1d", FLAT, 1, {"num_features": 12}),
    ("BatchNorm1d", SEQUENCE, 1, {"num_features": 5}),
    ("BatchNorm2d", IMAGE, 1, {"num_features": 6}),
    ("LayerNorm", IMAGE, 1, {"normalized_shape": [8, 8]}),
    ("ReLU", FLAT, 1, {}),
    ("GELU", FLAT, 1, {}),
    ("SiLU", FLAT, 1, {}),
    ("Tanh", FLAT, 1, {}),
    ("Sigmoid", FLAT, 1, {}),
    ("Softmax", SEQUENCE, 1, {"dim": 2}),
    ("Dropout", FLAT, 1, {"p": 0.3}),
    ("MaxPool2d", IMAGE, 1, {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("AvgPool2d", IMAGE, 1, {"kernel_size": 2}),
    ("AdaptiveAvgPool2d", IMAGE, 1, {"output_size": 2}),
    ("Flatten", IMAGE, 1, {"start_dim": 2}),
    ("Embedding", FLAT, 1, {"num_embeddings": 9, "embedding_dim": 3}),
    ("PositionEmbedding", SEQUENCE, 1, {"length": 5, "embed_dim": 12}),
    ("Add", FLAT, 3, {}),
    ("Mul", FLAT, 2, {}),
    ("Concat", SEQUENCE, 2, {"dim": 2}),
    ("Reshape", IMAGE, 1, {"shape": [4, 96]}),
    ("Transpose", IMAGE, 1, {"dim0": 1, "dim1": 3}),
    ("MultiheadSelfAttention", SEQUENCE, 1, {"embed_dim": 12, "num_heads": 3, "causal": True}),
    ("TransformerBlock", SEQUENCE, 1, {"embed_dim": 12, "num_heads": 3, "feedforward": 20}),
    ("ResidualBlock", IMAGE, 1, {"in_channels": 6, "out_channels": 6}),
    ("ResidualBlock", IMAGE, 1, {"in_channels": 6, "out_channels": 10, "stride": 2}),
]


def test_tables_name_the_same_operations() -> None:
    assert set(OPS) == set(MODULES) == {case[0] for case in CASES}


def test_document_lists_every_operation_and_argument() -> None:
    text = (Path(__file__).parents[3] / "docs" / "graph.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert set(rows) == set(OPS)
    for name, op in OPS.items():
        assert all(f"`{arg}`" in rows[name] for arg in op.args), name


@pytest.mark.parametrize(("op", "shape", "inputs", "args"), CASES)
def test_arithmetic_agrees_with_torch(op: str, shape: list[int], inputs: int, args: dict[str, Any]) -> None:
    indices = op == "Embedding"
    tail = [node("tail", "LayerNorm", "it", normalized_shape=[1])]
    nodes = [node("it", op, ["input"] * inputs, **args)]
    if not OPS[op].parameters(parse_args(op, args)):
        # a graph needs something to train
        tail = [node("flat", "Flatten", "it"), node("tail", "Linear", "flat", in_features=0, out_features=1)]
        width = int(torch.tensor(output_shape(op, shape, inputs, args)).prod())
        tail[1]["args"]["in_features"] = width
        nodes += tail
    graph = parse_graph(json.dumps(document(nodes, shape, "int64" if indices else "float32")))
    model = build_model(graph, torch.device("cpu"))
    x = torch.randint(0, 9, (4, *shape)) if indices else torch.rand(4, *shape)
    assert model(x).shape == (4, *graph.output_shape)
    only = MODULES[op](parse_args(op, args))
    assert only(*[x] * inputs).shape[1:] == graph.shapes["it"]


def parse_args(op: str, args: dict[str, Any]) -> dict[str, Any]:
    return {name: arg.check(name, args.get(name, arg.default)) for name, arg in OPS[op].args.items()}


def output_shape(op: str, shape: list[int], inputs: int, args: dict[str, Any]) -> tuple[int, ...]:
    return OPS[op].shape(parse_args(op, args), (tuple(shape),) * inputs)


def test_causal_attention_does_not_look_ahead() -> None:
    graph = document([node("it", "MultiheadSelfAttention", embed_dim=8, num_heads=2, causal=True)], [5, 8])
    model = build_model(parse_graph(json.dumps(graph)), torch.device("cpu")).eval()
    x = torch.rand(1, 5, 8)
    changed = x.clone()
    changed[0, 4] += 1
    before, after = model(x), model(changed)
    assert torch.allclose(before[0, :4], after[0, :4], atol=1e-6)
    assert not torch.allclose(before[0, 4], after[0, 4], atol=1e-3)


def test_ids_that_are_names_of_methods_are_harmless() -> None:
    nodes = [
        node("forward", "Linear", in_features=3, out_features=3),
        node("parameters", "ReLU", "forward"),
        node("weight", "Linear", "parameters", in_features=3, out_features=2),
    ]
    model = build_model(parse_graph(json.dumps(document(nodes, [3]))), torch.device("cpu"))
    assert model(torch.rand(2, 3)).shape == (2, 2)
    assert "forward.weight" in model.state_dict()
