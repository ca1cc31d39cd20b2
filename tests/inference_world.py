"""Nodes that serve a model, a market of them, what they are asked, and what is heard of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from cyxnode.executor.simulated_inference import SimulatedModels
from cyxnode.protocol.inference import InferTask, ModelManifest
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.messages import Tokens
from cyxnode.protocol.units import MicroCyx
from cyxnode.scheduler.requester_service import InferOrder, JobResult, News, RequesterService, Stage
from market_world import World, open_world


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


class Heard:
    """News of a job, in order."""

    def __init__(self) -> None:
        self.pieces: list[Tokens] = []
        self.stages: list[Stage] = []

    def __call__(self, news: News) -> None:
        if isinstance(news, Tokens):
            self.pieces.append(news)
        elif isinstance(news, Stage):
            self.stages.append(news)

    def text(self, prompt: int = 0) -> str:
        return "".join(piece.text for piece in self.pieces if piece.prompt_index == prompt)


@asynccontextmanager
async def market(
    models: Callable[[], SimulatedModels] = serving, count: int = 5
) -> AsyncIterator[tuple[World, RequesterService, Heard]]:
    """Nodes that all serve the same, and a requester."""
    async with open_world() as world:
        for number in range(count):
            await world.add_node(f"node{number}", models=models())
        heard = Heard()
        yield world, await world.add_requester(observe=heard), heard


async def asked(requester: RequesterService, order: InferOrder, within_s: float = 300) -> JobResult:
    with trio.fail_after(within_s):
        return await requester.submit(order)
