"""A Runner in the caller's own process: real torch, no process, no sandbox. For tests and for trusted local use.

It computes synchronously and yields to trio between batches and segments, so that it also works in virtual time. Bits
equal those of a worker process only if ENVIRONMENT was set before torch was imported; the execution class tells.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import trio

from ..protocol.ports import Comparison, Replay, ResultCheck, TrainDone, TrainEvent, TrainTask
from . import training
from .class_digest import class_digest
from .classes import describe_class
from .determinism import DeviceChoice, choose_device, pin_torch
from .task import CheckedTask, check_task
from .trainer import Trainer

T = TypeVar("T")


async def drive(steps: Generator[Any, None, T], emit: Callable[[Any], Awaitable[None]] | None = None) -> T:
    """Run a computation here, a checkpoint between its steps; its events go to `emit`."""
    while True:
        await trio.lowlevel.checkpoint()
        try:
            event = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if event is not None and emit is not None:
            await emit(event)


class ComputesHere:
    """What computes in the caller's process. Changes torch's global switches and RNG."""

    def __init__(self, device: DeviceChoice = "cpu") -> None:
        pin_torch()
        self.device = choose_device(device)
        described = describe_class(self.device)
        self._class = class_digest(described)
        self._description = {**described, "device": str(self.device), "sandbox": "none"}

    @property
    def execution_class(self) -> bytes:
        """Digest of what decides about bits."""
        return self._class

    @property
    def description(self) -> dict[str, str]:
        """What the class covers, `device`, and `sandbox` (none)."""
        return dict(self._description)


class InProcessSession:
    """One task. The task is checked by the first command."""

    def __init__(self, runner: InProcessRunner, task: TrainTask) -> None:
        self._runner, self._task = runner, task
        self._checked: CheckedTask | None = None

    async def train(self, emit: Callable[[TrainEvent], Awaitable[None]]) -> TrainDone:
        """Train; events go to `emit` as they happen."""
        return await drive(training.train(self._trainer()), emit)

    async def initial_state(self) -> bytes:
        """State hash that follows from the spec's seed."""
        await trio.lowlevel.checkpoint()
        return training.initial_state(self._trainer())

    async def replay(self, segment: int, state: bytes) -> Replay:
        """Re-run a segment. Raises RemoteError when `state` is not a state of this model."""
        return await drive(training.replay(self._trainer(), segment, state))

    async def compare(self, segment: int, state: bytes, claimed: bytes) -> Comparison:
        """Re-run a segment beside its claimed end. Raises RemoteError when either is not a state of this model."""
        return await drive(training.compare(self._trainer(), segment, state, claimed))

    async def check_result(self, final_state: bytes, weights: bytes) -> ResultCheck:
        """Check delivered weights. Raises RemoteError when `final_state` is not a state of this model."""
        return await drive(training.check_result(self._trainer(), final_state, weights))

    def _trainer(self) -> Trainer:
        if self._checked is None:
            self._checked = check_task(self._task)
        return training.make_trainer(self._checked, self._runner.device)


class InProcessRunner(ComputesHere):
    """Makes sessions that compute where they are called."""

    def prepare(self) -> None:
        """Nothing to prepare."""

    def session(self, task: TrainTask) -> AbstractAsyncContextManager[InProcessSession]:
        """A session; there is no limit."""
        return self._session(task)

    @asynccontextmanager
    async def _session(self, task: TrainTask) -> AsyncIterator[InProcessSession]:
        yield InProcessSession(self, task)
