"""The provider's and verifier's side of the market: one room per job, from announce to outcome (DESIGN 5).

It follows the topic of the node's execution class, gives each job's messages to its AuctionRun, WorkRun or CaseRun, and
starts those. A node never holds two roles in one job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

import structlog
import trio

from ..protocol.award import JobTerms
from ..protocol.chain import JobState, Verdict
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import LocalError
from ..protocol.handover import check_handover
from ..protocol.limits import EVIDENCE_JUDGED_MAX, JOBS_OPEN_MAX
from ..protocol.messages import (
    AwardCertificate,
    BidCommit,
    BidReveal,
    Capability,
    Decline,
    HandoverCertificate,
    JobAnnounce,
    Message,
    Outcome,
)
from ..protocol.settlement import quorum_for, result_hash, signers
from ..protocol.units import JobId, NodeId, base58
from ..protocol.validation import MARKET_KINDS, market_topic
from . import verification
from .auction_service import AuctionRun
from .auction_voting import Awarded
from .committee_service import CaseRun
from .context import NodeContext
from .data_service import DataService
from .equivocation import Statement, in_certificate, in_handover, in_outcome
from .kept_claims import KeptClaim, keep_claim
from .market_requests import MarketRequests
from .presence_service import Load, PresenceService
from .room import Room, Rooms
from .status_digest import speak_status
from .supervision import contained, supervised
from .takeover import why_not
from .unfinished import forget, remember, unfinished
from .worker_service import WorkRun

if TYPE_CHECKING:
    from trio_typing import TaskStatus

M = TypeVar("M")
log = structlog.get_logger()


@dataclass(slots=True)
class MarketService:
    """All jobs of our class."""

    context: NodeContext
    presence: PresenceService
    data: DataService
    rooms: Rooms = field(default_factory=Rooms)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the market until cancelled. Started once the topic is joined."""
        MarketRequests(
            self.context.wire, self.context.journal, self.rooms, self._open_room, self._handed_over, self._outcome
        ).serve()
        topic = market_topic(self.context.runner.execution_class)
        async with self.context.wire.listen(topic, MARKET_KINDS) as messages:
            self._own_up()
            task_status.started()
            async for signed in messages:
                contained(self._dispatch, signed)

    def load(self) -> Load:
        """What our heartbeat says."""
        running = self.rooms.running()
        return Load("busy" if running else "idle", 0, running, 0)

    def node_died(self, node: NodeId) -> None:
        """Presence lost a node: its jobs need not wait for their deadline, nor members for its verdict."""
        now_ms = self.context.wire.clock.monotonic_ms()
        for room in list(self.rooms.by_job.values()):
            if room.awarded is None:
                continue
            if room.case is not None and room.case.worker == node:
                room.case.apply(verification.WorkerLost("the worker's heartbeats stopped", now_ms))
            if node in room.awarded.terms.committee:
                if room.case is not None:
                    room.case.apply(verification.MemberLost(node, now_ms))
                if room.work is not None:
                    room.work.lost.add(node)

    def may_read_states(self, job: JobId, peer: NodeId) -> bool:
        """Committee members read the states of a job that we worked on."""
        room = self.rooms.get(job)
        return room is not None and room.awarded is not None and peer in room.awarded.terms.committee

    # gossip ---------------------------------------------------------------------------------------------------------

    def _dispatch(self, signed: Signed[Message]) -> None:
        message = signed.message
        match message:
            case JobAnnounce():
                self._open_room(Signed(signed.sender, message, signed.raw))
            case BidCommit() | BidReveal() | Decline():
                self.rooms.bidding(Signed(signed.sender, message, signed.raw))
            case AwardCertificate():
                room = self.rooms.get(message.job)
                if room is not None:
                    room.auction.certificate_seen(signed.raw)
                    self._compare(room, in_certificate, message, signed.raw)
            case HandoverCertificate():
                self._handed_over(signed.raw)
            case Outcome():
                self._outcome(Signed(signed.sender, message, signed.raw))
            case _:
                log.info("gossip not followed", kind=type(message).__name__, peer=base58(signed.sender))

    def _compare(
        self, room: Room, statements: Callable[[JobTerms, M], Iterable[Statement]], evidence: M, raw: bytes
    ) -> None:
        """Look for members that sign one thing here and another there."""
        terms, digest = room.auction.terms, sha256(raw).digest()
        if terms is not None and digest not in room.compared and len(room.compared) < EVIDENCE_JUDGED_MAX:
            room.compared.add(digest)
            self.context.hear(terms, statements(terms, evidence))

    def _open_room(self, announce: Signed[JobAnnounce]) -> None:
        job, me = JobId(announce.message.job), self.context.wire.me
        if self.rooms.knows(job) or announce.sender == me:
            return
        if announce.message.execution_class != self.context.runner.execution_class:
            return
        for ended in self.rooms.make_place(self.context.wire.clock.unix_ms() // 1000):
            self.context.blobs.drop_states(ended)
        if self.rooms.full:
            log.warning("announce not followed", job=base58(job), cause=f"{JOBS_OPEN_MAX} jobs are open here")
            return
        now_ms = self.context.wire.clock.monotonic_ms()
        peers = self.presence.alive(self.context.runner.execution_class)
        # A window closes early only where all who might bid are known: in a class that is one cell.
        expected = frozenset(node for node in peers if node != announce.sender and self.presence.whole_class)
        auction = AuctionRun(
            context=self.context,
            announce=announce,
            received_at_ms=now_ms,
            expected=expected,
            alive=self._alive,
            running=self.rooms.running,
            committed_price=self.rooms.committed_price,
            on_award=self._awarded,
            on_unsold=self._unsold,
            on_refused=self.rooms.refuse,
        )
        self.rooms.open(job, Room(announce, auction))
        self.context.counts["jobs_announced"] += 1
        log.info("announced", job=base58(job), budget=announce.message.budget, expected=len(expected))
        self._start(job, auction.finish, auction.run)

    def _alive(self) -> dict[NodeId, Capability]:
        """Live nodes of our class, with us among them."""
        alive, now_ms = self.presence.alive(self.context.runner.execution_class), self.context.wire.clock.unix_ms()
        if self.presence.offer is not None:
            alive[self.context.wire.me] = self.presence.offer(now_ms, now_ms)
        return alive

    def _start(
        self, job: JobId, on_defect: Callable[[], None], action: Callable[..., Awaitable[object]], *arguments: object
    ) -> None:
        self.context.nursery.start_soon(supervised, job, on_defect, action, *arguments)

    # our part in a job ----------------------------------------------------------------------------------------------

    def _awarded(self, awarded: Awarded) -> None:
        room = self.rooms.get(awarded.terms.job)
        if room is None or room.awarded is not None:
            return
        room.awarded, me = awarded, self.context.wire.me
        if awarded.certified.winner == me:
            self._begin_work(room, awarded)
        elif me in awarded.terms.committee:
            self._sit(room, awarded.terms, awarded, "")

    def _begin_work(self, room: Room, awarded: Awarded) -> None:
        self.context.counts["jobs_won"] += 1
        room.work = WorkRun(self.context, self.data, awarded)
        self._start(awarded.terms.job, room.work.stop, self._work, room.work)
        self._start(awarded.terms.job, _nothing, speak_status, self.context.wire, room.work)

    async def _work(self, work: WorkRun) -> None:
        remember(self.context.journal, work.awarded)
        await work.run()
        self.context.counts["jobs_claimed"] += work.claim is not None
        forget(self.context.journal, work.job)

    # hand-overs -----------------------------------------------------------------------------------------------------

    def _handed_over(self, raw: bytes) -> None:
        """A hand-over by gossip, by hand, or made here. RemoteError when its signatures do not make it one."""
        certificate = open_as(raw, self.context.wire.genesis, HandoverCertificate).message
        room = self.rooms.get(certificate.job)
        if room is None or room.awarded is None:
            return
        self._compare(room, in_handover, certificate, raw)
        awarded = room.awarded
        if room.outcome is not None or certificate.rank <= awarded.rank:
            return
        successor = check_handover(awarded.terms, awarded.certified.award, certificate)
        room.awarded, job, worker = awarded.after(successor, raw), base58(awarded.terms.job), base58(successor.node)
        log.info("handed over", job=job, worker=worker, rank=successor.rank, cause=certificate.reason)
        if room.work is not None:
            room.work.replace(f"handed over to {worker}: {certificate.reason}")
        if room.case is not None:
            room.case.handed_over(room.awarded)
        if successor.node == self.context.wire.me and room.work is None:
            self._start(awarded.terms.job, _nothing, self._take_over, room, room.awarded)

    async def _take_over(self, room: Room, awarded: Awarded) -> None:
        cause = await why_not(self.context, self.rooms, awarded)
        if room.awarded is not awarded or room.outcome is not None:
            return
        if cause:
            log.warning("hand-over not taken", job=base58(awarded.terms.job), cause=cause)
        else:
            self._begin_work(room, awarded)

    def _unsold(self, terms: JobTerms, announce: Signed[JobAnnounce], reason: str) -> None:
        room = self.rooms.get(terms.job)
        if room is not None:
            self._sit(room, terms, None, reason)

    def _sit(self, room: Room, terms: JobTerms, awarded: Awarded | None, reason: str) -> None:
        self.context.counts["seats_taken"] += 1
        room.case = CaseRun(
            self.context, self.data, room.announce, terms, awarded, reason, self._outcome, self._handed_over
        )
        self._start(terms.job, room.case.close, room.case.run)

    def _outcome(self, signed: Signed[Outcome]) -> None:
        room = self.rooms.get(signed.message.job)
        terms = room.auction.terms if room is not None else None
        if room is None or terms is None:
            return
        self._compare(room, in_outcome, signed.message, signed.raw)
        if room.outcome is not None:
            return
        if len(signers(terms, signed.message)) < quorum_for(signed.message.verdict, terms.announce.k):
            log.warning("outcome dropped: too few signatures", job=base58(terms.job), peer=base58(signed.sender))
            return
        room.outcome = signed
        self._keep(room, signed.message)
        room.auction.finish()
        if room.case is not None:
            room.case.apply(verification.OutcomeSeen())
        if room.work is not None and not room.work.replaced:
            verdict = Verdict(signed.message.verdict).name
            self.context.counts["jobs_settled" if verdict == Verdict.OK.name else f"jobs_failed/{verdict}"] += 1
            log.info("outcome", job=base58(terms.job), verdict=verdict, cause=signed.message.reason)
            room.work.stop()
        self.context.blobs.drop_states(terms.job)

    def _keep(self, room: Room, outcome: Outcome) -> None:
        """What was paid for, should its requester be gone."""
        claim, awarded = room.claim, room.awarded
        if claim is None or awarded is None or result_hash(claim.message) != outcome.result_hash:
            return
        kept = KeptClaim(
            requester=room.announce.sender,
            at_ms=self.context.wire.clock.unix_ms(),
            certificate=awarded.raw,
            claim=claim.raw,
            handover=awarded.handover,
        )
        try:
            keep_claim(self.context.journal, awarded.terms.job, kept)
        except LocalError as error:
            log.warning("claim not kept", job=base58(awarded.terms.job), cause=str(error))

    # after a restart ------------------------------------------------------------------------------------------------

    def _own_up(self) -> None:
        for awarded in unfinished(self.context.journal, self.context.wire.genesis):
            self._start(awarded.terms.job, _nothing, self._give_up, awarded)

    async def _give_up(self, awarded: Awarded) -> None:
        """Tell the parties of an award from before a restart that nothing will come of it."""
        job = awarded.terms.job
        account = await self.context.chain.job(job)
        if account is not None and account.state is not JobState.SETTLED:
            log.warning("award given up", job=base58(job), cause="this node restarted")
            self.context.wire.transport.learn(awarded.announce.sender, awarded.announce.message.addresses)
            await WorkRun(self.context, self.data, awarded).give_up("the worker's node restarted")
        self.context.blobs.drop_states(job)
        forget(self.context.journal, job)


def _nothing() -> None:
    """A task whose defect ends nothing but itself."""
