"""Inference in the caller's own process: real torch, no process, no sandbox. For tests and for trusted local use.

It computes synchronously and yields to trio between tokens, so that it also works in virtual time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import torch

from ..protocol.inference import Generated, InferenceCheck, InferTask, ModelFiles, TokensGenerated
from . import generation
from .inprocess import ComputesHere, drive


class InProcessInferenceSession:
    """One model and one task, which are checked by the first command."""

    def __init__(self, model: ModelFiles, task: InferTask, device: torch.device) -> None:
        self._model, self._task, self._device = model, task, device
        self._writer: generation.Writer | None = None

    async def generate(self, emit: Callable[[TokensGenerated], Awaitable[None]]) -> tuple[Generated, ...]:
        """Answer every prompt; pieces go to `emit` as they come."""
        return await drive(generation.generate(self._loaded()), emit)

    async def check(self, generated: Generated) -> InferenceCheck:
        """Judge a claim by one prefill over prompt and claimed tokens."""
        return await drive(generation.check(self._loaded(), generated))

    def _loaded(self) -> generation.Writer:
        if self._writer is None:
            self._writer = generation.Writer(self._model, self._task, self._device)
        return self._writer


class InProcessInference(ComputesHere):
    """Makes sessions that compute where they are called, in the class of a runner that trains."""

    def inference_session(
        self, model: ModelFiles, task: InferTask
    ) -> AbstractAsyncContextManager[InProcessInferenceSession]:
        """A session; there is no limit."""
        return self._inference_session(model, task)

    @asynccontextmanager
    async def _inference_session(self, model: ModelFiles, task: InferTask) -> AsyncIterator[InProcessInferenceSession]:
        yield InProcessInferenceSession(model, task, self.device)
