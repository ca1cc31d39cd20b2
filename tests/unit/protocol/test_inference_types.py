"""Tasks and manifests: bounds hold for a user's values, with field and fix, and for a peer's bytes."""

from __future__ import annotations

from typing import Any

import pytest

from cyxnode.protocol.codec import decode, encode
from cyxnode.protocol.errors import LocalError, RemoteError
from cyxnode.protocol.inference import InferTask, ModelManifest, check_manifest, check_task
from cyxnode.protocol.limits import PROMPT_MAX_BYTES, PROMPTS_MAX

TORCH: dict[str, Any] = {
    "name": "tiny",
    "kind": "torch",
    "digest": bytes(32),
    "graph_cid": "b" + "a" * 20,
    "weights_cid": "b" + "a" * 20,
    "tokenizer": "bytes",
    "quantisation": "float32",
    "context_length": 64,
}
GGUF = TORCH | {"kind": "gguf", "graph_cid": None, "weights_cid": None, "tokenizer": "model", "quantisation": "Q4_1"}


@pytest.mark.parametrize("fields", [TORCH, GGUF, GGUF | {"kind": "ollama", "name": "smollm2:135m"}])
def test_good_manifests_pass_and_travel(fields: dict[str, Any]) -> None:
    manifest = ModelManifest(**fields)
    check_manifest(manifest)
    assert decode(encode(manifest), ModelManifest, max_bytes=1000) == manifest


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        (TORCH | {"name": "two words"}, "model.name"),
        (TORCH | {"name": ""}, "model.name"),
        (TORCH | {"kind": "onnx"}, "model.kind"),
        (TORCH | {"digest": b"short"}, "model.digest"),
        (TORCH | {"graph_cid": None}, "model.graph_cid"),
        (TORCH | {"weights_cid": None}, "model.weights_cid"),
        (TORCH | {"weights_cid": "Qm"}, "model.weights_cid"),
        (TORCH | {"tokenizer": "model"}, "model.tokenizer"),
        (TORCH | {"quantisation": "Q4_1"}, "model.quantisation"),
        (TORCH | {"context_length": 1}, "model.context_length"),
        (TORCH | {"context_length": True}, "model.context_length"),
        (GGUF | {"graph_cid": "b" + "a" * 20}, "model.graph_cid"),
        (GGUF | {"tokenizer": "bytes"}, "model.tokenizer"),
    ],
)
def test_bad_manifests_are_refused_with_field_and_fix(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(LocalError) as caught:
        check_manifest(ModelManifest(**fields))
    assert caught.value.field == field
    assert caught.value.fix


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompts": ()}, "task.prompts"),
        ({"prompts": ("a",) * (PROMPTS_MAX + 1)}, "task.prompts"),
        ({"prompts": ("a", 5)}, "task.prompts[1]"),
        ({"prompts": ("a", "")}, "task.prompts[1]"),
        ({"prompts": ("a\ud800",)}, "task.prompts[0]"),
        ({"prompts": ("é" * (PROMPT_MAX_BYTES // 2 + 1),)}, "task.prompts[0]"),
        ({"system": "é" * (PROMPT_MAX_BYTES // 2 + 1)}, "task.system"),
        ({"temperature_micro": -1}, "task.temperature_micro"),
        ({"temperature_micro": 2_000_001}, "task.temperature_micro"),
        ({"temperature_micro": 0.5}, "task.temperature_micro"),
        ({"top_k": 0}, "task.top_k"),
        ({"top_k": 257}, "task.top_k"),
        ({"num_predict": 0}, "task.num_predict"),
        ({"num_predict": 4097}, "task.num_predict"),
        ({"seed": -1}, "task.seed"),
        ({"seed": 2**53 + 1}, "task.seed"),
    ],
)
def test_bad_tasks_are_refused_with_field_and_fix(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(LocalError) as caught:
        check_task(InferTask(**({"prompts": ("a",)} | fields)))
    assert caught.value.field == field
    assert caught.value.fix


def test_a_peers_bytes_meet_the_same_bounds() -> None:
    good = InferTask(prompts=("a",), temperature_micro=700_000)
    assert decode(encode(good), InferTask, max_bytes=1000) == good
    with pytest.raises(RemoteError, match="num_predict"):
        decode(encode(InferTask(prompts=("a",), num_predict=10**6)), InferTask, max_bytes=1000)
