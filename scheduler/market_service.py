"""The provider's and verifier's side of the market: one room per job, from announce to outcome (DESIGN 5).

It follows the topic of the node's execution class, gives each job's messages to its AuctionRun, WorkRun or CaseRun, and
answers the direct requests of the parties. A node never holds two roles in one job.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
import trio

from ..protocol.award import JobTerms
from ..protocol.envelope import Signed
from ..protocol.errors import CyxError, Refusal
from ..protocol.limits import JOBS_OPEN_MAX, STATUS_DIGEST_INTERVAL_MS
from ..protocol.messages import (
    AwardCertificate,
    AwardVote,
    BidCommit,
    BidReveal,
    Decline,
    JobAnnounce,
    JobStatus,
    Message,
    Opening,
    OpenRequest,
    Outcome,
    Proposal,
    ResultClaim,
    SettleProposal,
    SettleVote,
    StartNotice,
    Tally,
    VerdictCommit,
    VerdictReveal,
)
from ..protocol.settlement import signers
from ..protocol.units import JobId, NodeId, base58
from ..protocol.validation import MARKET_KINDS, job_topic, market_topic
from . import verification
from .auction_service import AuctionRun, Awarded
from .committee_service import CaseRun
from .context import NodeContext
from .data_service import DataService
from .presence_service import Load, PresenceService
from .wire import CLAIM, COMMIT, NOT_YET, OPEN, PROPOSAL, REVEAL, SETTLE, START, TALLY
from .worker_service import WorkRun

ROOM_LIFE_MS = 24 * 3600 * 1000

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = structlog.get_logger()


@dataclass(slots=True)
class Room:
    """One job as this node lives it."""

    announce: Signed[JobAnnounce]
    opened_at_ms: int
    auction: AuctionRun
    work: WorkRun | None = None
    case: CaseRun | None = None
    awarded: Awarded | None = None
    outcome: Signed[Outcome] | None = None


@dataclass(slots=True)
class MarketService:
    """All jobs of our class."""

    context: NodeContext
    presence: PresenceService
    data: DataService
    rooms: dict[JobId, Room] = field(default_factory=dict)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the market until cancelled. Started once the topic is joined."""
        self._serve()
        topic = market_topic(self.context.runner.execution_class)
        async with self.context.wire.listen(topic, MARKET_KINDS) as messages:
            task_status.started()
            async for signed in messages:
                self._dispatch(signed)

    def load(self) -> Load:
        """What our heartbeat says."""
        running = self.running()
        return Load("busy" if running else "idle", 0, running, 0)

    def running(self) -> int:
        """Jobs that this node is working on, or has won and not yet claimed."""
        return sum(1 for room in self.rooms.values() if room.work is not None and room.work.claim is None)

    def committed_price(self, node: NodeId) -> int:
        """Prices of a node's open awards, which its stake must cover."""
        return sum(
            room.awarded.certified.price
            for room in self.rooms.values()
            if room.awarded is not None and room.outcome is None and room.awarded.certified.winner == node
        )

    def node_died(self, node: NodeId) -> None:
        """Presence lost a node: its jobs need not wait for their deadline."""
        now_ms = self.context.wire.clock.monotonic_ms()
        for room in self.rooms.values():
            if room.case is not None and room.awarded is not None and room.awarded.certified.winner == node:
                room.case.apply(verification.WorkerLost("the worker's heartbeats stopped", now_ms))

    def may_read_states(self, job: JobId, peer: NodeId) -> bool:
        """Committee members read the states of a job that we worked on."""
        room = self.rooms.get(job)
        return room is not None and room.awarded is not None and peer in room.awarded.terms.committee

    # gossip -------------------------------------------------------------------------------------------------------

    def _dispatch(self, signed: Signed[Message]) -> None:
        message = signed.message
        match message:
            case JobAnnounce():
                self._open_room(Signed(signed.sender, message, signed.raw))
            case BidCommit() | BidReveal() | Decline():
                room = self.rooms.get(JobId(message.job))
                if room is not None:
                    room.auction.gossip(Signed(signed.sender, message, signed.raw))
            case AwardCertificate():
                room = self.rooms.get(JobId(message.job))
                if room is not None:
                    room.auction.certificate_seen(signed.raw)
            case Outcome():
                self._outcome(Signed(signed.sender, message, signed.raw))
            case _:
                log.info("gossip not followed", kind=type(message).__name__, peer=base58(signed.sender))

    def _open_room(self, announce: Signed[JobAnnounce]) -> None:
        job = JobId(announce.message.job)
        if job in self.rooms or announce.sender == self.context.wire.me:
            return
        if announce.message.execution_class != self.context.runner.execution_class:
            return
        self._sweep()
        if len(self.rooms) >= JOBS_OPEN_MAX:
            log.warning("announce not followed", job=base58(job), cause=f"{JOBS_OPEN_MAX} jobs are open here")
            return
        now_ms = self.context.wire.clock.monotonic_ms()
        peers = self.presence.alive(self.context.runner.execution_class)
        expected = frozenset(node for node in peers if node != announce.sender)
        auction = AuctionRun(
            context=self.context,
            announce=announce,
            received_at_ms=now_ms,
            expected=expected,
            alive=lambda: [*self.presence.alive(announce.message.execution_class), self.context.wire.me],
            running=self.running,
            committed_price=self.committed_price,
            on_award=self._awarded,
            on_unsold=self._unsold,
        )
        self.rooms[job] = Room(announce, now_ms, auction)
        log.info("announced", job=base58(job), budget=announce.message.budget, expected=len(expected))
        self.context.nursery.start_soon(self._run_auction, auction)

    async def _run_auction(self, auction: AuctionRun) -> None:
        try:
            await auction.run()
        except CyxError as error:
            log.warning("auction left", job=base58(auction.job), cause=str(error))

    def _sweep(self) -> None:
        now_ms = self.context.wire.clock.monotonic_ms()
        ended = [j for j, room in self.rooms.items() if now_ms - room.opened_at_ms > ROOM_LIFE_MS]
        settled = [j for j, room in self.rooms.items() if room.outcome is not None]
        surplus = settled[: max(0, len(self.rooms) - JOBS_OPEN_MAX + 1)]
        for job in {*ended, *surplus}:
            del self.rooms[job]

    def _awarded(self, awarded: Awarded) -> None:
        room = self.rooms[awarded.terms.job]
        room.awarded = awarded
        me = self.context.wire.me
        if awarded.certified.winner == me:
            room.work = WorkRun(self.context, self.data, awarded)
            self.context.nursery.start_soon(room.work.run)
            self.context.nursery.start_soon(self._speak_status, room.work)
        elif me in awarded.terms.committee:
            room.case = CaseRun(self.context, self.data, room.announce, awarded.terms, awarded, self._case_closed)
            self.context.nursery.start_soon(room.case.run)

    def _unsold(self, terms: JobTerms, announce: Signed[JobAnnounce], reason: str) -> None:
        room = self.rooms[terms.job]
        room.case = CaseRun(self.context, self.data, announce, terms, None, self._case_closed)
        self.context.nursery.start_soon(room.case.run, reason)

    def _outcome(self, signed: Signed[Outcome]) -> None:
        room = self.rooms.get(JobId(signed.message.job))
        terms = room.auction.terms if room is not None else None
        if room is None or terms is None or room.outcome is not None:
            return
        if len(signers(terms, signed.message)) < terms.m:
            log.warning("outcome dropped: too few signatures", job=base58(terms.job), peer=base58(signed.sender))
            return
        room.outcome = signed
        if room.case is not None:
            room.case.apply(verification.OutcomeSeen())
        if room.work is not None:
            log.info("outcome", job=base58(terms.job), verdict=signed.message.verdict, price=signed.message.price)
        self.context.blobs.drop_states(terms.job)

    def _case_closed(self, job: JobId) -> None:
        log.info("case closed", job=base58(job))

    async def _speak_status(self, work: WorkRun) -> None:
        """A digest of a running job, for `job watch`."""
        sequence = 0
        while work.claim is None:
            progress = work.last_progress()
            status = JobStatus(
                job=work.job,
                sequence=sequence,
                sent_at_ms=self.context.wire.clock.unix_ms(),
                state="running",
                progress_ppm=progress.progress_ppm if progress else 0,
                epoch=progress.current_epoch if progress else 0,
                loss_micro=progress.batch_loss_micro if progress else 0,
                accuracy_micro=progress.batch_accuracy_micro if progress else 0,
            )
            await self.context.wire.publish(job_topic(work.job), status)
            sequence += 1
            await trio.sleep(STATUS_DIGEST_INTERVAL_MS / 1000)

    # requests -----------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        wire = self.context.wire
        wire.serve(TALLY, Tally, self._on_tally)
        wire.serve(PROPOSAL, Proposal, self._on_proposal)
        wire.serve(START, StartNotice, self._on_start)
        wire.serve(CLAIM, ResultClaim, self._on_claim)
        wire.serve(COMMIT, VerdictCommit, self._on_commit)
        wire.serve(REVEAL, VerdictReveal, self._on_reveal)
        wire.serve(OPEN, OpenRequest, self._on_open)
        wire.serve(SETTLE, SettleProposal, self._on_settle)

    def _room(self, job: bytes) -> Room:
        room = self.rooms.get(JobId(job))
        if room is None:
            raise Refusal(NOT_YET + "this job is not known here")
        return room

    def _case(self, job: bytes) -> CaseRun:
        room = self._room(job)
        if room.case is None or room.case.state is None:
            raise Refusal(NOT_YET + "no award is known here")
        return room.case

    async def _on_tally(self, signed: Signed[Tally]) -> None:
        await self._room(signed.message.job).auction.tally_received(signed)

    async def _on_proposal(self, signed: Signed[Proposal]) -> AwardVote:
        return await self._room(signed.message.job).auction.judge(signed)

    async def _on_start(self, signed: Signed[StartNotice]) -> None:
        self._case(signed.message.job).started(signed.sender)

    async def _on_claim(self, signed: Signed[ResultClaim]) -> None:
        self._case(signed.message.job).claimed(signed)

    async def _on_commit(self, signed: Signed[VerdictCommit]) -> None:
        self._case(signed.message.job).commit_received(signed)

    async def _on_reveal(self, signed: Signed[VerdictReveal]) -> None:
        self._case(signed.message.job).reveal_received(signed)

    async def _on_settle(self, signed: Signed[SettleProposal]) -> SettleVote:
        return await self._case(signed.message.job).judge_settlement(signed)

    async def _on_open(self, signed: Signed[OpenRequest]) -> Opening:
        room = self._room(signed.message.job)
        if room.work is None:
            raise Refusal("this node is not the worker of the job")
        return await room.work.open_traces(signed)
