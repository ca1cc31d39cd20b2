"""What nodes really computed, measured under whatever a cheater puts on top of its runner.

Counted are virtual seconds: of training, segment by segment as it happens, and of the replays of verifiers. What was
trained and is not in a paid job is waste.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import trio

from ..protocol.ports import Comparison, Replay, ResultCheck, Runner, RunnerSession, TrainDone, TrainEvent, TrainTask


@dataclass(slots=True)
class WorkLog:
    """Virtual seconds and tasks, by the names of peers."""

    trained_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    replayed_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    tasks: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class MeteredSession:
    """A session whose time is written down."""

    inner: RunnerSession
    log: WorkLog
    name: str

    async def train(self, emit: Callable[[TrainEvent], Awaitable[None]]) -> TrainDone:
        """Counts as trained until it ends, however it ends."""
        self.log.tasks[self.name] += 1
        began_s = trio.current_time()
        try:
            return await self.inner.train(emit)
        finally:
            self.log.trained_s[self.name] += trio.current_time() - began_s

    async def replay(self, segment: int, state: bytes) -> Replay:
        """Counts as replayed."""
        began_s = trio.current_time()
        try:
            return await self.inner.replay(segment, state)
        finally:
            self.log.replayed_s[self.name] += trio.current_time() - began_s

    async def compare(self, segment: int, state: bytes, claimed: bytes) -> Comparison:
        """Counts as replayed."""
        began_s = trio.current_time()
        try:
            return await self.inner.compare(segment, state, claimed)
        finally:
            self.log.replayed_s[self.name] += trio.current_time() - began_s

    async def initial_state(self) -> bytes:
        """As the inner session's."""
        return await self.inner.initial_state()

    async def check_result(self, final_state: bytes, weights: bytes) -> ResultCheck:
        """As the inner session's."""
        return await self.inner.check_result(final_state, weights)


@dataclass(frozen=True, slots=True)
class MeteredRunner:
    """A runner whose sessions are metered."""

    inner: Runner
    log: WorkLog
    name: str

    @property
    def execution_class(self) -> bytes:
        """The inner runner's."""
        return self.inner.execution_class

    @property
    def description(self) -> dict[str, str]:
        """The inner runner's."""
        return self.inner.description

    def prepare(self) -> None:
        """As the inner runner's."""
        self.inner.prepare()

    def session(self, task: TrainTask) -> AbstractAsyncContextManager[MeteredSession]:
        """A metered session."""
        return self._session(task)

    @asynccontextmanager
    async def _session(self, task: TrainTask) -> AsyncIterator[MeteredSession]:
        async with self.inner.session(task) as inner:
            yield MeteredSession(inner, self.log, self.name)
