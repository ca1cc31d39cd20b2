"""A committee member's side of a job: replay, verdict, settlement (DESIGN 7, 8).

One CaseRun per seat. It feeds the verification machine and carries out what it decides; what fails on our own side
(disk, memory, our process) convicts nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol import codec
from ..protocol.award import JobTerms
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import ExecutionFailed, LocalError, PeerUnreachable, Refusal, RemoteError, TransientError
from ..protocol.hashing import trace_digest, verdict_commitment
from ..protocol.limits import (
    CONFIRM_TIMEOUT_S,
    PREPARE_DELAY_S,
    REPLAY_TRIES_MAX,
    START_LEASE_MS,
    VERDICT_REVEAL_WAIT_MS,
)
from ..protocol.messages import (
    Claim,
    JobAnnounce,
    Opening,
    OpenRequest,
    Outcome,
    SettleProposal,
    SettleVote,
    SpecAnswer,
    SpecRequest,
    VerdictBody,
    VerdictCommit,
    VerdictReveal,
)
from ..protocol.settlement import NO_SEAL, quorum_for, result_hash
from ..protocol.units import JobId, NodeId, base58
from . import verification as machine
from .auction_voting import Awarded, sampling_nonce
from .case_checks import blames_requester, failure_of, judge_reveal
from .checker_choice import checker_for, impossible, units_of
from .checking import Checker, CheckReport, samples_of
from .context import NodeContext
from .data_service import DataService
from .settlement_service import Settler, proposal_of, settlement_of_proposal
from .supervision import contained, supervised
from .task_fetch import Task, TaskSearch, fetch_task
from .traces import opening_fits, traces_of
from .wire import COMMIT, NOT_YET, OPEN, REVEAL

log = structlog.get_logger()


@dataclass(slots=True)
class CaseRun:
    """The shell around one verification. `awarded` is None when the auction found no winner."""

    context: NodeContext
    data: DataService
    announce: Signed[JobAnnounce]
    terms: JobTerms
    awarded: Awarded | None
    unsold_reason: str
    on_outcome: Callable[[Signed[Outcome]], None]
    state: machine.Case = field(init=False)
    claim: Signed[Claim] | None = None
    _settler: Settler = field(init=False)
    _search: TaskSearch = field(init=False)
    _first: list[machine.Effect] = field(default_factory=list)
    _task: Task | None = None
    _checker: Checker | None = None
    _report: CheckReport = field(default_factory=lambda: CheckReport(False))
    _body: bytes = b""
    _traces: list[bytes] | None = None
    """What the worker opened."""
    _early_reveals: dict[NodeId, Signed[VerdictReveal]] = field(default_factory=dict)
    _poke: trio.Event = field(default_factory=trio.Event)
    _closed: bool = False

    def __post_init__(self) -> None:
        self._settler = Settler(self.context, self.terms, self.announce.sender)
        if self.awarded is None:
            self.state, self._first = machine.open_unsold(self._case_terms(), self.unsold_reason, self._now())
        else:
            self.state = machine.open_case(self._case_terms(), self._now())
            self._search = TaskSearch(self.context, self.data, self.awarded)

    @property
    def job(self) -> JobId:
        return self.terms.job

    def _now(self) -> int:
        return self.context.wire.clock.monotonic_ms()

    def _case_terms(self) -> machine.CaseTerms:
        announce, clock = self.announce.message, self.context.wire.clock
        deadline_ms = self._now() + max(0, announce.work_deadline_s * 1000 - clock.unix_ms())
        return machine.CaseTerms(
            job=self.job,
            me=self.context.wire.me,
            committee=self.terms.committee,
            m=self.terms.m,
            worker=self.awarded.certified.winner if self.awarded else NodeId(bytes(32)),
            price=self.awarded.certified.price if self.awarded else 0,
            units=announce.units,
            deadline_ms=deadline_ms,
            lease_ms=START_LEASE_MS + 2 * announce.round_ms,
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

    # what the worker and the members say ----------------------------------------------------------------------------

    def started(self, sender: NodeId) -> None:
        """The winner's StartNotice: our own worker process will be needed, though not at once."""
        self._from_worker(sender)
        if self.state.phase is machine.Phase.AWARDED:
            self._start(self._prepare)
        self.apply(machine.WorkerStarted(self._now()))

    async def _prepare(self) -> None:
        if self.announce.message.kind == "train":
            await trio.sleep(PREPARE_DELAY_S)
        self.context.prepare(self.announce.message)

    def claimed(self, signed: Signed[Claim]) -> None:
        """The winner's claim; one that contradicts the announce counts as the worker's failure."""
        self._from_worker(signed.sender)
        if self.claim is not None:
            return
        self.claim = signed
        claim = signed.message
        failure, units = failure_of(claim, self.terms, signed.sender), units_of(claim)
        self.apply(machine.ClaimReceived(result_hash(claim), failure, self._now(), blames_requester(claim), units))

    def _from_worker(self, sender: NodeId) -> None:
        if self.awarded is None or sender != self.awarded.certified.winner:
            raise Refusal("not the winner of this job", peer=sender)

    async def give_spec(self, signed: Signed[SpecRequest]) -> SpecAnswer:
        """The spec for a worker whom the requester did not answer: we ask the requester for it."""
        self._from_worker(signed.sender)
        if not self._search.begun:
            self._start(self._search.run)
        return self._search.answer()

    def commit_received(self, signed: Signed[VerdictCommit]) -> None:
        """A member sealed its verdict."""
        self.apply(machine.CommitReceived(self.terms.member(signed.sender), signed.raw, self._now()))

    def reveal_received(self, signed: Signed[VerdictReveal]) -> None:
        """A member opened its verdict; it is judged once the worker opened the traces to us."""
        member = self.terms.member(signed.sender)
        if self._traces is None or self.awarded is None:
            self._early_reveals.setdefault(member, signed)
            return
        finding, reason = judge_reveal(self.terms, self.awarded.certified, self.state.commits, self._traces, signed)
        self.apply(machine.FindingRevealed(member, finding, reason, self._now()))

    async def judge_settlement(self, signed: Signed[SettleProposal]) -> SettleVote:
        """Answer a leader with our signature, or refuse with the reason."""
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
                case machine.ReplaySamples():
                    self._start(self._replay_samples)
                case machine.SeekTask():
                    self._start(self._seek_task)
                case machine.SendCommit(finding):
                    self._start(self._send_commit, finding)
                case machine.AskOpening(commits):
                    self._start(self._ask_opening, commits)
                case machine.SendReveal():
                    self._start(self._send_reveal)
                case machine.ReplayDisputed(segment):
                    self._start(self._replay_disputed, segment)
                case machine.ProposeSettlement():
                    self._start(self._propose_settlement, effect)
                case machine.GiveUp(reason):
                    log.warning("verification given up", job=base58(self.job), cause=reason)

    def _start(self, action: Callable[..., Awaitable[object]], *arguments: object) -> None:
        self.context.nursery.start_soon(supervised, self.job, self.close, action, *arguments)

    def _nonce(self) -> bytes:
        return sampling_nonce(self.context, self.job)

    async def _checks(self) -> Checker:
        """What checks the claim; the same from the first check to the last."""
        if self.awarded is None or self.claim is None:
            raise Refusal("there is nothing to replay yet")
        if self._checker is None:
            self._task = self._search.task or await fetch_task(self.context, self.data, self.awarded)
            self._checker = checker_for(self.context, self.data, self.claim, self._task)
        return self._checker

    async def _seek_task(self) -> None:
        found, reason = await self._search.run(), ""
        if found and self.claim is not None and self.claim.message.final_status == "invalid":
            reason = await impossible(self.context, self._search.task)
        self.apply(machine.TaskSought(found and not reason, self._now(), reason))

    async def _replay_samples(self) -> None:
        samples = samples_of(self.terms, self.context.wire.me, self._nonce())
        for attempt in range(1, REPLAY_TRIES_MAX + 1):
            try:
                report = await (await self._checks()).check(samples)
                break
            except (RemoteError, PeerUnreachable) as error:
                report = CheckReport(False, reason=str(error))
                break
            except (ExecutionFailed, LocalError, TransientError) as error:
                # our own process, disk or model server failed, which says nothing of the worker
                log.warning("replay failed here", job=base58(self.job), attempt=attempt, cause=str(error))
                if attempt == REPLAY_TRIES_MAX:
                    raise
        self._report = report
        self.apply(
            machine.SamplesReplayed(report.ok, report.mismatch_segment, report.reason, self._now(), report.conviction)
        )

    async def _replay_disputed(self, segment: int) -> None:
        """A worker that does not serve the accused segment is convicted; what fails on our side convicts nobody."""
        mismatch, conviction = False, None
        try:
            report = await (await self._checks()).check_segment(segment)
            mismatch, conviction = not report.ok, report.conviction
        except (RemoteError, PeerUnreachable) as error:
            log.warning("accused segment not served", job=base58(self.job), segment=segment, cause=str(error))
            mismatch = True
        finally:
            self.apply(machine.DisputeReplayed(segment, mismatch, self._now(), conviction))

    async def _send_commit(self, finding: machine.Finding) -> None:
        me = self.context.wire.me
        body = VerdictBody(
            ok=finding.ok,
            mismatch_segment=finding.mismatch_segment,
            trace_digest=trace_digest(me, self._report.traces),
            reason=self._report.reason[:500],
        )
        self._body = codec.encode(body)
        self.context.counts["verdicts/ok" if finding.ok else "verdicts/refuted"] += 1
        commitment = verdict_commitment(self.job, me, self._nonce(), self._body)
        raw = self.context.wire.seal(VerdictCommit(job=self.job, commitment=commitment))
        self.apply(machine.CommitReceived(me, raw, self._now()))
        await self.context.wire.tell_all(self.terms.committee, COMMIT, raw, within_s=CONFIRM_TIMEOUT_S)

    async def _ask_opening(self, commits: tuple[bytes, ...]) -> None:
        checker = await self._checks()
        worker, request = checker.claim.sender, OpenRequest(job=self.job, commits=commits)
        try:
            opening = await self.context.wire.ask(
                worker, OPEN, request, Opening, within_s=VERDICT_REVEAL_WAIT_MS / 1000
            )
        except RemoteError as error:
            log.warning("traces not opened", job=base58(self.job), cause=str(error))
            self.apply(machine.TracesOpened("the worker did not open its traces", self._now()))
            return
        refuted = self._refuted(checker, opening.message)
        self.apply(machine.TracesOpened(refuted, self._now()))
        early, self._early_reveals = self._early_reveals, {}
        for signed in early.values():
            contained(self.reveal_received, signed)

    def _refuted(self, checker: Checker, opening: Opening) -> str:
        """Why an opening convicts the worker, or ''; then its traces are kept."""
        sizes = checker.sizes()
        if not opening_fits(opening, sizes, checker.claim.message.traces):
            return "the worker did not open the traces that it committed to"
        traces = traces_of(opening, sizes)
        drawn = [traces[segment] for segment in samples_of(self.terms, self.context.wire.me, self._nonce())]
        if self._report.ok and drawn != self._report.traces:
            return "the traces that the worker opened are not those of the work"
        self._traces = traces
        return ""

    async def _send_reveal(self) -> None:
        raw = self.context.wire.seal(VerdictReveal(job=self.job, nonce=self._nonce(), body=self._body))
        self.reveal_received(open_as(raw, self.terms.genesis, VerdictReveal))
        await self.context.wire.tell_all(self.terms.committee, REVEAL, raw, within_s=VERDICT_REVEAL_WAIT_MS / 1000)

    async def _propose_settlement(self, effect: machine.ProposeSettlement) -> None:
        settlement, round_, me = effect.settlement, effect.round, self.context.wire.me
        proposal = proposal_of(self.terms, effect)
        proof = (proposal.segment, proposal.replayed)
        self.state, agreed, reason = machine.judge_settlement(self.state, me, round_, settlement, proof)
        if not agreed:
            raise Refusal(reason)
        signatures = await self._settler.collect(proposal)
        if len(signatures) < quorum_for(settlement.verdict, self.announce.message.k):
            return
        seal = self.claim.message.seal if self.claim is not None else NO_SEAL
        outcome = await self._settler.submit(proposal, signatures, seal)
        if outcome is not None:
            self.on_outcome(outcome)
            await self._settler.tell(outcome)
