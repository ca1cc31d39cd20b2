"""Inference in the caller's own process: real torch, no process, no sandbox. For tests and for trusted local use.

It computes synchronously and yields to trio between tokens, so that it also works in virtual time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import torch
import trio

from ..protocol.inference import Generated, InferenceCheck, InferTask, ModelFiles, TokensGenerated
from . import generation
from .class_digest import class_digest
from .classes import describe_class
from .determinism import DeviceChoice, choose_device, pin_torch

T = TypeVar("T")


class InProcessInferenceSession:
    """One model and one task, which are checked by the first command."""

    def __init__(self, model: ModelFiles, task: InferTask, device: torch.device) -> None:
        self._model, self._task, self._device = model, task, device
        self._writer: generation.Writer | None = None

    async def generate(self, emit: Callable[[TokensGenerated], Awaitable[None]]) -> tuple[Generated, ...]:
        """Answer every prompt; pieces go to `emit` as they come."""
        return await self._drive(generation.generate(self._loaded()), emit)

    async def check(self, generated: Generated) -> InferenceCheck:
        """Judge a claim by one prefill over prompt and claimed tokens."""
        return await self._drive(generation.check(self._loaded(), generated))

    def _loaded(self) -> generation.Writer:
        if self._writer is None:
            self._writer = generation.Writer(self._model, self._task, self._device)
        return self._writer

    async def _drive(
        self,
        steps: Generator[TokensGenerated | None, None, T],
        emit: Callable[[TokensGenerated], Awaitable[None]] | None = None,
    ) -> T:
        while True:
            await trio.lowlevel.checkpoint()
            try:
                event = next(steps)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if event is not None and emit is not None:
                await emit(event)


class InProcessInference:
    """Makes sessions that compute where they are called. Changes torch's global switches and RNG."""

    def __init__(self, device: DeviceChoice = "cpu") -> None:
        pin_torch()
        self._device = choose_device(device)
        described = describe_class(self._device)
        self._class = class_digest(described)
        self._description = {**described, "device": str(self._device), "sandbox": "none"}

    @property
    def execution_class(self) -> bytes:
        """Digest of what decides about bits: the same as of a runner that trains."""
        return self._class

    @property
    def description(self) -> dict[str, str]:
        """What the class covers, `device`, and `sandbox` (none)."""
        return dict(self._description)

    def inference_session(
        self, model: ModelFiles, task: InferTask
    ) -> AbstractAsyncContextManager[InProcessInferenceSession]:
        """A session; there is no limit."""
        return self._inference_session(model, task)

    @asynccontextmanager
    async def _inference_session(self, model: ModelFiles, task: InferTask) -> AsyncIterator[InProcessInferenceSession]:
        yield InProcessInferenceSession(model, task, self._device)
