"""What a job brought after its `submit` was gone (DESIGN 11: requester goes offline).

The journal has the announce, and whatever else came in time; the chain has the settlement with its signatures; the
worker and the members keep certificate and claim for a day, and the result for as long as they have room for it. None
of it is believed without its proof: what is put together here verifies like any receipt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog
import trio

from ..protocol.award import JobTerms, check_certificate
from ..protocol.chain import Settle, Verdict
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, RemoteError
from ..protocol.handover import check_handover, succeeded
from ..protocol.limits import RECOVERY_PATIENCE_S, RECOVERY_REQUEST_S, RECOVERY_RETRY_S
from ..protocol.messages import AwardCertificate, Claim, HandoverCertificate, Outcome, ResultAnswer, ResultRequest
from ..protocol.ports import Chain, Journal
from ..protocol.receipt import Evidence
from ..protocol.settlement import quorum_for, result_hash, signers
from ..protocol.units import JobId, NodeId, base58
from .chronicle import Chronicle, Chronicler
from .chronicle_facts import Kept, Moved, Reached, clipped
from .data_service import DataService
from .job import ENDS, Job
from .job_evidence import JobEvidence, evidence_of
from .orders import JobResult
from .presence_service import PresenceService
from .receipt_builder import ReceiptParts, compose
from .result_fetch import answers_of, fetch_claimed
from .wire import RESULT, Wire

log = structlog.get_logger()


@dataclass(slots=True)
class Recovery:
    """Brings one job to its end that its `submit` left, or whose result could not be fetched."""

    wire: Wire
    chain: Chain
    presence: PresenceService
    data: DataService
    journal: Journal
    told: Chronicle
    found: JobEvidence = field(init=False)
    _new: list[Kept] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = evidence_of(self.told)

    async def run(self) -> JobResult:
        """As far as it goes; the reason says what is missing and why. Raises chain errors while nothing is known."""
        told, found = self.told, self.found
        if told.job is None or told.funded is None or found.announce is None:
            return self._nothing(self._unannounced())
        if found.terms is None:
            account = await self.chain.job(told.job)
            if account is None or not account.committee:
                return self._nothing("its committee is not known here, and the escrow that names it is closed")
            told.committee = account.committee
            self.found = found = evidence_of(told)
        terms = found.terms
        if terms is None:
            return self._nothing("; ".join(found.notes))
        if found.outcome is None:
            found.outcome = await self._settled_on_chain(terms)
        if found.outcome is None:
            return self._nothing("the chain knows no settlement of it yet")
        return await self._complete(terms, found.outcome)

    def _unannounced(self) -> str:
        if self.found.notes:
            return self.found.notes[0]
        if self.told.damaged:
            return f"{self.told.damaged} records of this job cannot be read, its escrow or its announce among them"
        return "it was never announced: there can be no result"

    async def _settled_on_chain(self, terms: JobTerms) -> Signed[Outcome] | None:
        """The settlement as the chain has it, in an envelope of ours: its proof are the members' signatures."""
        landed = await self.chain.settlements(terms.job)
        if not landed:
            return None
        outcome = _outcome_of(landed[-1])
        if len(signers(terms, outcome)) < quorum_for(outcome.verdict, terms.announce.k):
            raise RemoteError("the chain's settlement does not bear the signatures of the committee known here")
        raw = self.wire.seal(outcome)
        self._new.append(Kept(what="outcome", raw=raw))
        return open_as(raw, terms.genesis, Outcome)

    async def _complete(self, terms: JobTerms, outcome: Signed[Outcome]) -> JobResult:
        """Result and receipt of a settled job."""
        verdict, result, reason = Verdict(outcome.message.verdict), None, outcome.message.reason
        if verdict is Verdict.OK:
            sources = (NodeId(outcome.message.worker), *terms.committee)
            with trio.move_on_after(RECOVERY_PATIENCE_S):
                result = await self._fetch(terms, outcome.message, sources)
            if result is None:
                reason = self._missing()
        told, now_ms = self.told, self.wire.clock.unix_ms()
        receipt, answers = None, answers_of(result) if result is not None and self._infers(terms) else None
        try:
            receipt = compose(self._parts(terms, outcome, now_ms), self.wire, terms.announce.program)
        except RemoteError as error:
            reason = reason or f"no receipt: {error}"
        self._tell(now_ms, verdict, reason, fetched=result is not None)
        phase = ENDS.get(verdict, told.phase)
        weights = result if answers is None else None
        return JobResult(terms.job, phase, reason, weights, receipt, Job(phase), answers=answers, number=told.number)

    def _infers(self, terms: JobTerms) -> bool:
        return terms.announce.kind == "infer"

    def _missing(self) -> str:
        if self.found.claim is None:
            return (
                "paid, but the claim that names the result never came here, and neither the worker nor a member of the "
                "committee gave it: they keep it for a day"
            )
        return "paid, but neither the worker nor a member of the committee gave the result: try again later"

    async def _fetch(self, terms: JobTerms, outcome: Outcome, sources: tuple[NodeId, ...]) -> bytes | None:
        """Until somebody gave it: peers are found one after another."""
        while True:
            claim = await self._claimed(terms, outcome, sources)
            if claim is not None:
                result = await fetch_claimed(self.data, claim, sources)
                if result is not None:
                    return result
            await self.presence.exchange.probe(sources, terms.announce.execution_class)
            await trio.sleep(RECOVERY_RETRY_S)

    async def _claimed(self, terms: JobTerms, outcome: Outcome, sources: tuple[NodeId, ...]) -> Claim | None:
        """The settled claim, from the journal or from a party; the certificate comes with it."""
        held, award = self.found.claim, self.found.award
        known = award is not None and award.winner == outcome.worker
        if held is not None and result_hash(held.message) == outcome.result_hash and known:
            return held.message
        for source in sources:
            try:
                answer = await self.wire.ask(
                    source, RESULT, ResultRequest(job=terms.job), ResultAnswer, within_s=RECOVERY_REQUEST_S
                )
                return self._take(terms, outcome, answer.message)
            except CyxError as error:
                log.info("claim not given", job=base58(terms.job), peer=base58(source), cause=str(error))
        return None

    def _take(self, terms: JobTerms, outcome: Outcome, answer: ResultAnswer) -> Claim:
        claim = open_as(answer.claim, terms.genesis, Claim)
        award = check_certificate(terms, open_as(answer.certificate, terms.genesis, AwardCertificate).message)
        if answer.handover:
            certificate = open_as(answer.handover, terms.genesis, HandoverCertificate).message
            award = succeeded(award, check_handover(terms, award.award, certificate))
        if claim.sender != outcome.worker or result_hash(claim.message) != outcome.result_hash:
            raise RemoteError("this is not the claim that was settled")
        self.found.claim, self.found.award = claim, award
        self._new += [Kept(what="certificate", raw=answer.certificate), Kept(what="claim", raw=answer.claim)]
        self._new += [Kept(what="handover", raw=answer.handover)] if answer.handover else []
        return claim.message

    def _parts(self, terms: JobTerms, outcome: Signed[Outcome], now_ms: int) -> ReceiptParts:
        told, funded = self.told, self.told.funded
        assert funded is not None
        held: dict[str, bytes] = dict(told.evidence)
        held.update((one.what, one.raw) for one in self._new)
        claim = held.get("claim", b"") if outcome.message.verdict == Verdict.OK else b""
        handovers = (held["handover"],) if self._was_handed_over(outcome.message.worker) else ()
        evidence = Evidence(told.evidence["announce"], held.get("certificate", b""), claim, outcome.raw, handovers)
        stages = {name: at_ms for name, at_ms in told.stages.items() if name != "named"}
        stages = {"submitted": told.placed_at_ms, **stages}
        stages.setdefault("completed", now_ms)
        return ReceiptParts(
            terms,
            evidence,
            funded.units_total,
            funded.fee_bps,
            funded.verifier_share_bps,
            stages,
            told.transactions,
        )

    def _was_handed_over(self, worker: bytes) -> bool:
        """Whether the newest hand-over leads to the worker that was settled with."""
        award = self.found.award
        return award is not None and award.winner == worker != award.award.winner

    def _tell(self, now_ms: int, verdict: Verdict, reason: str, *, fetched: bool) -> None:
        """What is known now, for the next who asks."""
        chronicler = Chronicler.resume(self.journal, self.told.number)
        for one in self._new:
            chronicler.tell(now_ms, one)
        if fetched and "fetched" not in self.told.stages:
            chronicler.tell(now_ms, Reached(stage="fetched", detail="by cyxnode job result"))
        if not self.told.ended and verdict in ENDS:
            chronicler.tell(now_ms, Moved(phase=ENDS[verdict].value, cause=clipped(reason or verdict.name)))

    def _nothing(self, reason: str) -> JobResult:
        told = self.told
        job = told.job if told.job is not None else JobId(bytes(32))
        return JobResult(job, told.phase, reason, None, None, Job(told.phase), number=told.number)


def _outcome_of(settle: Settle) -> Outcome:
    return Outcome(
        job=settle.job,
        verdict=settle.verdict,
        worker=settle.worker,
        price=settle.price,
        units=settle.units,
        result_hash=settle.result_hash,
        fee_mask=settle.fee_mask,
        round=settle.round,
        signatures=settle.signatures,
        transaction="",
        reason="",
    )
