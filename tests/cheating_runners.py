"""Runners that lie. They train or replay on the simulated model, so that only the lie differs from honest work."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

import trio

from cyxnode.executor.simulated import SimulatedRunner, _Model
from cyxnode.protocol.errors import ExecutionFailed
from cyxnode.protocol.ports import (
    Comparison,
    Replay,
    RunnerSession,
    SegmentDone,
    TrainDone,
    TrainEvent,
    TrainTask,
)
from cyxnode.protocol.spec import TrainSpec

Emit = Callable[[TrainEvent], Awaitable[None]]


class HonestRunner(SimulatedRunner):
    """The base of all liars: `wrap` may replace the session."""

    def session(self, task: TrainTask) -> AbstractAsyncContextManager[RunnerSession]:  # type: ignore[override]
        return self._wrapped(task)

    @asynccontextmanager
    async def _wrapped(self, task: TrainTask) -> AsyncIterator[RunnerSession]:
        async with super().session(task) as session:
            yield self.wrap(session, task.spec)

    def wrap(self, session: RunnerSession, spec: TrainSpec) -> RunnerSession:
        return session


@dataclass
class Session:
    """Passes everything on to an honest session."""

    honest: RunnerSession
    spec: TrainSpec

    async def train(self, emit: Emit) -> TrainDone:
        return await self.honest.train(emit)

    async def initial_state(self) -> bytes:
        return await self.honest.initial_state()

    async def replay(self, segment: int, state: bytes) -> Replay:
        return await self.honest.replay(segment, state)

    async def compare(self, segment: int, state: bytes, claimed: bytes) -> Comparison:
        return await self.honest.compare(segment, state, claimed)

    async def check_result(self, final_state: bytes, weights: bytes) -> object:
        return await self.honest.check_result(final_state, weights)


class SkippingRunner(HonestRunner):
    """Does `share` of the steps of each segment that `skips` names, and reports states as if it had done them all."""

    def __init__(self, skips: Callable[[int], bool] = lambda segment: True) -> None:
        super().__init__()
        self.skips = skips

    def wrap(self, session: RunnerSession, spec: TrainSpec) -> RunnerSession:
        runner = self

        @dataclass
        class Skipping(Session):
            async def train(self, emit: Emit) -> TrainDone:
                model = _Model(spec)
                await emit(SegmentDone(0, model.hash(), b"", model.blob()))
                for segment in range(spec.segments):
                    steps = spec.segment_steps(segment)
                    done = len(steps) // 2 if runner.skips(segment) else len(steps)
                    await trio.sleep(0.003 * done)
                    losses = [model.step() for _ in range(done)]
                    losses += [losses[-1]] * (len(steps) - done)
                    model.cursor = steps.stop
                    bits = struct.pack(f"<{len(losses)}f", *losses)
                    await emit(SegmentDone(segment + 1, model.hash(), bits, model.blob()))
                loss, accuracy = model.metrics()
                return TrainDone(model.weights(), loss, accuracy, 0, 100)

        return Skipping(session, spec)  # type: ignore[return-value]


class FlakyRunner(HonestRunner):
    """Honest, but its memory flips one bit at the end of every segment, and the training goes on from there."""

    def wrap(self, session: RunnerSession, spec: TrainSpec) -> RunnerSession:
        @dataclass
        class Flaky(Session):
            async def train(self, emit: Emit) -> TrainDone:
                model = _Model(spec)
                await emit(SegmentDone(0, model.hash(), b"", model.blob()))
                for segment in range(spec.segments):
                    steps = spec.segment_steps(segment)
                    await trio.sleep(0.003 * len(steps))
                    losses = [model.step() for _ in steps]
                    blob = model.blob()
                    model.restore(blob[:-1] + bytes([blob[-1] ^ 1]), cursor=model.cursor)
                    bits = struct.pack(f"<{len(losses)}f", *losses)
                    await emit(SegmentDone(segment + 1, model.hash(), bits, model.blob()))
                loss, accuracy = model.metrics()
                return TrainDone(model.weights(), loss, accuracy, 0, 100)

        return Flaky(session, spec)  # type: ignore[return-value]


class BoastingRunner(HonestRunner):
    """Trains honestly, and changes the result with `boast`."""

    def __init__(self, boast: Callable[[TrainDone], TrainDone]) -> None:
        super().__init__()
        self.boast = boast

    def wrap(self, session: RunnerSession, spec: TrainSpec) -> RunnerSession:
        runner = self

        @dataclass
        class Boasting(Session):
            async def train(self, emit: Emit) -> TrainDone:
                return runner.boast(await self.honest.train(emit))

        return Boasting(session, spec)  # type: ignore[return-value]


class DyingRunner(HonestRunner):
    """The computation dies in the middle, with `error`."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error or ExecutionFailed("out of memory")

    def wrap(self, session: RunnerSession, spec: TrainSpec) -> RunnerSession:
        error = self.error

        @dataclass
        class Dying(Session):
            async def train(self, emit: Emit) -> TrainDone:
                await trio.sleep(0.05)
                raise error

        return Dying(session, spec)  # type: ignore[return-value]


class FirstDies(DyingRunner):
    """Of all runners with the same `dead` list, the first that trains dies."""

    def __init__(self, dead: list[object]) -> None:
        super().__init__()
        self.dead = dead

    def wrap(self, session: RunnerSession, spec: TrainSpec) -> RunnerSession:
        dead, dying = self.dead, super().wrap(session, spec)

        @dataclass
        class Perhaps(Session):
            async def train(self, emit: Emit) -> TrainDone:
                dead.append(self)
                return await (dying if len(dead) == 1 else self.honest).train(emit)

        return Perhaps(session, spec)  # type: ignore[return-value]


class AccusingRunner(HonestRunner):
    """The first session of all runners with the same `liars` list that replays anything claims to see other bits."""

    def __init__(self, liars: list[HonestRunner]) -> None:
        super().__init__()
        self.liars = liars

    def wrap(self, session: RunnerSession, spec: TrainSpec) -> RunnerSession:
        runner = self

        @dataclass
        class Accusing(Session):
            async def replay(self, segment: int, state: bytes) -> Replay:
                if not runner.liars:
                    runner.liars.append(runner)
                honest = await self.honest.replay(segment, state)
                return replace(honest, end_hash=bytes(32)) if runner in runner.liars else honest

        return Accusing(session, spec)  # type: ignore[return-value]
