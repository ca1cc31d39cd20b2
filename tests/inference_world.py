"""Markets where prompts are answered, and workers who cheat at it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from cyxnode.executor.simulated_inference import SimulatedModels
from cyxnode.protocol.inference import Generated, InferSpec, InferTask, ModelManifest, TokensGenerated
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.ports import InferenceSession
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


class Cheating(SimulatedModels):
    """Serves like the others, and changes what it generates with `forge`. It checks others honestly."""

    def __init__(self, forge: Callable[[Generated], Generated], real: ModelManifest | None = None) -> None:
        super().__init__([(manifest(), 1, 1)])
        self.forge, self._real = forge, real
        self.tried = 0

    @asynccontextmanager
    async def _session(self, spec: InferSpec) -> AsyncIterator[InferenceSession]:
        async with super()._session(spec) as honest:
            answering = honest
            if self._real is not None:
                from cyxnode.protocol.inference import ModelFiles

                async with self._backend.inference_session(ModelFiles(self._real), spec.task) as other:
                    answering = other
            yield _Forging(self, honest, answering)


class _Forging:
    def __init__(self, cheat: Cheating, honest: InferenceSession, answering: InferenceSession) -> None:
        self._cheat, self._answering = cheat, answering
        self.check = honest.check

    async def generate(self, emit: Emit) -> tuple[Generated, ...]:
        self._cheat.tried += 1
        return tuple(self._cheat.forge(one) for one in await self._answering.generate(emit))


def truncated(one: Generated) -> Generated:
    """Stops early, and says that this was the end of the budget."""
    half = len(one.tokens) // 2
    words = one.text.split()
    return replace(
        one,
        tokens=one.tokens[:half],
        generated_tokens=half,
        text=" " + " ".join(words[:half]),
        trace=one.trace[: 4 * half],
    )


def overstated(one: Generated) -> Generated:
    """Wants to be paid for tokens that nobody got."""
    return replace(
        one, tokens=one.tokens + (0,) * 8, generated_tokens=one.generated_tokens + 8, trace=one.trace + bytes(32)
    )


def invented(one: Generated) -> Generated:
    """Says something else, as long as what was asked for."""
    return replace(one, tokens=tuple((token + 1) % 12 for token in one.tokens))


def untraced(one: Generated) -> Generated:
    """The right answer, with logits that were never computed."""
    return replace(one, trace=bytes(len(one.trace)))
