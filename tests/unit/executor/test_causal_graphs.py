"""Which graphs can continue a text, and that the refusal of any other names its node."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from cyxnode.executor.causal import check_model, encode_task, parse_causal_graph
from cyxnode.executor.graph import canonical_graph
from cyxnode.protocol.errors import LocalError
from executor_tasks import document, node
from inference_models import EXAMPLES, ask, files, language_document, random_model


def text_graph(*middle: dict[str, Any]) -> dict[str, Any]:
    """Embedding, then `middle` of which the last one ends in 16 features, then the head."""
    last = middle[-1]["id"] if middle else "tokens"
    first = node("tokens", "Embedding", num_embeddings=257, embedding_dim=16)
    head = node("head", "Linear", last, in_features=16, out_features=257)
    return document([first, *middle, head], [8], "int64")


CAUSAL = {"embed_dim": 16, "num_heads": 2, "causal": True}


def test_the_example_is_one() -> None:
    graph = parse_causal_graph((EXAMPLES / "tiny_lm.json").read_bytes())
    assert graph.output_shape == (64, 257)


@pytest.mark.parametrize(
    "middle",
    [
        [],
        [node("a", "MultiheadSelfAttention", "tokens", **CAUSAL), node("b", "Add", ["a", "tokens"])],
        [node("a", "Softmax", "tokens", dim=2), node("b", "Mul", ["a", "tokens"])],
        [node("a", "Concat", ["tokens", "tokens"], dim=2), node("b", "Linear", "a", in_features=32, out_features=16)],
        [node("a", "LayerNorm", "tokens", normalized_shape=[16]), node("b", "SiLU", "a"), node("c", "Dropout", "b")],
    ],
)
def test_graphs_that_keep_positions_apart(middle: list[dict[str, Any]]) -> None:
    parse_causal_graph(json.dumps(text_graph(*middle)).encode())


@pytest.mark.parametrize(
    ("middle", "field", "word"),
    [
        ([node("a", "MultiheadSelfAttention", "tokens", **(CAUSAL | {"causal": False}))], "nodes[1].args.causal", "a"),
        (
            [node("a", "TransformerBlock", "tokens", feedforward=8, **(CAUSAL | {"causal": False}))],
            "nodes[1].args.causal",
            "ahead",
        ),
        ([node("a", "LayerNorm", "tokens", normalized_shape=[8, 16])], "nodes[1].args.normalized_shape", "mix"),
        ([node("a", "Softmax", "tokens", dim=1)], "nodes[1].args.dim", "mix"),
        (
            [
                node("a", "Transpose", "tokens", dim0=1, dim1=2),
                node("b", "Linear", "a", in_features=8, out_features=8),
                node("c", "Transpose", "b", dim0=1, dim1=2),
            ],
            "nodes[1].op",
            "Transpose",
        ),
        ([node("a", "Reshape", "tokens", shape=[8, 16])], "nodes[1].op", "Reshape"),
        ([node("a", "Conv1d", "tokens", in_channels=8, out_channels=8, kernel_size=1)], "nodes[1].op", "Conv1d"),
        ([node("a", "BatchNorm1d", "tokens", num_features=8)], "nodes[1].op", "BatchNorm1d"),
    ],
)
def test_graphs_that_mix_positions_are_refused(middle: list[dict[str, Any]], field: str, word: str) -> None:
    with pytest.raises(LocalError, match=word) as caught:
        parse_causal_graph(json.dumps(text_graph(*middle)).encode())
    assert caught.value.field == f"model.{field}"
    assert caught.value.fix


@pytest.mark.parametrize(
    ("graph", "field"),
    [
        (document([node("head", "Linear", in_features=4, out_features=257)], [8, 4]), "input"),
        (document([node("e", "Embedding", num_embeddings=257, embedding_dim=256)], [8], "int64"), "output"),
        (document([node("e", "Embedding", num_embeddings=256, embedding_dim=257)], [8], "int64"), "nodes"),
    ],
)
def test_graphs_of_other_tokens_are_refused(graph: dict[str, Any], field: str) -> None:
    with pytest.raises(LocalError) as caught:
        parse_causal_graph(json.dumps(graph).encode())
    assert caught.value.field == f"model.{field}"


def test_manifest_and_files_must_belong_together() -> None:
    model = random_model()
    assert check_model(model).parameters > 0
    other = canonical_graph(json.dumps(language_document(blocks=1)))
    with pytest.raises(LocalError, match="graph_cid"):
        check_model(replace(model, graph=other))
    with pytest.raises(LocalError, match="context_length"):
        check_model(files(model.graph, model.weights, context_length=31))
    manifest = msgspec.structs.replace(model.manifest, kind="gguf", tokenizer="model", graph_cid=None)
    with pytest.raises(LocalError, match=r"model\.kind"):
        check_model(replace(model, manifest=manifest))


def test_prompts_must_leave_room() -> None:
    assert encode_task(ask("abc", system="S"), 7) == ((ord("S"), 10, 10, 97, 98, 99),)
    with pytest.raises(LocalError, match=r"task\.prompts\[1\].*at most 5"):
        encode_task(ask("abc", "abcdef"), 6)
