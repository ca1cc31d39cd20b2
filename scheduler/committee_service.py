"""A committee member's side of a job: replay, verdict, settlement (DESIGN 7, 8).

One CaseRun per seat. It feeds the verification machine and carries out what it decides; the quorum's signatures are
journaled before they leave, and the round's leader submits the settlement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol import codec
from ..protocol.award import JobTerms
from ..protocol.chain import JobState, Settle, Verdict
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import ChainRejected, CyxError, ExecutionFailed, Refusal, RemoteError
from ..protocol.hashing import (
    QuorumKind,
    nonce_commitment,
    sample_segments,
    trace_digest,
    verdict_commitment,
)
from ..protocol.identity import verify
from ..protocol.limits import CONFIRM_TIMEOUT_S, SETTLE_ROUND_MS, VERDICT_REVEAL_WAIT_MS
from ..protocol.messages import (
    JobAnnounce,
    Opening,
    OpenRequest,
    Outcome,
    ResultClaim,
    SettleProposal,
    SettleVote,
    VerdictBody,
    VerdictCommit,
    VerdictReveal,
)
from ..protocol.ports import TrainTask
from ..protocol.settlement import Settlement, result_hash, settle_message
from ..protocol.units import JobId, MicroCyx, NodeId, base58
from ..protocol.validation import market_topic
from . import verification as machine
from .auction_service import Awarded
from .context import NodeContext
from .data_service import DataService
from .quorum_signer import sign_quorum
from .replay import Replayer, ReplayReport
from .wire import COMMIT, NOT_YET, OPEN, REVEAL, SETTLE
from .worker_service import fetch_task, opening_fits, traces_of

VOTE_RETRY_S = 0.2

log = structlog.get_logger()


@dataclass(slots=True)
class CaseRun:
    """The shell around one verification. `awarded` is None when the auction found no winner."""

    context: NodeContext
    data: DataService
    announce: Signed[JobAnnounce]
    terms: JobTerms
    awarded: Awarded | None
    on_closed: Callable[[JobId], None]
    state: machine.Case | None = None
    claim: Signed[ResultClaim] | None = None
    _task: TrainTask | None = None
    _report: ReplayReport | None = None
    _body: bytes = b""
    _opening: Opening | None = None
    _early_reveals: list[Signed[VerdictReveal]] = field(default_factory=list)
    _poke: trio.Event = field(default_factory=trio.Event)
    _closed: bool = False

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
            units=announce.segments,
            deadline_ms=deadline_ms,
        )

    async def run(self, unsold_reason: str = "") -> None:
        """From the award, or from the word that there is none, to the settlement."""
        if self.awarded is None:
            self.state, effects = machine.open_unsold(self._case_terms(), unsold_reason, self._now())
            self._perform(effects)
        else:
            self.state = machine.open_case(self._case_terms(), self._now())
        while not self._closed:
            wake_ms = machine.next_wake_ms(self.state)
            self._poke = trio.Event()
            seconds = 3600.0 if wake_ms is None else max(0.0, (wake_ms - self._now()) / 1000)
            with trio.move_on_after(seconds):
                await self._poke.wait()
                continue
            self.apply(machine.TimePassed(self._now()))
        self.on_closed(self.job)

    def apply(self, stimulus: machine.Stimulus) -> None:
        """Feed the machine."""
        if self.state is None:
            return
        before = self.state.phase
        self.state, effects = machine.step(self.state, stimulus)
        if self.state.phase is not before:
            cause = self.state.reason or type(stimulus).__name__
            log.info("verification", job=base58(self.job), phase=self.state.phase.name, cause=cause)
        self._perform(effects)
        self._closed = self.state.phase in (machine.Phase.CLOSED, machine.Phase.GIVEN_UP)
        self._poke.set()

    # what the worker and the members say ----------------------------------------------------------------------------

    def started(self, sender: NodeId) -> None:
        """The winner's StartNotice."""
        self._from_worker(sender)
        self.apply(machine.WorkerStarted(self._now()))

    def claimed(self, signed: Signed[ResultClaim]) -> None:
        """The winner's claim; one that contradicts the announce counts as the worker's failure."""
        self._from_worker(signed.sender)
        if self.claim is not None:
            return
        self.claim, claim, announce = signed, signed.message, self.announce.message
        failure = claim.message if claim.final_status == "failed" else None
        if failure is None and (claim.spec_hash, claim.execution_class) != (
            announce.spec_hash,
            announce.execution_class,
        ):
            failure = "the claim is for another spec or execution class"
        if failure is None and (len(claim.states), len(claim.traces)) != (announce.segments + 1, announce.segments):
            failure = "the claim has another number of segments"
        self.apply(machine.ClaimReceived(result_hash(claim), failure, self._now()))

    def _from_worker(self, sender: NodeId) -> None:
        if self.awarded is None or sender != self.awarded.certified.winner:
            raise Refusal("not the winner of this job", peer=sender)

    def commit_received(self, signed: Signed[VerdictCommit]) -> None:
        """A member sealed its verdict."""
        self.apply(machine.CommitReceived(self.terms.member(signed.sender), signed.raw, self._now()))

    def reveal_received(self, signed: Signed[VerdictReveal]) -> None:
        """A member opened its verdict; it is judged once the worker opened the traces to us."""
        self.terms.member(signed.sender)
        if self._opening is None:
            if len(self._early_reveals) < len(self.terms.committee):
                self._early_reveals.append(signed)
            return
        finding, reason = self._judge_reveal(signed, self._opening)
        self.apply(machine.FindingRevealed(signed.sender, finding, reason, self._now()))

    def _judge_reveal(self, signed: Signed[VerdictReveal], opening: Opening) -> tuple[machine.Finding, str]:
        """A verdict counts if it was sealed, drawn with the promised nonce, and proves its replays."""
        assert self.state is not None and self.awarded is not None and self._task is not None
        member, reveal = signed.sender, signed.message
        body = codec.decode(reveal.body, VerdictBody, max_bytes=2048)
        sealed = self.state.commits.get(member)
        promised = self.awarded.certified.nonce_commitments.get(member)
        counted = (
            sealed is not None
            and promised == nonce_commitment(self.job, member, reveal.nonce)
            and open_as(sealed, self.terms.genesis, VerdictCommit).message.commitment
            == verdict_commitment(self.job, member, reveal.nonce, reveal.body)
        )
        if counted and body.ok:
            losses = traces_of(opening, self._task.spec)
            drawn = self._samples(member, reveal.nonce)
            counted = body.trace_digest == trace_digest(member, [losses[i] for i in drawn])
        if not counted:
            log.warning("verdict not counted", job=base58(self.job), peer=base58(member))
        segment = body.mismatch_segment if body.mismatch_segment < self.announce.message.segments else -1
        return machine.Finding(body.ok, segment, counted), body.reason

    def _samples(self, member: NodeId, nonce: bytes) -> list[int]:
        announce = self.announce.message
        return sample_segments(self.job, member, nonce, announce.segments, announce.samples)

    async def judge_settlement(self, signed: Signed[SettleProposal]) -> SettleVote:
        """Answer a leader with our signature, or refuse with the reason."""
        asked, round_ = settlement_of_proposal(signed.message), signed.message.round
        if self.state is None or self.state.decision is None:
            raise Refusal(NOT_YET + "no decision here")
        self.state, agreed, reason = machine.judge_settlement(self.state, signed.sender, round_, asked)
        if not agreed:
            raise Refusal(reason)
        return SettleVote(job=self.job, round=round_, signature=self._sign(round_, asked))

    def _sign(self, round_: int, settlement: Settlement) -> bytes:
        context = self.context
        return sign_quorum(
            context.wire.key, context.journal, QuorumKind.SETTLE, 0, round_, self.terms.context, settlement.digest
        )

    # effects --------------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[machine.Effect]) -> None:
        for effect in effects:
            match effect:
                case machine.ReplaySamples():
                    self._start(self._replay_samples)
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

    def _start(self, action: Callable[..., object], *arguments: object) -> None:
        self.context.nursery.start_soon(self._safely, action, *arguments)

    async def _safely(self, action: Callable[..., object], *arguments: object) -> None:
        try:
            await action(*arguments)  # type: ignore[misc]
        except CyxError as error:
            log.warning("effect failed", job=base58(self.job), effect=action.__name__, cause=str(error))

    def _nonce(self) -> bytes:
        nonce = self.context.journal.get(b"nonce/" + self.job)
        if nonce is None:
            raise Refusal("we did not vote for this award, so no nonce was promised")
        return nonce

    async def _replayer(self) -> Replayer:
        assert self.awarded is not None and self.claim is not None
        if self._task is None:
            self._task = await fetch_task(self.context, self.data, self.awarded)
        return Replayer(self.context.runner, self.data, self.claim, self._task)

    async def _replay_samples(self) -> None:
        try:
            replayer = await self._replayer()
            self._report = await replayer.check(self._samples(self.context.wire.me, self._nonce()))
        except ExecutionFailed as error:
            log.error("no verdict: our own replay died", job=base58(self.job), cause=str(error))
            return
        except CyxError as error:
            self._report = ReplayReport(False, -1, str(error), [])
        report = self._report
        self.apply(machine.SamplesReplayed(report.ok, report.mismatch_segment, report.reason, self._now()))

    async def _replay_disputed(self, segment: int) -> None:
        try:
            report = await (await self._replayer()).check_segment(segment)
            mismatch = not report.ok
        except CyxError as error:
            log.warning("dispute not replayed", job=base58(self.job), segment=segment, cause=str(error))
            mismatch = False
        self.apply(machine.DisputeReplayed(segment, mismatch, self._now()))

    async def _send_commit(self, finding: machine.Finding) -> None:
        assert self._report is not None
        me = self.context.wire.me
        body = VerdictBody(
            ok=finding.ok,
            mismatch_segment=finding.mismatch_segment,
            trace_digest=trace_digest(me, self._report.losses),
            reason=self._report.reason[:500],
        )
        self._body = codec.encode(body)
        commitment = verdict_commitment(self.job, me, self._nonce(), self._body)
        raw = self.context.wire.seal(VerdictCommit(job=self.job, commitment=commitment))
        self.apply(machine.CommitReceived(me, raw, self._now()))
        await self.context.wire.tell_all(self.terms.committee, COMMIT, raw, within_s=CONFIRM_TIMEOUT_S)

    async def _ask_opening(self, commits: tuple[bytes, ...]) -> None:
        assert self.awarded is not None and self.claim is not None
        try:
            opening = await self.context.wire.ask(
                self.awarded.certified.winner,
                OPEN,
                OpenRequest(job=self.job, commits=commits),
                Opening,
                within_s=VERDICT_REVEAL_WAIT_MS / 1000,
            )
        except RemoteError as error:
            log.warning("traces not opened", job=base58(self.job), cause=str(error))
            self.apply(machine.TracesOpened(False, self._now()))
            return
        task = (await self._replayer()).task
        self._opening = opening.message
        valid = opening_fits(opening.message, task.spec, self.claim.message.traces)
        self.apply(machine.TracesOpened(valid, self._now()))
        early, self._early_reveals = self._early_reveals, []
        for signed in early:
            self.reveal_received(signed)

    async def _send_reveal(self) -> None:
        raw = self.context.wire.seal(VerdictReveal(job=self.job, nonce=self._nonce(), body=self._body))
        self.reveal_received(open_as(raw, self.terms.genesis, VerdictReveal))
        await self.context.wire.tell_all(self.terms.committee, REVEAL, raw, within_s=VERDICT_REVEAL_WAIT_MS / 1000)

    # settlement -----------------------------------------------------------------------------------------------------

    async def _propose_settlement(self, effect: machine.ProposeSettlement) -> None:
        assert self.state is not None
        settlement, round_ = effect.settlement, effect.round
        signatures: dict[NodeId, bytes] = {}
        self.state, agreed, reason = machine.judge_settlement(self.state, self.context.wire.me, round_, settlement)
        if not agreed:
            raise Refusal(reason)
        signatures[self.context.wire.me] = self._sign(round_, settlement)
        proposal = proposal_of(self.job, round_, settlement, effect.reason)
        with trio.move_on_after(SETTLE_ROUND_MS / 1000):
            async with trio.open_nursery() as nursery:
                for member in self.terms.committee:
                    if member != self.context.wire.me:
                        nursery.start_soon(
                            self._safely, self._collect, member, proposal, settlement, signatures, nursery.cancel_scope
                        )
        if len(signatures) >= self.terms.m:
            await self._submit(round_, settlement, signatures, effect.reason)

    async def _collect(
        self,
        member: NodeId,
        proposal: SettleProposal,
        settlement: Settlement,
        signatures: dict[NodeId, bytes],
        scope: trio.CancelScope,
    ) -> None:
        vote = await self.context.wire.ask(member, SETTLE, proposal, SettleVote, within_s=SETTLE_ROUND_MS / 1000)
        message = settle_message(self.terms, proposal.round, settlement)
        if vote.message.round != proposal.round or not verify(member, message, vote.message.signature):
            raise RemoteError("settlement vote has a wrong signature", peer=member)
        signatures[member] = vote.message.signature
        if len(signatures) >= self.terms.m:
            scope.cancel()

    async def _submit(self, round_: int, settlement: Settlement, signatures: dict[NodeId, bytes], reason: str) -> None:
        chosen = tuple(sorted(signatures.items()))[: self.terms.m]
        instruction = Settle(
            job=self.job,
            verdict=settlement.verdict,
            worker=settlement.worker,
            price=MicroCyx(settlement.price),
            units=settlement.units,
            result_hash=settlement.result_hash,
            fee_mask=settlement.fee_mask,
            sequence=0,
            round=round_,
            signatures=chosen,
        )
        try:
            transaction = await self.context.chain.submit(instruction)
        except ChainRejected as error:
            account = await self.context.chain.job(self.job)
            if account is None or account.state is JobState.SETTLED:
                self.apply(machine.OutcomeSeen())
                return
            log.error("settlement rejected", job=base58(self.job), cause=str(error))
            return
        outcome = Outcome(
            job=self.job,
            verdict=settlement.verdict,
            worker=settlement.worker,
            price=settlement.price,
            units=settlement.units,
            result_hash=settlement.result_hash,
            fee_mask=settlement.fee_mask,
            round=round_,
            signatures=chosen,
            transaction=transaction,
            reason=reason[:500],
        )
        log.info("settled", job=base58(self.job), verdict=settlement.verdict.name, transaction=transaction)
        await self.context.wire.publish(market_topic(self.announce.message.execution_class), outcome)
        self.apply(machine.OutcomeSeen())


def proposal_of(job: JobId, round_: int, settlement: Settlement, reason: str) -> SettleProposal:
    """The request for signatures under a settlement."""
    return SettleProposal(
        job=job,
        round=round_,
        verdict=settlement.verdict,
        worker=settlement.worker,
        price=settlement.price,
        units=settlement.units,
        result_hash=settlement.result_hash,
        fee_mask=settlement.fee_mask,
        reason=reason[:500],
    )


def settlement_of_proposal(proposal: SettleProposal) -> Settlement:
    """The settlement that a leader asks for."""
    return Settlement(
        Verdict(proposal.verdict),
        NodeId(proposal.worker),
        proposal.price,
        proposal.units,
        proposal.result_hash,
        proposal.fee_mask,
    )
