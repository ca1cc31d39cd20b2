"""Small language models for tests: untrained ones with sharpened weights, and one that is trained here on a text."""

from __future__ import annotations

import json
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cyxnode.executor import training
from cyxnode.executor.build import build_model
from cyxnode.executor.graph import canonical_graph, parse_graph
from cyxnode.executor.importers import import_dataset
from cyxnode.executor.task import check_task
from cyxnode.executor.tensors import write_tensors
from cyxnode.protocol.cid import cid_of
from cyxnode.protocol.inference import Generated, InferenceCheck, InferTask, ModelFiles, ModelManifest, TokensGenerated
from cyxnode.protocol.ports import Inference, TrainDone, TrainTask
from cyxnode.protocol.spec import TrainSpec
from executor_tasks import CID, document, node

EXAMPLES = Path(__file__).parents[1] / "examples"
TEXT = EXAMPLES / "tiny_lm.txt"


def language_document(*, context: int = 32, width: int = 32, blocks: int = 2, heads: int = 4) -> dict[str, Any]:
    """Embedding, position embedding, transformer blocks, norm, head over 257 tokens."""
    names = [f"block{index}" for index in range(blocks)]
    befores = ["places", *names][:blocks]
    sizes = {"embed_dim": width, "num_heads": heads, "feedforward": 4 * width, "causal": True}
    return document(
        [
            node("tokens", "Embedding", num_embeddings=257, embedding_dim=width),
            node("places", "PositionEmbedding", "tokens", length=context, embed_dim=width),
            *(node(name, "TransformerBlock", before, **sizes) for name, before in zip(names, befores, strict=True)),
            node("norm", "LayerNorm", names[-1] if names else "places", normalized_shape=[width]),
            node("head", "Linear", "norm", in_features=width, out_features=257),
        ],
        [context],
        "int64",
    )


def files(graph: bytes, weights: bytes, **changes: Any) -> ModelFiles:
    """A model whose manifest fits its files."""
    fields: dict[str, Any] = {
        "name": "test",
        "kind": "torch",
        "digest": sha256(weights).digest(),
        "graph_cid": cid_of(graph),
        "weights_cid": cid_of(weights),
        "tokenizer": "bytes",
        "quantisation": "float32",
        "context_length": parse_graph(graph).input_shape[0],
    }
    return ModelFiles(ModelManifest(**(fields | changes)), graph, weights)


def random_arrays(graph: bytes, seed: int = 1, sharpness: float = 4.0) -> dict[str, np.ndarray[Any, Any]]:
    """Weights as torch initialises them; the head is scaled so that entropies are those of language."""
    torch.default_generator.manual_seed(seed)
    model = build_model(parse_graph(graph), torch.device("cpu"))
    arrays = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    arrays["head.weight"] *= sharpness
    return arrays


@cache
def random_model(*, seed: int = 1, context: int = 32, width: int = 32, blocks: int = 2) -> ModelFiles:
    """An untrained model that talks nonsense with conviction."""
    graph = canonical_graph(json.dumps(language_document(context=context, width=width, blocks=blocks)))
    return files(graph, write_tensors(random_arrays(graph, seed)))


def text_task(*, epochs: int, batch_size: int = 8, path: Path = TEXT) -> TrainTask:
    """Training of examples/tiny_lm.json on a text."""
    data = import_dataset(str(path))
    steps = epochs * (data.train_examples // batch_size)
    spec = TrainSpec(
        graph=canonical_graph((EXAMPLES / "tiny_lm.json").read_bytes()),
        train_cid=CID,
        validation_cid=CID,
        loss="cross_entropy",
        optimizer="adamw",
        learning_rate_micro=3_000,
        weight_decay_micro=0,
        momentum_micro=0,
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        steps_per_segment=steps,
        seed=5,
        secret=bytes(32),
    )
    return TrainTask(spec, data.train, data.validation)


@cache
def trained_model(epochs: int = 40) -> ModelFiles:
    """A model that knows examples/tiny_lm.txt by heart, trained by the executor itself."""
    task, threads = text_task(epochs=epochs), torch.get_num_threads()
    # as in a worker; several threads are many times slower on a model so small
    torch.set_num_threads(1)
    try:
        steps = training.train(training.make_trainer(check_task(task), torch.device("cpu")))
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                done: TrainDone = stop.value
                return files(task.spec.graph, done.weights, name="tiny")
    finally:
        torch.set_num_threads(threads)


def ask(*prompts: str, **options: Any) -> InferTask:
    """A task with small defaults."""
    return InferTask(prompts=prompts or ("Hello",), **({"num_predict": 16} | options))


class Heard:
    """Pieces of answers as they came."""

    def __init__(self) -> None:
        self.events: list[TokensGenerated] = []

    async def __call__(self, event: TokensGenerated) -> None:
        self.events.append(event)


async def answers(backend: Inference, model: ModelFiles, task: InferTask) -> tuple[Generated, ...]:
    async with backend.inference_session(model, task) as session:
        return await session.generate(Heard())


async def judged(backend: Inference, model: ModelFiles, task: InferTask, claim: Generated) -> InferenceCheck:
    async with backend.inference_session(model, task) as session:
        return await session.check(claim)
