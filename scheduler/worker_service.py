"""The worker's side of a job: fetch, work, report, claim, and open the traces (DESIGN 6, 7).

One WorkRun per award or hand-over, with the work of the job's kind inside it. The outcome ends the work, or another
node that took over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog
import trio

from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, LocalError, Refusal
from ..protocol.inference import InferSpec
from ..protocol.limits import CONFIRM_TIMEOUT_S, START_LEASE_MS, VERDICT_COMMIT_WAIT_MS
from ..protocol.messages import (
    Claim,
    HandoverCertificate,
    Opening,
    OpenRequest,
    Progress,
    SpecAnswer,
    SpecRequest,
    StartNotice,
    TokensRequest,
    VerdictCommit,
)
from ..protocol.ports import Stream
from ..protocol.settlement import sealed
from ..protocol.spec import encode_spec
from ..protocol.units import JobId, NodeId, base58
from .auction_voting import Awarded
from .claims import Failure, failed_claim
from .context import NodeContext
from .data_service import DataService
from .inference_work import InferenceWork, Pieces, stream_pieces
from .supervision import plain_nursery, supervised
from .task_fetch import Task, TaskUnserved, fetch_task, spec_of
from .traces import SealedTraces
from .training_work import TrainingWork
from .wire import CLAIM, HANDED_OVER, NOT_YET, START

log = structlog.get_logger()


@dataclass(slots=True)
class WorkRun:
    """One job that this node won, or took over. `over` once it claimed, or once the outcome or another worker came
    first; `replaced` by that worker."""

    context: NodeContext
    data: DataService
    awarded: Awarded
    claim: Signed[Claim] | None = None
    claimed_at_ms: int = 0
    over: bool = False
    replaced: bool = False
    lost: set[NodeId] = field(default_factory=set)
    """Members that died since the award: nobody waits for their verdicts."""
    pieces: Pieces = field(default_factory=Pieces)
    """Of an inference: the answers as they grow."""
    _result: Claim | None = None
    _task: Task | None = None
    _work: TrainingWork | InferenceWork | None = None
    _traces: SealedTraces = field(default_factory=lambda: SealedTraces(b""))
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def job(self) -> JobId:
        return self.awarded.terms.job

    @property
    def parties(self) -> tuple[NodeId, ...]:
        """Everyone who hears of start and claim: the committee and the requester."""
        return (*self.awarded.terms.committee, self.awarded.announce.sender)

    async def run(self) -> None:
        """Work from award to claim; every failure becomes a claim that says so, unless the job is over already."""
        self.context.prepare(self.awarded.announce.message)
        self._traces = SealedTraces(self.context.randomness.bytes(32))
        left_s = self.awarded.announce.message.work_deadline_s - self.context.wire.clock.unix_ms() / 1000
        ended = False
        with trio.move_on_after(max(0.0, left_s)), self._scope:
            await supervised(self.job, self._broke, self._attempt)
            ended = True
        if self.over:
            log.info("work ended", job=base58(self.job), cause="the job is over for this node")
        elif not ended:
            await self.give_up("the work deadline passed")
        elif self._result is not None:
            await self._tell(self._result)

    async def give_up(self, reason: str) -> None:
        """Tell the parties that there will be no result."""
        await self._tell(self._failed(reason))

    def _failed(self, reason: str, status: Failure = "failed") -> Claim:
        announce = self.awarded.announce.message
        backend = announce.inference.backend if announce.inference is not None else announce.execution_class
        return failed_claim(self.awarded.terms, backend, reason, status)

    def replace(self, reason: str) -> None:
        """Another node took over: this one will not be paid."""
        if self.replaced:
            return
        self.replaced = True
        self.context.counts["jobs_handed_over"] += 1
        log.warning("work ended", job=base58(self.job), cause=reason)
        self.stop()

    def stop(self) -> None:
        """The outcome is known, or another node works: what is not claimed by now is in vain."""
        self.over = True
        self.pieces.close()
        self._scope.cancel()

    def _broke(self) -> None:
        self._result = self._failed("internal error of the worker's node")

    async def _tell(self, claim: Claim) -> None:
        self.pieces.close()
        raw = self.context.wire.seal(sealed(self.awarded.terms, self.context.wire.key, claim))
        self.claim = open_as(raw, self.context.wire.genesis, Claim)
        self.claimed_at_ms = self.context.wire.clock.monotonic_ms()
        self.over = True
        async with plain_nursery() as nursery:
            nursery.start_soon(self._introduce, CONFIRM_TIMEOUT_S)
            await self.context.wire.tell_all(self.parties, CLAIM, raw, within_s=CONFIRM_TIMEOUT_S)

    async def _introduce(self, within_s: float) -> None:
        """Whoever missed the hand-over to us hears of it from us: it would not believe us otherwise."""
        if self.awarded.handover:
            wire = self.context.wire
            certificate = open_as(self.awarded.handover, wire.genesis, HandoverCertificate).message
            await wire.tell_all(self.parties, HANDED_OVER, wire.seal(certificate), within_s=within_s)

    async def _attempt(self) -> None:
        job = base58(self.job)
        try:
            self._result = await self._perform()
        except TaskUnserved as error:
            log.warning("job not served", job=job, cause=str(error))
            self._result = self._failed(str(error), "unserved")
        except LocalError as error:
            log.warning("job is invalid", job=job, cause=str(error))
            self._result = self._failed(str(error), "invalid")
        except CyxError as error:
            log.warning("job failed", job=job, cause=str(error))
            self._result = self._failed(str(error))

    async def _perform(self) -> Claim:
        wire, job = self.context.wire, self.job
        started = wire.seal(StartNotice(job=job, started_at_ms=wire.clock.unix_ms()))
        async with plain_nursery() as nursery:
            nursery.start_soon(self._introduce, START_LEASE_MS / 1000)
            nursery.start_soon(wire.tell_all_within, self.parties, START, started, START_LEASE_MS / 1000)
            self._task = task = await fetch_task(self.context, self.data, self.awarded)
            self._work = self._work_on(task)
            log.info("job started", job=base58(job), kind=self.awarded.announce.message.kind)
            claim = await self._work.perform()
            nursery.cancel_scope.cancel()
        return claim

    def _work_on(self, task: Task) -> TrainingWork | InferenceWork:
        if isinstance(task, InferSpec):
            return InferenceWork(self.context, self.awarded, task, self._traces, self.pieces)
        return TrainingWork(self.context, self.awarded, task, self._traces)

    def last_progress(self) -> Progress | None:
        """The newest progress, None before there is any."""
        return self._work.last_progress() if self._work is not None else None

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
        return self._traces.opening(self.job)

    async def give_spec(self, signed: Signed[SpecRequest]) -> SpecAnswer:
        """The spec for a member whom the requester did not answer."""
        self.awarded.terms.member(signed.sender)
        if self._task is None:
            raise Refusal(NOT_YET + "the spec is not here")
        return SpecAnswer(spec=encode_spec(spec_of(self._task)))

    async def stream_tokens(self, stream: Stream, signed: Signed[TokensRequest]) -> None:
        """The answers as they grow, for the requester alone."""
        if signed.sender != self.awarded.announce.sender:
            raise Refusal("the answers go to the requester of the job", peer=signed.sender)
        await stream_pieces(self.context, self.pieces, stream, signed.message.start)
