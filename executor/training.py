"""Training and checking as generators: the same code runs in the worker process and in the caller's process.

They yield events, and None where they merely show that they are alive; they return the outcome. Segment i is steps
[i*K, (i+1)*K). SegmentDone 0 carries the state that follows from the seed, SegmentDone i+1 the state after segment i
and its per-step losses. A verifier replays segment i from state i and compares with hash i+1 (DESIGN 6, 7).
"""

from __future__ import annotations

import time
from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from ..protocol.errors import ExecutionFailed
from ..protocol.limits import PROGRESS_INTERVAL_MS
from ..protocol.ports import BatchDone, Comparison, EpochDone, Replay, ResultCheck, SegmentDone, TrainDone, TrainEvent
from .failures import failures_named
from .state import all_finite, deviation_ppm, state_hash
from .task import CheckedTask
from .trainer import Trainer, to_micro

_FLUSH_STEPS = 256


def make_trainer(task: CheckedTask, device: torch.device) -> Trainer:
    """A trainer at the state that follows from the seed. Raises ExecutionFailed when memory does not suffice."""
    with failures_named():
        return Trainer(task.spec, task.graph, task.train, task.validation, device)


def train(trainer: Trainer) -> Generator[TrainEvent | None, None, TrainDone]:
    """Train from the seed to the end. Raises ExecutionFailed when loss or state stop being finite."""
    with failures_named():
        started, trace, best = time.monotonic(), _LossTrace(), _Best()
        reported = float("-inf")
        yield _segment(trainer, 0, trace)
        for segment in range(trainer.spec.segments):
            for step in trainer.spec.segment_steps(segment):
                before = time.perf_counter()
                loss, output, targets = trainer.step(step)
                trace.add(loss)
                trainer.cursor = step + 1
                now = time.perf_counter()
                if now - reported >= PROGRESS_INTERVAL_MS / 1000:
                    reported = now
                    yield _batch(trainer, step, loss, output, targets, now - before)
                if trainer.ends_epoch(step):
                    loss_micro, accuracy_micro = yield from trainer.evaluate()
                    epoch = trainer.epoch_of(step)
                    best.offer(epoch, loss_micro, accuracy_micro)
                    yield EpochDone(epoch, to_micro(trace.end_epoch()), loss_micro, accuracy_micro)
            yield _segment(trainer, segment + 1, trace)
        elapsed_ms = round(1000 * (time.monotonic() - started))
        return TrainDone(trainer.weights_blob(), loss_micro, accuracy_micro, best.epoch, elapsed_ms)


def replay(trainer: Trainer, segment: int, state: bytes) -> Generator[None, None, Replay]:
    """Re-run one segment from a peer's state. Raises RemoteError when the state is not one of this model."""
    steps = trainer.spec.segment_steps(segment)
    if not steps or segment < 0:
        raise ExecutionFailed(f"there is no segment {segment}")
    with failures_named():
        trainer.restore(state, cursor=steps.start)
        start, trace = state_hash(trainer.arrays()), _LossTrace()
        for step in steps:
            trace.add(trainer.step(step)[0])
            trainer.cursor = step + 1
            yield
        losses = trace.end_segment()
        return Replay(start, state_hash(trainer.arrays()), losses)


def compare(trainer: Trainer, segment: int, state: bytes, claimed: bytes) -> Generator[None, None, Comparison]:
    """Re-run one segment from a peer's state, and measure how far its end is from the one that the peer claims.

    Raises RemoteError when either is not a state of this model.
    """
    stop = trainer.spec.segment_steps(segment).stop
    theirs = trainer.read_state(claimed, cursor=stop)
    replayed = yield from replay(trainer, segment, state)
    start = trainer.read_state(state, cursor=trainer.spec.segment_steps(segment).start)
    with failures_named():
        apart = deviation_ppm(start, trainer.arrays(), theirs)
        return Comparison(replayed.end_hash, state_hash(theirs), apart)


def initial_state(trainer: Trainer) -> bytes:
    """State hash that follows from the seed."""
    with failures_named():
        return state_hash(trainer.arrays())


def check_result(trainer: Trainer, final_state: bytes, weights: bytes) -> Generator[None, None, ResultCheck]:
    """Compare delivered weights with the final state and recompute the held-out metrics."""
    with failures_named():
        trainer.restore(final_state, cursor=trainer.spec.steps)
        digest, match = state_hash(trainer.arrays()), trainer.weights_equal(weights)
        loss_micro, accuracy_micro = yield from trainer.evaluate()
        return ResultCheck(digest, match, loss_micro, accuracy_micro)


class _LossTrace:
    """Losses of the running segment and epoch. They stay on the device and are fetched together."""

    def __init__(self) -> None:
        self._pending: list[Tensor] = []
        self._segment: list[bytes] = []
        self._total, self._count = 0.0, 0

    def add(self, loss: Tensor) -> None:
        self._pending.append(loss)
        if len(self._pending) >= _FLUSH_STEPS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        values = torch.stack(self._pending).cpu().numpy().astype("<f4", copy=False)
        self._pending.clear()
        if not np.isfinite(values).all():
            raise ExecutionFailed("the loss became NaN or infinite: lower the learning rate")
        self._segment.append(values.tobytes())
        self._total += float(values.sum(dtype=np.float64))
        self._count += len(values)

    def end_segment(self) -> bytes:
        """Per-step float32 losses since the last segment's end."""
        self._flush()
        losses, self._segment = b"".join(self._segment), []
        return losses

    def end_epoch(self) -> float:
        """Mean loss since the last epoch's end."""
        self._flush()
        mean = self._total / self._count
        self._total, self._count = 0.0, 0
        return mean


class _Best:
    """The epoch with the highest validation accuracy; then the lowest loss; then the earliest."""

    def __init__(self) -> None:
        self.epoch, self._key = 0, (1, 0)

    def offer(self, epoch: int, loss_micro: int, accuracy_micro: int) -> None:
        key = (-accuracy_micro, loss_micro)
        if key < self._key:
            self.epoch, self._key = epoch, key


def _segment(trainer: Trainer, index: int, trace: _LossTrace) -> SegmentDone:
    losses, arrays = trace.end_segment(), trainer.arrays()
    if not all_finite(arrays):
        raise ExecutionFailed(f"the state became NaN or infinite before step {trainer.cursor}")
    return SegmentDone(index, state_hash(arrays), losses, trainer.state_blob(arrays))


def _batch(trainer: Trainer, step: int, loss: Tensor, output: Tensor, targets: Tensor, seconds: float) -> BatchDone:
    return BatchDone(
        step=step,
        epoch=trainer.epoch_of(step),
        batch_loss_micro=to_micro(float(loss.item())),
        batch_accuracy_micro=to_micro(trainer.accuracy(output, targets)),
        batch_time_us=round(seconds * 1e6),
        learning_rate_micro=trainer.spec.learning_rate_micro,
    )
