"""Nodes that serve a model, and what they are asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from cyxnode.executor.simulated_inference import SimulatedModels
from cyxnode.protocol.inference import InferTask, ModelManifest, TokensGenerated
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import MicroCyx
from cyxnode.scheduler.requester_service import InferOrder

Emit = Callable[[TokensGenerated], Awaitable[None]]


def manifest(name: str = "tiny-lm", digest: bytes = b"d" * 32, **changes: Any) -> ModelManifest:
    """A model of a simulated backend."""
    said = {"kind": "gguf", "tokenizer": "model", "quantisation": "Q4_1", "context_length": 512, **changes}
    return ModelManifest(name=name, digest=digest, **said)


def serving(*manifests: ModelManifest, pace_s: float = 0.02, rates: tuple[int, int] = (500, 2_000)) -> SimulatedModels:
    """A node's models, by default one, at 0.0005 and 0.002 CYX for 1,000 tokens."""
    return SimulatedModels([(one, *rates) for one in manifests or (manifest(),)], seconds_per_token=pace_s)


def question(*prompts: str, model: str = "tiny-lm", budget: int = 1 * MICRO, **changes: Any) -> InferOrder:
    """An order of one prompt, unless told otherwise."""
    law = {
        name: changes.pop(name) for name in ("num_predict", "seed", "system", "temperature_micro") if name in changes
    }
    task = InferTask(prompts=prompts or ("What is on the boat?",), **{"num_predict": 64, **law})
    return InferOrder(
        **{"model": model, "task": task, "budget": MicroCyx(budget), "k": 3, "unsandboxed_ok": True, **changes}
    )
