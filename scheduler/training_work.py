"""How a winner trains: progress to the requester while it does, segment states for the committee, and its claim.

Progress travels on one long stream, at most 10 Hz, and is dropped rather than queued when the requester reads slowly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from ..protocol.limits import PROGRESS_DRAIN_S
from ..protocol.messages import Claim, Progress
from ..protocol.ports import BatchDone, EpochDone, SegmentDone, TrainEvent, TrainTask
from ..protocol.spec import TrainSpec
from .auction_voting import Awarded
from .claims import Transcript, training_claim
from .context import NodeContext
from .supervision import plain_nursery, supervised
from .traces import SealedTraces
from .wire import PROGRESS


@dataclass(slots=True)
class TrainingWork:
    """One training, from its task to its claim. Segment states stay here until the outcome is known."""

    context: NodeContext
    awarded: Awarded
    task: TrainTask
    traces: SealedTraces
    _transcript: Transcript = field(init=False)
    _last: BatchDone | None = None
    _epoch: EpochDone | None = None
    _news: trio.Event = field(default_factory=trio.Event)
    _done: bool = False

    def __post_init__(self) -> None:
        self._transcript = Transcript(self.traces)

    async def perform(self) -> Claim:
        """Train."""
        context, terms = self.context, self.awarded.terms
        async with plain_nursery() as nursery:
            nursery.start_soon(supervised, terms.job, _nothing, self._stream_progress)
            try:
                async with context.runner.session(self.task) as session:
                    done = await session.train(self._on_event)
            finally:
                self._done = True
                self._news.set()
            nursery.cancel_scope.deadline = trio.current_time() + PROGRESS_DRAIN_S
        cid = context.blobs.put(done.weights)
        return training_claim(terms, context.runner.execution_class, self._transcript, done, cid)

    async def _on_event(self, event: TrainEvent) -> None:
        match event:
            case SegmentDone(index, _, _, state):
                self._transcript.add(event)
                self.context.blobs.put_state(self.awarded.terms.job, index, state)
            case BatchDone():
                self._last = event
                self._news.set()
            case EpochDone():
                self._epoch = event
                self._news.set()

    async def _stream_progress(self) -> None:
        """Progress to the requester; a requester that is away costs the job nothing."""
        wire, spec = self.context.wire, self.task.spec
        stream = await wire.transport.open_stream(self.awarded.announce.sender, PROGRESS)
        sequence = 0
        while not self._done:
            await self._news.wait()
            self._news = trio.Event()
            if self._last is not None:
                await stream.send(wire.seal(self._progress(spec, self._last, sequence)))
                sequence += 1
        await stream.close()

    def last_progress(self) -> Progress | None:
        """The newest progress, None before the first batch."""
        return self._progress(self.task.spec, self._last, 0) if self._last is not None else None

    def _progress(self, spec: TrainSpec, batch: BatchDone, sequence: int) -> Progress:
        return Progress(
            job=self.awarded.terms.job,
            sequence=sequence,
            progress_ppm=min(1_000_000, 1_000_000 * (batch.step + 1) // spec.steps),
            step=batch.step,
            current_epoch=batch.epoch,
            batch_loss_micro=batch.batch_loss_micro,
            batch_accuracy_micro=batch.batch_accuracy_micro,
            batch_time_us=batch.batch_time_us,
            learning_rate_micro=batch.learning_rate_micro,
            validation_loss_micro=self._epoch.validation_loss_micro if self._epoch else -1,
            validation_accuracy_micro=self._epoch.validation_accuracy_micro if self._epoch else -1,
        )


def _nothing() -> None:
    """Progress that cannot be told costs the job nothing."""
