"""A committee member's side of a job: hear the worker, hand over, settle (DESIGN 5, 7, 8).

One CaseRun per seat: it feeds the verification machine and does what that decides, with a ClaimCheck for each worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol.award import JobTerms
from ..protocol.envelope import Signed
from ..protocol.errors import Refusal
from ..protocol.handover import ladder
from ..protocol.limits import PREPARE_DELAY_S, START_LEASE_MS
from ..protocol.messages import (
    Claim,
    HandoverProposal,
    HandoverVote,
    JobAnnounce,
    Outcome,
    SettleProposal,
    SettleVote,
    SpecAnswer,
    SpecRequest,
    VerdictCommit,
    VerdictReveal,
)
from ..protocol.settlement import NO_SEAL, NOBODY, quorum_for, result_hash
from ..protocol.units import JobId, NodeId, base58
from . import verification as machine
from .auction_voting import Awarded
from .case_checks import blames_requester, failure_of, owns_up
from .checker_choice import units_of
from .claim_check import ClaimCheck
from .context import NodeContext
from .data_service import DataService
from .handover_service import Handovers
from .settlement_service import Settler, proposal_of, settlement_of_proposal
from .supervision import supervised
from .wire import NOT_YET

log = structlog.get_logger()


@dataclass(slots=True)
class CaseRun:
    """The shell around one verification. `awarded` is None when the auction found no winner. `on_handover` gets the
    envelope of a certificate that we made."""

    context: NodeContext
    data: DataService
    announce: Signed[JobAnnounce]
    terms: JobTerms
    awarded: Awarded | None
    unsold_reason: str
    on_outcome: Callable[[Signed[Outcome]], None]
    on_handover: Callable[[bytes], None]
    state: machine.Case = field(init=False)
    _check: ClaimCheck | None = None
    _settler: Settler = field(init=False)
    _first: list[machine.Effect] = field(default_factory=list)
    _poke: trio.Event = field(default_factory=trio.Event)
    _closed: bool = False

    def __post_init__(self) -> None:
        self._settler = Settler(self.context, self.terms, self.announce.sender)
        if self.awarded is None:
            self.state, self._first = machine.open_unsold(self._case_terms(), self.unsold_reason, self._now())
        else:
            self.state = machine.open_case(self._case_terms(), self._now())
            self._check = self._check_of(self.awarded)

    @property
    def job(self) -> JobId:
        return self.terms.job

    @property
    def worker(self) -> NodeId:
        """Whom this member takes for the job's worker."""
        return self.state.terms.worker

    @property
    def claim(self) -> Signed[Claim] | None:
        """The present worker's, if it came."""
        return self._check.claim if self._check is not None else None

    def _now(self) -> int:
        return self.context.wire.clock.monotonic_ms()

    def _check_of(self, awarded: Awarded) -> ClaimCheck:
        return ClaimCheck(self.context, self.data, awarded, self.apply, lambda: self.state.commits, self.close)

    def _case_terms(self) -> machine.CaseTerms:
        announce, clock, awarded = self.announce.message, self.context.wire.clock, self.awarded
        left_ms = max(0, announce.work_deadline_s * 1000 - clock.unix_ms())
        return machine.CaseTerms(
            job=self.job,
            me=self.context.wire.me,
            committee=self.terms.committee,
            m=self.terms.m,
            worker=awarded.certified.winner if awarded else NOBODY,
            price=awarded.certified.price if awarded else 0,
            units=announce.units,
            deadline_ms=self._now() + left_ms,
            lease_ms=START_LEASE_MS + 2 * announce.round_ms,
            ladder=ladder(announce, awarded.certified.award) if awarded else (),
        )

    async def run(self) -> None:
        """From the award, or from the word that there is none, to the settlement."""
        self._perform(self._first)
        while not self._closed:
            wake_ms = machine.next_wake_ms(self.state)
            self._poke = trio.Event()
            seconds = 3600.0 if wake_ms is None else max(0.0, (wake_ms - self._now()) / 1000)
            with trio.move_on_after(seconds):
                await self._poke.wait()
                continue
            self.apply(machine.TimePassed(self._now()))
        log.info("case closed", job=base58(self.job))

    def close(self) -> None:
        """End, because the outcome is known or because something here broke."""
        self._closed = True
        self._poke.set()

    def apply(self, stimulus: machine.Stimulus) -> None:
        """Feed the machine."""
        before = self.state.phase
        self.state, effects = machine.step(self.state, stimulus)
        if self.state.phase is not before:
            cause = self.state.reason or type(stimulus).__name__
            log.info("verification", job=base58(self.job), phase=self.state.phase.name, cause=cause)
        self._perform(effects)
        if self.state.phase in (machine.Phase.CLOSED, machine.Phase.GIVEN_UP):
            self._closed = True
        self._poke.set()

    # what the worker says -------------------------------------------------------------------------------------------

    def started(self, sender: NodeId) -> None:
        """The worker's StartNotice: our own worker process will be needed, though not at once."""
        check = self._of_worker(sender)
        self._hear_worker()
        if self.state.phase is machine.Phase.AWARDED:
            check.start(self._prepare)
        self.apply(machine.WorkerStarted(self._now()))

    async def _prepare(self) -> None:
        if self.announce.message.kind == "train":
            await trio.sleep(PREPARE_DELAY_S)
        self.context.prepare(self.announce.message)

    def claimed(self, signed: Signed[Claim]) -> None:
        """The worker's claim; one that contradicts the announce counts as its failure."""
        check, claim = self._of_worker(signed.sender), signed.message
        if check.claim is not None:
            return
        if not owns_up(claim):
            self._hear_worker()
        check.claim = signed
        failure, units = failure_of(claim, self.terms, signed.sender), units_of(claim)
        blames, now_ms = blames_requester(claim), self._now()
        self.apply(machine.ClaimReceived(result_hash(claim), failure, now_ms, blames, units, owns_up(claim)))

    def _of_worker(self, sender: NodeId) -> ClaimCheck:
        """The check of the present worker; who may yet become it is early."""
        if self.awarded is None or self._check is None:
            raise Refusal("nobody won this job", peer=sender)
        if sender == self._check.worker:
            return self._check
        if self.awarded.certified.rank_of(sender) > self.awarded.rank:
            raise Refusal(NOT_YET + "no hand-over to this node is known here", peer=sender)
        raise Refusal("not the worker of this job", peer=sender)

    def _hear_worker(self) -> None:
        """Refusal while we are bound to hand over: afterwards the worker may be one that we hear again."""
        if machine.is_bound(self.state):
            raise Refusal(NOT_YET + "the members decide whether another node takes over")

    async def give_spec(self, signed: Signed[SpecRequest]) -> SpecAnswer:
        """The spec for a worker whom the requester did not answer."""
        return await self._of_worker(signed.sender).give_spec()

    # what the members say -------------------------------------------------------------------------------------------

    def commit_received(self, signed: Signed[VerdictCommit]) -> None:
        """A member sealed its verdict."""
        self.apply(machine.CommitReceived(self.terms.member(signed.sender), signed.raw, self._now()))

    def reveal_received(self, signed: Signed[VerdictReveal]) -> None:
        """A member opened its verdict."""
        self.terms.member(signed.sender)
        if self._check is not None:
            self._check.reveal_received(signed)

    async def judge_handover(self, signed: Signed[HandoverProposal]) -> HandoverVote:
        """Answer a leader with our signature under a hand-over, or refuse with the reason."""
        asked = signed.message
        self.terms.member(signed.sender)
        if self.awarded is None or not 0 < asked.rank < len(self.state.terms.ladder):
            raise Refusal("nobody is of this rank here")
        handovers, successor = Handovers(self.context, self.awarded), self.state.terms.ladder[asked.rank]
        if asked.digest != handovers.digest(successor):
            raise Refusal("our award gives another successor or price")
        early = machine.may_come(self.state, asked.rank)
        self.state, agreed, reason = machine.judge_handover(self.state, signed.sender, asked.rank, asked.round)
        if not agreed:
            raise Refusal(NOT_YET + reason if early else reason)
        signature = handovers.sign(successor, asked.round)
        return HandoverVote(job=self.job, rank=asked.rank, round=asked.round, signature=signature)

    def handed_over(self, awarded: Awarded) -> None:
        """A certificate names the next worker: begin anew with it, unless our verdict is sealed."""
        self.apply(machine.HandedOver(awarded.rank, self._now()))
        if self.state.rank != awarded.rank or self._check is None:
            return
        former, self._check, self.awarded = self._check, self._check_of(awarded), awarded
        self._check.early_reveals.update(former.early_reveals)
        former.end()

    async def judge_settlement(self, signed: Signed[SettleProposal]) -> SettleVote:
        """Answer a leader with our signature under a settlement, or refuse with the reason."""
        proposal = signed.message
        asked, round_ = settlement_of_proposal(proposal), proposal.round
        self.terms.member(signed.sender)
        if self.state.decision is None:
            raise Refusal(NOT_YET + "no decision here")
        if machine.lacks_proof(self.state, asked, proposal.segment):
            self.apply(machine.SegmentAccused(proposal.segment, self._now()))
            raise Refusal(f"{NOT_YET}segment {proposal.segment} is not replayed here")
        proof = (proposal.segment, proposal.replayed)
        self.state, agreed, reason = machine.judge_settlement(self.state, signed.sender, round_, asked, proof)
        if not agreed:
            raise Refusal(reason)
        return SettleVote(job=self.job, round=round_, signature=self._settler.sign(round_, asked))

    # effects --------------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[machine.Effect]) -> None:
        for effect in effects:
            match effect:
                case machine.ProposeHandover():
                    self._start(self._propose_handover, effect)
                case machine.ProposeSettlement():
                    self._start(self._propose_settlement, effect)
                case machine.GiveUp(reason):
                    log.warning("verification given up", job=base58(self.job), cause=reason)
                case _ if self._check is not None:
                    _pursue(self._check, effect)

    def _start(self, action: Callable[..., Awaitable[object]], *arguments: object) -> None:
        self.context.nursery.start_soon(supervised, self.job, self.close, action, *arguments)

    async def _propose_handover(self, effect: machine.ProposeHandover) -> None:
        me, awarded, former = self.context.wire.me, self.awarded, self.worker
        self.state, agreed, reason = machine.judge_handover(self.state, me, effect.rank, effect.round)
        if not agreed or awarded is None:
            raise Refusal(reason)
        handovers, successor = Handovers(self.context, awarded), self.state.terms.ladder[effect.rank]
        raw = await handovers.certify(successor, effect.round, effect.reason)
        if raw is not None:
            self.on_handover(raw)
            await handovers.tell(raw, former, successor)

    async def _propose_settlement(self, effect: machine.ProposeSettlement) -> None:
        settlement, round_, me = effect.settlement, effect.round, self.context.wire.me
        proposal = proposal_of(self.terms, effect)
        proof = (proposal.segment, proposal.replayed)
        self.state, agreed, reason = machine.judge_settlement(self.state, me, round_, settlement, proof)
        if not agreed:
            raise Refusal(reason)
        rank, signatures = self.state.rank, await self._settler.collect(proposal)
        undone = self.state.decision is None or self.state.rank != rank
        if undone or len(signatures) < quorum_for(settlement.verdict, self.announce.message.k):
            return
        seal = self._check.seal if self._check is not None else NO_SEAL
        outcome = await self._settler.submit(proposal, signatures, seal)
        if outcome is not None:
            self.on_outcome(outcome)
            await self._settler.tell(outcome)


def _pursue(check: ClaimCheck, effect: machine.Effect) -> None:
    """Carry out what concerns the claim of the present worker."""
    match effect:
        case machine.ReplaySamples():
            check.start(check.replay_samples)
        case machine.SeekTask():
            check.start(check.seek_task)
        case machine.SendCommit(finding):
            check.start(check.send_commit, finding)
        case machine.AskOpening(commits):
            check.start(check.ask_opening, commits)
        case machine.SendReveal():
            check.start(check.send_reveal)
        case machine.ReplayDisputed(segment):
            check.start(check.replay_disputed, segment)
