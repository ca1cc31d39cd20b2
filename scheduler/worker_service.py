"""The winner's side of a job: fetch, train, report, claim, and open the traces (DESIGN 6, 7).

One WorkRun per award. Progress travels on one long stream to the requester, at most 10 Hz, and is dropped rather than
queued when the requester reads slowly. Segment states stay here until the outcome is known, which also ends the work.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog
import trio

from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, Refusal
from ..protocol.limits import CONFIRM_TIMEOUT_S, PROGRESS_DRAIN_S, START_LEASE_MS, VERDICT_COMMIT_WAIT_MS
from ..protocol.messages import (
    Opening,
    OpenRequest,
    Progress,
    ResultClaim,
    SpecAnswer,
    SpecRequest,
    StartNotice,
    VerdictCommit,
)
from ..protocol.ports import BatchDone, EpochDone, SegmentDone, TrainEvent
from ..protocol.settlement import sealed
from ..protocol.spec import TrainSpec, encode_spec
from ..protocol.units import JobId, NodeId, base58
from .auction_voting import Awarded
from .claims import Transcript, completed_claim, failed_claim
from .context import NodeContext
from .data_service import DataService
from .supervision import plain_nursery, supervised
from .task_fetch import TaskUnserved, fetch_task
from .wire import CLAIM, NOT_YET, PROGRESS, START

log = structlog.get_logger()


@dataclass(slots=True)
class WorkRun:
    """One job that this node won. `over` once it claimed, or once the outcome came first."""

    context: NodeContext
    data: DataService
    awarded: Awarded
    claim: Signed[ResultClaim] | None = None
    claimed_at_ms: int = 0
    over: bool = False
    lost: set[NodeId] = field(default_factory=set)
    """Members that died since the award: nobody waits for their verdicts."""
    _result: ResultClaim | None = None
    _spec: TrainSpec | None = None
    _transcript: Transcript = field(default_factory=lambda: Transcript(b""))
    _last: BatchDone | None = None
    _epoch: EpochDone | None = None
    _news: trio.Event = field(default_factory=trio.Event)
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _done: bool = False

    @property
    def job(self) -> JobId:
        return self.awarded.terms.job

    @property
    def parties(self) -> tuple[NodeId, ...]:
        """Everyone who hears of start and claim: the committee and the requester."""
        return (*self.awarded.terms.committee, self.awarded.announce.sender)

    async def run(self) -> None:
        """Work from award to claim; every failure becomes a claim that says so, unless the job is over already."""
        self.context.runner.prepare()
        self._transcript = Transcript(self.context.randomness.bytes(32))
        left_s = self.awarded.announce.message.work_deadline_s - self.context.wire.clock.unix_ms() / 1000
        ended = False
        with trio.move_on_after(max(0.0, left_s)), self._scope:
            await supervised(self.job, self._broke, self._attempt)
            ended = True
        if self.over:
            log.info("work ended: the job is over", job=base58(self.job))
        elif not ended:
            await self.give_up("the work deadline passed")
        elif self._result is not None:
            await self._tell(self._result)

    async def give_up(self, reason: str) -> None:
        """Tell the parties that there will be no result."""
        await self._tell(failed_claim(self.awarded.terms, self.context.runner.execution_class, reason))

    def stop(self) -> None:
        """The outcome is known: what is not claimed by now is in vain."""
        self.over = True
        self._scope.cancel()

    def _broke(self) -> None:
        self._result = failed_claim(
            self.awarded.terms, self.context.runner.execution_class, "internal error of the worker's node"
        )

    async def _tell(self, claim: ResultClaim) -> None:
        raw = self.context.wire.seal(sealed(self.awarded.terms, self.context.wire.key, claim))
        self.claim = open_as(raw, self.context.wire.genesis, ResultClaim)
        self.claimed_at_ms = self.context.wire.clock.monotonic_ms()
        self.over = True
        await self.context.wire.tell_all(self.parties, CLAIM, raw, within_s=CONFIRM_TIMEOUT_S)

    async def _attempt(self) -> None:
        try:
            self._result = await self._work()
        except TaskUnserved as error:
            log.warning("job not served", job=base58(self.job), cause=str(error))
            execution_class = self.context.runner.execution_class
            self._result = failed_claim(self.awarded.terms, execution_class, str(error), "unserved")
        except CyxError as error:
            log.warning("job failed", job=base58(self.job), cause=str(error))
            self._result = failed_claim(self.awarded.terms, self.context.runner.execution_class, str(error))
        finally:
            self._done = True
            self._news.set()

    async def _work(self) -> ResultClaim:
        wire, job = self.context.wire, self.job
        started = wire.seal(StartNotice(job=job, started_at_ms=wire.clock.unix_ms()))
        async with plain_nursery() as nursery:
            nursery.start_soon(wire.tell_all_within, self.parties, START, started, START_LEASE_MS / 1000)
            task = await fetch_task(self.context, self.data, self.awarded)
            self._spec = task.spec
            log.info("job started", job=base58(job), steps=task.spec.steps, segments=task.spec.segments)
            nursery.start_soon(supervised, job, _nothing, self._stream_progress, task.spec)
            async with self.context.runner.session(task) as session:
                done = await session.train(self._on_event)
            self._done = True
            self._news.set()
            nursery.cancel_scope.deadline = trio.current_time() + PROGRESS_DRAIN_S
        cid = self.context.blobs.put(done.weights)
        return completed_claim(self.awarded.terms, self.context.runner.execution_class, self._transcript, done, cid)

    async def _on_event(self, event: TrainEvent) -> None:
        match event:
            case SegmentDone(index, _, _, state):
                self._transcript.add(event)
                self.context.blobs.put_state(self.job, index, state)
            case BatchDone():
                self._last = event
                self._news.set()
            case EpochDone():
                self._epoch = event
                self._news.set()

    # serving --------------------------------------------------------------------------------------------------------

    async def open_traces(self, signed: Signed[OpenRequest]) -> Opening:
        """Open once the verdicts of all members that live are sealed, or after VERDICT_COMMIT_WAIT_MS once m are."""
        terms = self.awarded.terms
        terms.member(signed.sender)
        if self.claim is None:
            raise Refusal(NOT_YET + "the job still runs")
        members = set()
        for raw in signed.message.commits:
            commit = open_as(raw, terms.genesis, VerdictCommit, max_bytes=1024)
            if commit.message.job == self.job:
                members.add(terms.member(commit.sender))
        waited = self.context.wire.clock.monotonic_ms() >= self.claimed_at_ms + VERDICT_COMMIT_WAIT_MS
        awaited = 0 if waited else len(set(terms.committee) - members - self.lost)
        if len(members) < terms.m or awaited:
            missing = max(awaited, terms.m - len(members))
            raise Refusal(f"{NOT_YET}{len(members)} verdicts are sealed, {missing} are missing")
        return self._transcript.opening(terms)

    async def give_spec(self, signed: Signed[SpecRequest]) -> SpecAnswer:
        """The spec for a member whom the requester did not answer."""
        self.awarded.terms.member(signed.sender)
        if self._spec is None:
            raise Refusal(NOT_YET + "the spec is not here")
        return SpecAnswer(spec=encode_spec(self._spec))

    # progress -------------------------------------------------------------------------------------------------------

    async def _stream_progress(self, spec: TrainSpec) -> None:
        """Progress to the requester; a requester that is away costs the job nothing."""
        stream = await self.context.wire.transport.open_stream(self.awarded.announce.sender, PROGRESS)
        sequence = 0
        while not self._done:
            await self._news.wait()
            self._news = trio.Event()
            if self._last is not None:
                await stream.send(self.context.wire.seal(self._progress(spec, self._last, sequence)))
                sequence += 1
        await stream.close()

    def last_progress(self) -> Progress | None:
        """The newest progress, None before the first batch."""
        return self._progress(self._spec, self._last, 0) if self._spec is not None and self._last is not None else None

    def _progress(self, spec: TrainSpec, batch: BatchDone, sequence: int) -> Progress:
        return Progress(
            job=self.job,
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
