"""How a case ends: what a member decides, proposes when it leads a round, and signs when another does (DESIGN 7, 8).

OK needs m counted verdicts. A worker that our own replay convicts FAILED; where the difference is gross and the states
are at hand it is FRAUD, which needs more signatures, all of members whose replays of one segment gave the same bits.
When those do not come together within FRAUD_ROUNDS_MAX rounds, the job FAILED.
"""

from __future__ import annotations

from dataclasses import replace

from ..protocol.chain import Verdict
from ..protocol.limits import FRAUD_ROUNDS_MAX, STRICT_MASK_ROUNDS
from ..protocol.settlement import NO_RESULT, NOBODY, Settlement
from ..protocol.units import NodeId
from .verification_case import Case, CaseTerms, Phase
from .verification_events import Conviction, Effect, ProposeSettlement

Step = tuple[Case, list[Effect]]
NO_PROOF = (-1, NO_RESULT)
"""What stands in a proposal that is not of FRAUD."""


def nothing(terms: CaseTerms, verdict: Verdict) -> Settlement:
    """A settlement that pays nobody; FAILED names the worker."""
    worker = terms.worker if verdict is Verdict.FAILED else NOBODY
    return Settlement(verdict, worker, 0, 0, NO_RESULT, 0)


def decide(case: Case, decision: Settlement, reason: str, now_ms: int) -> Step:
    """The decision is made; lead the first round if it is ours."""
    case = replace(
        case, phase=Phase.DECIDED, since_ms=now_ms, decision=decision, reason=reason, round_started_ms=now_ms
    )
    return case, lead(case)


def convict(case: Case, segment: int, reason: str, now_ms: int) -> Step:
    """`segment` replays to other bits: FRAUD if that is proven and gross, else FAILED."""
    found = case.convictions.get(segment)
    if found is None or not found.gross:
        return decide(case, nothing(case.terms, Verdict.FAILED), reason, now_ms)
    terms = case.terms
    return decide(case, Settlement(Verdict.FRAUD, terms.worker, terms.price, 0, case.result_hash, 0), reason, now_ms)


def due(case: Case, round_: int) -> Settlement | None:
    """What our decision amounts to in a round: FRAUD without enough signatures becomes FAILED."""
    if case.decision is not None and case.decision.verdict is Verdict.FRAUD and round_ >= FRAUD_ROUNDS_MAX:
        return nothing(case.terms, Verdict.FAILED)
    return case.decision


def lead(case: Case) -> list[Effect]:
    """Propose what is due, if the round is ours to lead."""
    settlement = due(case, case.round)
    if settlement is None or case.leader(case.round) != case.terms.me:
        return []
    return [ProposeSettlement(case.round, settlement, case.reason, proof_of(case, settlement))]


def proof_of(case: Case, settlement: Settlement) -> Conviction | None:
    """The first gross conviction, for FRAUD."""
    gross = [one for one in case.convictions.values() if one.gross]
    if settlement.verdict is not Verdict.FRAUD or not gross:
        return None
    return min(gross, key=lambda one: one.segment)


def lacks_proof(case: Case, asked: Settlement, segment: int) -> bool:
    """Whether we decided on FRAUD too, but have not replayed the segment that the proposal rests on."""
    mine = case.decision
    return mine is not None and mine.verdict is asked.verdict is Verdict.FRAUD and segment not in case.convictions


def judge_settlement(
    case: Case, leader: NodeId, round_: int, asked: Settlement, proof: tuple[int, bytes] = NO_PROOF
) -> tuple[Case, bool, str]:
    """Whether to sign a proposed settlement; the text says why not, or that it is too early.

    `proof` is the segment that FRAUD rests on and the hash of the state that its replay gave.
    """
    mine = due(case, round_)
    if mine is None:
        return case, False, f"undecided: {case.phase.name}"
    if leader != case.leader(round_):
        return case, False, f"settlement round {round_} is not led by the proposer"
    if replace(asked, fee_mask=0) != replace(mine, fee_mask=0):
        return case, False, f"we decided {mine.verdict.name} ({case.reason or 'no reason'})"
    members = [node for i, node in enumerate(case.terms.committee) if asked.fee_mask >> i & 1]
    if mine.verdict is Verdict.OK:
        counted = all(n in case.findings and case.findings[n].counted and case.findings[n].ok for n in members)
        if not counted or len(members) < case.terms.m:
            return case, False, "the fee mask names members whose verdict we do not count"
        if mine.fee_mask & ~asked.fee_mask and round_ < STRICT_MASK_ROUNDS:
            return case, False, "the fee mask leaves out a member whose verdict we count"
    elif asked.fee_mask:
        return case, False, "only an OK verdict has a fee to share"
    if mine.verdict is Verdict.FRAUD:
        segment, end_hash = proof
        found = case.convictions.get(segment)
        if found is None or not found.gross or found.end_hash != end_hash:
            return case, False, f"our replay of segment {segment} does not prove the same fraud"
    if case.signed.get(round_, asked.digest) != asked.digest:
        return case, False, f"another settlement was signed in round {round_}"
    return replace(case, signed={**case.signed, round_: asked.digest}), True, ""
