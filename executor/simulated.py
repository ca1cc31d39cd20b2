"""A Runner for simulated worlds: no torch, virtual time, and yet a real chain of states that can be verified.

The state is a step counter and a digest that each step hashes forward together with the seed, so a skipped step, a
wrong seed or a flipped bit is seen exactly as with tensors. Losses and metrics are pure functions of it that look like
a training. It takes any spec, and looks neither at the graph nor at the data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import blake2b

import trio
from blake3 import blake3

from ..protocol.errors import ExecutionFailed, RemoteError
from ..protocol.limits import MICRO, PROGRESS_INTERVAL_MS
from ..protocol.ports import (
    BatchDone,
    Comparison,
    EpochDone,
    Replay,
    ResultCheck,
    SegmentDone,
    TrainDone,
    TrainEvent,
    TrainTask,
)
from ..protocol.spec import TrainSpec
from .class_digest import class_digest

_STATE = struct.Struct("<8sQ32s")
_STATE_MAGIC, _WEIGHTS_MAGIC = b"cyxsim/s", b"cyxsim/w"
_LABELS = 10


class _Model:
    """The simulated training state: (step, digest)."""

    def __init__(self, spec: TrainSpec) -> None:
        self._spec = spec
        self._salt = struct.pack("<Q", spec.seed)
        self.cursor = 0
        self._digest = blake2b(b"start" + self._salt, digest_size=32).digest()

    def restore(self, blob: bytes, *, cursor: int) -> None:
        if len(blob) != _STATE.size:
            raise RemoteError(f"the state has {len(blob)} bytes")
        magic, at, digest = _STATE.unpack(blob)
        if magic != _STATE_MAGIC or at != cursor:
            raise RemoteError(f"the state does not stand at step {cursor}")
        self.cursor, self._digest = cursor, digest

    def step(self) -> float:
        """Do the next step; its loss."""
        message = self._digest + self._salt + struct.pack("<Q", self.cursor)
        self._digest = blake2b(message, digest_size=32).digest()
        self.cursor += 1
        return self._loss() * (1 + self._digest[0] / 2560)

    def _loss(self) -> float:
        return 0.02 + math.log(_LABELS) * math.exp(-4 * self.cursor / self._spec.steps)

    def metrics(self) -> tuple[int, int]:
        """Held-out (loss, accuracy), scale 10^6."""
        loss = self._loss() * (1 + self._digest[1] / 5120)
        return round(loss * MICRO), round(MICRO * max(1 / _LABELS, 0.99 - loss / 4))

    def blob(self) -> bytes:
        return _STATE.pack(_STATE_MAGIC, self.cursor, self._digest)

    def weights(self) -> bytes:
        return _WEIGHTS_MAGIC + self._digest

    def hash(self) -> bytes:
        return blake3(self.blob()).digest()


class SimulatedSession:
    """One task in virtual time."""

    def __init__(self, spec: TrainSpec, seconds_per_step: float) -> None:
        self._spec, self._pace = spec, seconds_per_step

    async def train(self, emit: Callable[[TrainEvent], Awaitable[None]]) -> TrainDone:
        """Sleeps the time of each segment, then emits its events."""
        spec, model, progress = self._spec, _Model(self._spec), _Progress(self._spec, self._pace)
        await emit(SegmentDone(0, model.hash(), b"", model.blob()))
        for segment in range(spec.segments):
            steps = spec.segment_steps(segment)
            await trio.sleep(self._pace * len(steps))
            losses: list[float] = []
            for step in steps:
                losses.append(model.step())
                for event in progress.after(step, losses[-1], model):
                    await emit(event)
            await emit(SegmentDone(segment + 1, model.hash(), _bits(losses), model.blob()))
        loss, accuracy = model.metrics()
        return TrainDone(model.weights(), loss, accuracy, progress.best_epoch, round(1000 * self._pace * spec.steps))

    async def initial_state(self) -> bytes:
        """State hash that follows from the spec's seed."""
        await trio.lowlevel.checkpoint()
        return _Model(self._spec).hash()

    async def replay(self, segment: int, state: bytes) -> Replay:
        """Re-run a segment. Raises RemoteError when `state` is not a state at its first step."""
        steps, model = self._spec.segment_steps(segment), _Model(self._spec)
        if not steps or segment < 0:
            raise ExecutionFailed(f"there is no segment {segment}")
        model.restore(state, cursor=steps.start)
        start = model.hash()
        await trio.sleep(self._pace * len(steps))
        losses = [model.step() for _ in steps]
        return Replay(start, model.hash(), _bits(losses))

    async def compare(self, segment: int, state: bytes, claimed: bytes) -> Comparison:
        """Re-run a segment beside its claimed end. One differing bit is taken for a slip of hardware."""
        replayed = await self.replay(segment, state)
        ours, theirs = _Model(self._spec), _Model(self._spec)
        ours.restore(state, cursor=self._spec.segment_steps(segment).start)
        for _ in self._spec.segment_steps(segment):
            ours.step()
        theirs.restore(claimed, cursor=ours.cursor)
        bits = (int.from_bytes(ours.blob()) ^ int.from_bytes(claimed)).bit_count()
        return Comparison(replayed.end_hash, theirs.hash(), bits if bits <= 1 else MICRO * bits // 256)

    async def check_result(self, final_state: bytes, weights: bytes) -> ResultCheck:
        """Compare delivered weights with the final state and recompute the metrics."""
        model = _Model(self._spec)
        model.restore(final_state, cursor=self._spec.steps)
        await trio.lowlevel.checkpoint()
        return ResultCheck(model.hash(), weights == model.weights(), *model.metrics())


class _Progress:
    """The live metrics of a simulated training."""

    def __init__(self, spec: TrainSpec, pace: float) -> None:
        self._spec, self._pace = spec, pace
        self._per_epoch = max(1, spec.steps // spec.epochs)
        self._every = max(1, math.ceil(PROGRESS_INTERVAL_MS / 1000 / pace)) if pace > 0 else spec.steps
        self._losses: list[float] = []
        self._best: tuple[int, int, int] | None = None

    @property
    def best_epoch(self) -> int:
        return self._best[2] if self._best else 0

    def after(self, step: int, loss: float, model: _Model) -> list[TrainEvent]:
        """Events that follow `step`."""
        events: list[TrainEvent] = []
        epoch = step // self._per_epoch
        held_out, accuracy = model.metrics()
        self._losses.append(loss)
        if step % self._every == 0:
            rate = self._spec.learning_rate_micro
            events.append(BatchDone(step, epoch, round(loss * MICRO), accuracy, round(self._pace * 1e6), rate))
        if (step + 1) % self._per_epoch == 0:
            mean = sum(self._losses) / len(self._losses)
            self._losses.clear()
            events.append(EpochDone(epoch, round(mean * MICRO), held_out, accuracy))
            self._best = min(self._best or (1, 0, 0), (-accuracy, held_out, epoch))
        return events


class SimulatedRunner:
    """Makes simulated sessions; `seconds_per_step` is virtual time under trio's MockClock."""

    def __init__(self, seconds_per_step: float = 0.003, *, class_name: str = "simulated") -> None:
        self._pace = seconds_per_step
        self._described = {"compute": "simulated", "name": class_name}

    @property
    def execution_class(self) -> bytes:
        """Digest of the description: runners with one `class_name` are of one class."""
        return class_digest(self._described)

    @property
    def description(self) -> dict[str, str]:
        """What the class covers, `device`, and `sandbox`: nothing foreign is ever executed here."""
        return {**self._described, "device": "cpu", "sandbox": "none", "memory_mb": "0"}

    def prepare(self) -> None:
        """Nothing to prepare."""

    def session(self, task: TrainTask) -> AbstractAsyncContextManager[SimulatedSession]:
        """A session for any spec."""
        return self._session(task)

    @asynccontextmanager
    async def _session(self, task: TrainTask) -> AsyncIterator[SimulatedSession]:
        yield SimulatedSession(task.spec, self._pace)


def _bits(losses: list[float]) -> bytes:
    return struct.pack(f"<{len(losses)}f", *losses)
