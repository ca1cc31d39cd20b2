"""The winner's side of a job: fetch, train, report, claim, and open the traces (DESIGN 6, 7).

One WorkRun per award. Progress travels on one long stream to the requester, at most 10 Hz, and is dropped rather than
queued when the requester reads slowly. Segment states stay here until the outcome is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

import structlog
import trio
from blake3 import blake3

from ..protocol import codec
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, ExecutionFailed, PeerUnreachable, Refusal, RemoteError
from ..protocol.hashing import leaf_chain, merkle_root, trace_commitment
from ..protocol.limits import (
    BLOB_MAX_BYTES,
    CONFIRM_TIMEOUT_S,
    SEGMENTS_MAX,
    SPEC_MAX_BYTES,
    START_LEASE_MS,
    VERDICT_COMMIT_WAIT_MS,
)
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
from ..protocol.ports import BatchDone, EpochDone, SegmentDone, TrainDone, TrainEvent, TrainTask
from ..protocol.spec import TrainSpec, spec_hash
from ..protocol.units import JobId, NodeId, base58
from .auction_service import Awarded
from .context import NodeContext
from .data_service import DataService
from .wire import CLAIM, NOT_YET, PROGRESS, SPEC, START

log = structlog.get_logger()


async def fetch_spec(context: NodeContext, awarded: Awarded) -> TrainSpec:
    """The spec from the requester, checked against its hash; RemoteError when it is another."""
    announce, wire = awarded.announce, context.wire
    wire.transport.learn(announce.sender, announce.message.addresses)
    request = SpecRequest(job=awarded.terms.job, certificate=awarded.raw)
    answer = await wire.ask(announce.sender, SPEC, request, SpecAnswer)
    if spec_hash(answer.message.spec) != announce.message.spec_hash:
        raise RemoteError("the requester sent another spec than it announced", peer=announce.sender)
    spec = codec.decode(answer.message.spec, TrainSpec, max_bytes=SPEC_MAX_BYTES)
    if spec.segments != announce.message.segments:
        raise RemoteError("the spec has another number of segments than the announce", peer=announce.sender)
    return spec


async def fetch_task(context: NodeContext, data: DataService, awarded: Awarded) -> TrainTask:
    """The spec and its data, all checked by their hashes."""
    spec = await fetch_spec(context, awarded)
    source = awarded.announce.sender
    train = await data.fetch(source, spec.train_cid, max_bytes=BLOB_MAX_BYTES)
    validation = await data.fetch(source, spec.validation_cid, max_bytes=BLOB_MAX_BYTES)
    return TrainTask(spec, train, validation)


@dataclass(slots=True)
class WorkRun:
    """One job that this node won."""

    context: NodeContext
    data: DataService
    awarded: Awarded
    claim: Signed[ResultClaim] | None = None
    claimed_at_ms: int = 0
    _spec: TrainSpec | None = None
    _secret: bytes = b""
    _states: list[bytes] = field(default_factory=list)
    _traces: list[bytes] = field(default_factory=list)
    _losses: list[bytes] = field(default_factory=list)
    _last: BatchDone | None = None
    _epoch: EpochDone | None = None
    _news: trio.Event = field(default_factory=trio.Event)
    _done: bool = False

    @property
    def job(self) -> JobId:
        return self.awarded.terms.job

    @property
    def parties(self) -> tuple[NodeId, ...]:
        """Everyone who hears of start and claim: the committee and the requester."""
        return (*self.awarded.terms.committee, self.awarded.announce.sender)

    async def run(self) -> None:
        """Work from award to claim; every failure becomes a claim that says so."""
        secret = self.context.randomness.bytes(32)
        self._secret = secret
        try:
            claim = await self._work()
        except CyxError as error:
            log.warning("job failed", job=base58(self.job), cause=str(error))
            claim = self._failed(str(error))
        self._done = True
        self._news.set()
        raw = self.context.wire.seal(claim)
        self.claim = open_as(raw, self.context.wire.genesis, ResultClaim)
        self.claimed_at_ms = self.context.wire.clock.monotonic_ms()
        await self.context.wire.tell_all(self.parties, CLAIM, raw, within_s=CONFIRM_TIMEOUT_S)

    async def _work(self) -> ResultClaim:
        wire, job = self.context.wire, self.job
        started = wire.seal(StartNotice(job=job, started_at_ms=wire.clock.unix_ms()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_start, started)
            task = await fetch_task(self.context, self.data, self.awarded)
        self._spec = task.spec
        log.info("job started", job=base58(job), steps=task.spec.steps, segments=task.spec.segments)
        async with self.context.runner.session(task) as session, trio.open_nursery() as nursery:
            nursery.start_soon(self._stream_progress, task.spec)
            done = await session.train(self._on_event)
            self._done = True
            self._news.set()
        return self._completed(task.spec, done)

    async def _tell_start(self, raw: bytes) -> None:
        await self.context.wire.tell_all(self.parties, START, raw, within_s=START_LEASE_MS / 1000)

    async def _on_event(self, event: TrainEvent) -> None:
        match event:
            case SegmentDone(index, state_hash, losses, state):
                if index != len(self._states) or index > SEGMENTS_MAX:
                    raise ExecutionFailed(f"the worker process reported segment {index} out of order")
                self.context.blobs.put_state(self.job, index, state)
                self._states.append(state_hash)
                if index:
                    self._losses.append(losses)
                    self._traces.append(trace_commitment(self._salt(index - 1), losses))
            case BatchDone():
                self._last = event
                self._news.set()
            case EpochDone():
                self._epoch = event
                self._news.set()

    def _salt(self, segment: int) -> bytes:
        return salt_of(self._secret, segment)

    # claims -------------------------------------------------------------------------------------------------------

    def _completed(self, spec: TrainSpec, done: TrainDone) -> ResultClaim:
        if len(self._states) != spec.segments + 1:
            raise ExecutionFailed(f"the worker process ended after {len(self._states) - 1} of {spec.segments} segments")
        cid = self.context.blobs.put(done.weights)
        return ResultClaim(
            job=self.job,
            spec_hash=self.awarded.announce.message.spec_hash,
            execution_class=self.context.runner.execution_class,
            final_status="completed",
            message="",
            model_weights_uri=f"ipfs://{cid}",
            model_weights_hash=sha256(done.weights).digest(),
            model_weights_bytes=len(done.weights),
            merkle_root=merkle_root(leaf_chain(self._states, self._traces)),
            states=tuple(self._states),
            traces=tuple(self._traces),
            final_loss_micro=done.final_loss_micro,
            final_accuracy_micro=done.final_accuracy_micro,
            best_epoch=done.best_epoch,
            total_compute_time_ms=done.total_time_ms,
        )

    def _failed(self, message: str) -> ResultClaim:
        return ResultClaim(
            job=self.job,
            spec_hash=self.awarded.announce.message.spec_hash,
            execution_class=self.context.runner.execution_class,
            final_status="failed",
            message=message[:500],
            model_weights_uri="",
            model_weights_hash=bytes(32),
            model_weights_bytes=0,
            merkle_root=bytes(32),
            states=(),
            traces=(),
            final_loss_micro=0,
            final_accuracy_micro=0,
            best_epoch=0,
            total_compute_time_ms=0,
        )

    # serving ------------------------------------------------------------------------------------------------------

    async def open_traces(self, signed: Signed[OpenRequest]) -> Opening:
        """Open once all verdicts are sealed, or after VERDICT_COMMIT_WAIT_MS once m are."""
        terms = self.awarded.terms
        terms.member(signed.sender)
        if self.claim is None:
            raise Refusal(NOT_YET + "the job still runs")
        sealed = set()
        for raw in signed.message.commits:
            commit = open_as(raw, terms.genesis, VerdictCommit, max_bytes=1024)
            if commit.message.job == self.job:
                sealed.add(terms.member(commit.sender))
        waited = self.context.wire.clock.monotonic_ms() >= self.claimed_at_ms + VERDICT_COMMIT_WAIT_MS
        needed = terms.m if waited else len(terms.committee)
        if len(sealed) < needed:
            raise Refusal(f"{NOT_YET}{len(sealed)} of {needed} verdicts are sealed")
        return Opening(job=self.job, secret=self._secret, losses=b"".join(self._losses))

    async def _stream_progress(self, spec: TrainSpec) -> None:
        """Progress to the requester; a requester that is away costs the job nothing."""
        try:
            stream = await self.context.wire.transport.open_stream(self.awarded.announce.sender, PROGRESS)
            sequence = 0
            while not self._done:
                await self._news.wait()
                self._news = trio.Event()
                if self._last is not None:
                    await stream.send(self.context.wire.seal(self._progress(spec, self._last, sequence)))
                    sequence += 1
            await stream.close()
        except PeerUnreachable as error:
            log.info("progress not streamed", job=base58(self.job), cause=str(error))

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


def salt_of(secret: bytes, segment: int) -> bytes:
    """The salt of a segment's trace commitment, from the secret that the worker opens after the verdicts."""
    return blake3(b"cyx/salt" + secret + segment.to_bytes(4, "little")).digest()


def traces_of(opening: Opening, spec: TrainSpec) -> list[bytes]:
    """The per-segment losses inside an opening; RemoteError when their number is wrong."""
    if len(opening.losses) != 4 * spec.steps:
        raise RemoteError(f"the opening has {len(opening.losses) // 4} losses, not {spec.steps}")
    ranges = [spec.segment_steps(segment) for segment in range(spec.segments)]
    return [opening.losses[4 * steps.start : 4 * steps.stop] for steps in ranges]


def opening_fits(opening: Opening, spec: TrainSpec, traces: tuple[bytes, ...]) -> bool:
    """Whether an opening gives exactly the trace commitments of the claim."""
    try:
        losses = traces_of(opening, spec)
    except RemoteError:
        return False
    committed = [trace_commitment(salt_of(opening.secret, i), one) for i, one in enumerate(losses)]
    return committed == list(traces)
