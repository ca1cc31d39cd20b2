"""Inference for simulated worlds: no torch, virtual time, and yet answers that can be verified.

Each token is a word that a hash of model, prompt, law and the tokens before it chooses, so a forged, missing or added
token is seen exactly as with a model. Logits are made up from the same hash. It takes any model and looks at nothing
but its manifest.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from hashlib import blake2b

import trio

from ..protocol.codec import encode
from ..protocol.errors import ExecutionFailed, LocalError
from ..protocol.inference import (
    Generated,
    InferenceCheck,
    InferSpec,
    InferTask,
    ModelFiles,
    ModelManifest,
    StopReason,
    TokensGenerated,
    check_manifest,
    check_task,
    model_id,
)
from ..protocol.limits import MICRO, MODELS_OFFERED_MAX
from ..protocol.messages import ModelOffer
from .class_digest import class_digest
from .tokens import encode_prompt

_WORDS = ("boat", "lamp", "night", "harbour", "sack", "chest", "price", "captain", "water", "winner", "jar", "lot")
_END = len(_WORDS)
_END_ODDS = 32
"""One token of so many is the end."""
_WRONG_GAP_MICRO = 5 * MICRO


class SimulatedInferenceSession:
    """One task. `seconds_per_token` of virtual time pass for each generated token, a twentieth for a checked one."""

    def __init__(self, model: ModelFiles, task: InferTask, seconds_per_token: float) -> None:
        check_manifest(model.manifest)
        check_task(task)
        self._task, self._pace = task, seconds_per_token
        self._context = model.manifest.context_length
        self._key = blake2b(model.manifest.digest + encode(task), digest_size=32).digest()

    async def generate(self, emit: Callable[[TokensGenerated], Awaitable[None]]) -> tuple[Generated, ...]:
        """Answer every prompt, one event a token."""
        answers = []
        for index in range(len(self._task.prompts)):
            tokens: list[int] = []
            started = trio.current_time()
            while self._stop_reason(index, tokens) is None:
                await trio.sleep(self._pace)
                tokens.append(self._next(index, tokens))
                last = self._stop_reason(index, tokens) is not None
                await emit(TokensGenerated(index, len(tokens) - 1, (tokens[-1],), _text(tokens[-1:]), last))
            elapsed_ms = round(1000 * (trio.current_time() - started))
            answers.append(self._claim(index, tokens, elapsed_ms))
        return tuple(answers)

    async def check(self, generated: Generated) -> InferenceCheck:
        """Judge a claim token by token, each after the claimed ones before it."""
        await trio.sleep(self._pace * len(generated.tokens) / 20)
        index, tokens = generated.prompt_index, list(generated.tokens)
        if not 0 <= index < len(self._task.prompts):
            return InferenceCheck(False, 0, 0, 0, f"prompt_index: there is no prompt {index}", b"")
        if not all(0 <= token <= _END for token in tokens):
            return InferenceCheck(False, 0, 0, 0, f"tokens: one is above {_END}", b"")
        wrong = [place for place, token in enumerate(tokens) if token != self._next(index, tokens[:place])]
        trace = self._trace(index, tokens)
        if wrong:
            exact_ppm, mean = MICRO * (len(tokens) - len(wrong)) // len(tokens), _WRONG_GAP_MICRO // len(tokens)
            reason = f"tokens[{wrong[0]}]: {tokens[wrong[0]]} lies 5 logits below the best token"
            return InferenceCheck(False, exact_ppm, _WRONG_GAP_MICRO, mean * len(wrong), reason, trace)
        if not tokens or self._stop_reason(index, tokens) is None:
            return InferenceCheck(False, 0, 0, 0, "stop_reason: the answer is not finished", b"")
        if any(self._stop_reason(index, tokens[:place]) for place in range(1, len(tokens))):
            return InferenceCheck(False, 0, 0, 0, "tokens: go on after the end", b"")
        claimed = replace(generated, trace=generated.trace or trace)
        if claimed != self._claim(index, tokens, generated.compute_ms):
            return InferenceCheck(False, 0, 0, 0, "counts, text and trace do not fit the tokens", b"")
        return InferenceCheck(True, MICRO, 0, 0, "", trace)

    def _claim(self, index: int, tokens: Sequence[int], elapsed_ms: int) -> Generated:
        stop = self._stop_reason(index, tokens)
        assert stop is not None
        trace, size = self._trace(index, tokens), self._prompt_tokens(index)
        return Generated(index, _text(tokens), tuple(tokens), size, len(tokens), stop, elapsed_ms, trace)

    def _prompt_tokens(self, index: int) -> int:
        return len(encode_prompt(self._task.system, self._task.prompts[index]))

    def _stop_reason(self, index: int, tokens: Sequence[int]) -> StopReason | None:
        if tokens and tokens[-1] == _END:
            return "end"
        if len(tokens) == self._task.num_predict:
            return "length"
        return "context" if self._prompt_tokens(index) + len(tokens) >= self._context else None

    def _next(self, index: int, tokens: Sequence[int]) -> int:
        digest = self._hash(index, tokens)
        return _END if digest[0] % _END_ODDS == 0 else digest[1] % len(_WORDS)

    def _trace(self, index: int, tokens: Sequence[int]) -> bytes:
        logits = (self._hash(index, tokens[: place + 1], b"logit")[0] / 16 for place in range(len(tokens)))
        return struct.pack(f"<{len(tokens)}f", *logits)

    def _hash(self, index: int, tokens: Sequence[int], part: bytes = b"") -> bytes:
        message = part + struct.pack("<I", index) + bytes(tokens)
        return blake2b(message, key=self._key, digest_size=8).digest()


def _text(tokens: Sequence[int]) -> str:
    return "".join(f" {_WORDS[token]}" if token != _END else "" for token in tokens)


class SimulatedInference:
    """Makes sessions that cost virtual time only."""

    def __init__(self, class_name: str = "simulated", *, seconds_per_token: float = 0.05) -> None:
        self._described = {"simulated": class_name}
        self._pace = seconds_per_token

    @property
    def execution_class(self) -> bytes:
        """Digest of the description: backends with one `class_name` are of one class."""
        return class_digest(self._described)

    @property
    def description(self) -> dict[str, str]:
        """What the class covers, `device`, and `sandbox`: nothing foreign is ever executed here."""
        return {**self._described, "device": "cpu", "sandbox": "none"}

    def inference_session(
        self, model: ModelFiles, task: InferTask
    ) -> AbstractAsyncContextManager[SimulatedInferenceSession]:
        """A session for any model."""
        return self._inference_session(model, task)

    @asynccontextmanager
    async def _inference_session(self, model: ModelFiles, task: InferTask) -> AsyncIterator[SimulatedInferenceSession]:
        yield SimulatedInferenceSession(model, task, self._pace)


class SimulatedModels:
    """Serves models on a SimulatedInference: all warm, each as fast as the pace says."""

    def __init__(
        self,
        models: Sequence[tuple[ModelManifest, int, int]],
        *,
        seconds_per_token: float = 0.02,
        class_name: str = "sim",
    ) -> None:
        """`models`: manifest, and micro-CYX for 1,000 tokens that are read and written. Raises LocalError for a
        manifest that is none, two of one model, or more than MODELS_OFFERED_MAX."""
        self._backend = SimulatedInference(class_name, seconds_per_token=seconds_per_token)
        self._speed_micro = round(MICRO / seconds_per_token) if seconds_per_token else 0
        self._models: dict[bytes, tuple[ModelManifest, int, int]] = {}
        for one in models:
            check_manifest(one[0])
            if self._models.setdefault(model_id(one[0]), one) is not one:
                raise LocalError(f"{one[0].name} is there twice", field="models", fix="leave one out")
        if len(self._models) > MODELS_OFFERED_MAX:
            raise LocalError(f"are {len(self._models)}", field="models", fix=f"at most {MODELS_OFFERED_MAX}")

    @property
    def execution_class(self) -> bytes:
        """Of the backend, as in each offer."""
        return self._backend.execution_class

    def offers(self) -> tuple[ModelOffer, ...]:
        """All of them, by name."""
        offers = (self._offer(model, *rest) for model, rest in self._models.items())
        return tuple(sorted(offers, key=lambda offer: (offer.name, offer.model)))

    def _offer(self, model: bytes, manifest: ModelManifest, prompt_rate: int, generated_rate: int) -> ModelOffer:
        return ModelOffer(
            name=manifest.name,
            kind=manifest.kind,
            model=model,
            backend=self._backend.execution_class,
            quantisation=manifest.quantisation,
            context_length=manifest.context_length,
            prompt_rate=prompt_rate,
            generated_rate=generated_rate,
            tokens_per_s_micro=self._speed_micro,
            warm=True,
        )

    def prepare(self, model: bytes) -> None:
        """Nothing has to be loaded."""

    def session(self, spec: InferSpec) -> AbstractAsyncContextManager[SimulatedInferenceSession]:
        """A session. Entering raises ExecutionFailed when the model is not served, or not on that backend."""
        return self._session(spec)

    @asynccontextmanager
    async def _session(self, spec: InferSpec) -> AsyncIterator[SimulatedInferenceSession]:
        found = self._models.get(spec.model)
        if found is None:
            raise ExecutionFailed(f"the model {spec.model.hex()[:16]} is not served here")
        if spec.backend != self._backend.execution_class:
            raise ExecutionFailed(f"{found[0].name} is not served on the backend {spec.backend.hex()[:16]}")
        async with self._backend.inference_session(ModelFiles(found[0]), spec.task) as session:
            yield session

    def gpu_utilization_ppm(self) -> int | None:
        """There is no GPU."""
        return None
