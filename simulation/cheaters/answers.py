"""Workers that want to be paid for answers that they did not compute, or not with the model that was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from msgspec import structs

from ...protocol.inference import Generated, InferenceCheck, InferSpec, TokensGenerated
from ...protocol.messages import ModelOffer
from ...protocol.ports import InferenceSession, Models
from ...protocol.spec import encode_spec, spec_hash
from .cheat import Cheat, Ending, Fate
from .workers import worker_fate

Emit = Callable[[TokensGenerated], Awaitable[None]]


class AnswerCheat(Cheat):
    """A try is a prompt that it answered: caught when it FAILED, paid when it is OK."""

    cheap: ClassVar[bool] = True
    infers: ClassVar[bool] = True

    def dress_models(self, models: Models) -> Models:
        """Sessions whose answers pass `forge`."""
        return DressedModels(models, self)

    def forge(self, honest: Generated) -> Generated:
        """What is claimed instead of an honest answer."""
        raise NotImplementedError

    def answering(self, spec: InferSpec) -> InferSpec:
        """What is computed instead of what was asked."""
        return spec

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By the verdict on chain."""
        return worker_fate(self.me, key, ending)


@dataclass(frozen=True)
class DressedModels:
    """Models that generate as a cheat wants it, check honestly, and cost little."""

    inner: Models
    cheat: AnswerCheat

    def offers(self) -> tuple[ModelOffer, ...]:
        """At a tenth of the price."""
        return tuple(
            structs.replace(one, prompt_rate=one.prompt_rate // 10, generated_rate=one.generated_rate // 10)
            for one in self.inner.offers()
        )

    def prepare(self, model: bytes) -> None:
        """As the inner models."""
        self.inner.prepare(model)

    def gpu_utilization_ppm(self) -> int | None:
        """As the inner models."""
        return self.inner.gpu_utilization_ppm()

    def session(self, spec: InferSpec) -> AbstractAsyncContextManager[InferenceSession]:
        """A forging session."""
        return self._session(spec)

    @asynccontextmanager
    async def _session(self, spec: InferSpec) -> AsyncIterator[InferenceSession]:
        async with self.inner.session(spec) as honest, self.inner.session(self.cheat.answering(spec)) as answering:
            yield _Forging(self.cheat, spec, honest, answering)


@dataclass(frozen=True)
class _Forging:
    cheat: AnswerCheat
    spec: InferSpec
    honest: InferenceSession
    answering: InferenceSession

    async def generate(self, emit: Emit) -> tuple[Generated, ...]:
        self.cheat.tried(spec_hash(encode_spec(self.spec)), 1.0)
        return tuple(self.cheat.forge(one) for one in await self.answering.generate(emit))

    async def check(self, generated: Generated) -> InferenceCheck:
        return await self.honest.check(generated)


class SmallerModel(AnswerCheat):
    """Answers with another law than asked for, as a smaller model or a lower precision would, and claims the right
    one."""

    name: ClassVar[str] = "smaller-model"

    def answering(self, spec: InferSpec) -> InferSpec:
        """Another seed, which in the simulated backend is as good as another model."""
        return structs.replace(spec, task=structs.replace(spec.task, seed=spec.task.seed ^ 1))

    def forge(self, honest: Generated) -> Generated:
        """As it came."""
        return honest


class TruncatedAnswer(AnswerCheat):
    """Stops halfway."""

    name: ClassVar[str] = "truncated-answer"

    def forge(self, honest: Generated) -> Generated:
        """The first half of the tokens; of one token nothing can be saved, and it is claimed twice."""
        half = len(honest.tokens) // 2
        if not half:
            return replace(honest, tokens=honest.tokens * 2, generated_tokens=2, trace=honest.trace * 2)
        words = honest.text.split()[:half]
        return replace(
            honest,
            tokens=honest.tokens[:half],
            generated_tokens=half,
            text="".join(f" {word}" for word in words),
            trace=honest.trace[: 4 * half],
        )


class OverstatedTokens(AnswerCheat):
    """Wants to be paid for tokens that nobody got."""

    name: ClassVar[str] = "overstated-tokens"

    def forge(self, honest: Generated) -> Generated:
        """Eight more."""
        return replace(
            honest,
            tokens=honest.tokens + (0,) * 8,
            generated_tokens=honest.generated_tokens + 8,
            trace=honest.trace + bytes(32),
        )


class InventedAnswer(AnswerCheat):
    """Says something of the right length."""

    name: ClassVar[str] = "invented-answer"

    def forge(self, honest: Generated) -> Generated:
        """Other words."""
        return replace(honest, tokens=tuple((token + 1) % 12 for token in honest.tokens))


class MadeUpLogits(AnswerCheat):
    """Knows the right words without having computed them: its logits are made up."""

    name: ClassVar[str] = "made-up-logits"

    def forge(self, honest: Generated) -> Generated:
        """All zero."""
        return replace(honest, trace=bytes(len(honest.trace)))
