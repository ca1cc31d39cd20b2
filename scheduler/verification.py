"""One job's verification as a committee member sees it, from award to settlement (DESIGN 7, 8).

Rule 1: the worker must start within its lease and claim by the deadline. One that is lost before it claims hands over
to the next in the ranking (`verification_handover.py`); where nobody is next the job FAILED. A decision that rests on
silence is undone by a start or a claim that arrives before the settlement: messages get lost.
Rule 2: a member replays its samples, commits to its verdict, and reveals only after the worker opened its traces, which
it does once every verdict is committed. A verdict counts if its nonce and its traces prove the work.
Rule 3: a mismatch is a dispute, not a vote: every member replays the accused segment itself.
Rule 4: a worker that could not work because the requester served nothing, or nothing that can be computed, is not named
in the FAILED settlement, if the member found the same: a client's fault costs no worker its record.
Rule 5: OK needs m counted verdicts, FAILED and FRAUD the member's own conviction (`verification_settling.py`); members
sign once per settlement round.
Pure: a useless or late stimulus changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from ..protocol.chain import Verdict
from ..protocol.limits import (
    DISPUTES_MAX,
    SETTLE_ROUND_MS,
    SETTLE_ROUNDS_MAX,
    VERDICT_COMMIT_WAIT_MS,
    VERDICT_REVEAL_WAIT_MS,
)
from ..protocol.settlement import NOBODY, Settlement
from ..protocol.units import NodeId
from .verification_case import Case as Case
from .verification_case import CaseTerms as CaseTerms
from .verification_case import Phase as Phase
from .verification_events import AskOpening as AskOpening
from .verification_events import ClaimReceived as ClaimReceived
from .verification_events import CommitReceived as CommitReceived
from .verification_events import Conviction as Conviction
from .verification_events import DisputeReplayed as DisputeReplayed
from .verification_events import Effect as Effect
from .verification_events import Finding as Finding
from .verification_events import FindingRevealed as FindingRevealed
from .verification_events import GiveUp as GiveUp
from .verification_events import HandedOver as HandedOver
from .verification_events import MemberLost as MemberLost
from .verification_events import OutcomeSeen as OutcomeSeen
from .verification_events import ProposeHandover as ProposeHandover
from .verification_events import ProposeSettlement as ProposeSettlement
from .verification_events import ReplayDisputed as ReplayDisputed
from .verification_events import ReplaySamples as ReplaySamples
from .verification_events import SamplesReplayed as SamplesReplayed
from .verification_events import SeekTask as SeekTask
from .verification_events import SegmentAccused as SegmentAccused
from .verification_events import SendCommit as SendCommit
from .verification_events import SendReveal as SendReveal
from .verification_events import Stimulus as Stimulus
from .verification_events import TaskSought as TaskSought
from .verification_events import TimePassed as TimePassed
from .verification_events import TracesOpened as TracesOpened
from .verification_events import WorkerLost as WorkerLost
from .verification_events import WorkerStarted as WorkerStarted
from .verification_handover import go_over, lose_worker, next_round, revive, round_ends_ms
from .verification_handover import is_bound as is_bound
from .verification_handover import judge_handover as judge_handover
from .verification_handover import may_come as may_come
from .verification_settling import Step, convict, decide, lead, nothing
from .verification_settling import judge_settlement as judge_settlement
from .verification_settling import lacks_proof as lacks_proof


def open_case(terms: CaseTerms, now_ms: int) -> Case:
    """Begin at a certificate that names a worker."""
    return Case(terms, Phase.AWARDED, now_ms)


def open_unsold(terms: CaseTerms, reason: str, now_ms: int) -> Step:
    """Begin at an auction without a winner: only the settlement is left."""
    return decide(Case(terms, Phase.AWARDED, now_ms), nothing(terms, Verdict.UNSOLD), reason, now_ms)


def step(case: Case, stimulus: Stimulus) -> Step:
    """Apply one stimulus."""
    if case.phase in (Phase.CLOSED, Phase.GIVEN_UP):
        return case, []
    if isinstance(stimulus, WorkerStarted | ClaimReceived):
        if case.phase is Phase.HANDING_OVER and isinstance(stimulus, ClaimReceived) and stimulus.owns_up:
            return replace(case, provisional=False, reason=_reported(stimulus.failure)), []
        case = revive(case, stimulus.now_ms)
    match stimulus:
        case WorkerStarted(now_ms):
            return (_to(case, Phase.RUNNING, now_ms), []) if case.phase is Phase.AWARDED else (case, [])
        case WorkerLost(reason, now_ms):
            if case.phase in (Phase.AWARDED, Phase.RUNNING):
                return lose_worker(case, reason, now_ms, silent=True)
            return case, []
        case MemberLost(member, now_ms):
            return _ask_if_ready(replace(case, lost=case.lost | {member}), now_ms)
        case ClaimReceived(result_hash, failure, now_ms, blames_requester, units, owns_up):
            if case.phase not in (Phase.AWARDED, Phase.RUNNING):
                return case, []
            reason = _reported(failure)
            units = case.terms.units if units is None else min(units, case.terms.units)
            case = replace(case, result_hash=result_hash, reason=reason, units=units)
            if blames_requester:
                return _to(case, Phase.SEEKING, now_ms), [SeekTask()]
            if owns_up:
                return lose_worker(case, reason, now_ms, silent=False)
            if failure is not None:
                return _fail(case, reason, now_ms)
            return _to(case, Phase.REPLAYING, now_ms), [ReplaySamples()]
        case TaskSought(found, now_ms, reason):
            if case.phase is not Phase.SEEKING:
                return case, []
            return _fail(case, case.reason, now_ms) if found else _fail_unnamed(case, reason, now_ms)
        case SamplesReplayed(ok, mismatch_segment, reason, now_ms, conviction):
            if case.phase is not Phase.REPLAYING:
                return case, []
            own, case = Finding(ok, mismatch_segment, counted=True), _remember(case, conviction)
            case = replace(_to(case, Phase.COMMITTED, now_ms), own=own, reason=reason)
            return case, [SendCommit(own)]
        case CommitReceived(member, raw, now_ms):
            late = case.asked_opening or case.decision is not None
            if member not in case.terms.committee or member in case.commits or late:
                return case, []
            return _ask_if_ready(replace(case, commits={**case.commits, member: raw}), now_ms)
        case TracesOpened(refuted, now_ms):
            if case.phase is not Phase.COMMITTED or case.opened:
                return case, []
            if refuted:
                return _fail(case, refuted, now_ms)
            return replace(_to(case, Phase.REVEALED, now_ms), opened=True), [SendReveal()]
        case FindingRevealed(member, finding, reason, now_ms):
            return _on_finding(case, member, finding, reason, now_ms)
        case SegmentAccused(segment, now_ms):
            if case.phase is not Phase.DECIDED or segment in case.convictions:
                return case, []
            return _dispute(case, segment)
        case DisputeReplayed(segment, mismatch, now_ms, conviction):
            if case.disputes.get(segment, True) is not None:
                return case, []
            case = _remember(replace(case, disputes={**case.disputes, segment: mismatch}), conviction)
            return _conclude_if_ready(case, now_ms) if case.phase is Phase.DISPUTED else (case, [])
        case HandedOver():
            return go_over(case, stimulus), []
        case OutcomeSeen():
            return replace(case, phase=Phase.CLOSED), []
        case TimePassed(now_ms):
            return _on_time(case, now_ms)


def next_wake_ms(case: Case) -> int | None:
    """When TimePassed will next change something."""
    match case.phase:
        case Phase.AWARDED:
            return case.since_ms + case.terms.lease_ms
        case Phase.RUNNING:
            return case.terms.deadline_ms
        case Phase.HANDING_OVER:
            return round_ends_ms(case)
        case Phase.SEEKING | Phase.REPLAYING:
            return max(case.since_ms, case.terms.deadline_ms) + VERDICT_COMMIT_WAIT_MS
        case Phase.COMMITTED if not case.asked_opening:
            return case.since_ms + VERDICT_COMMIT_WAIT_MS
        case Phase.COMMITTED | Phase.REVEALED | Phase.DISPUTED:
            return case.since_ms + VERDICT_REVEAL_WAIT_MS
        case Phase.DECIDED:
            return case.round_started_ms + SETTLE_ROUND_MS
        case _:
            return None


# transitions ------------------------------------------------------------------------------------------------------


def _to(case: Case, phase: Phase, now_ms: int) -> Case:
    return replace(case, phase=phase, since_ms=now_ms)


def _fail(case: Case, reason: str, now_ms: int) -> Step:
    return decide(case, nothing(case.terms, Verdict.FAILED), reason, now_ms)


def _fail_unnamed(case: Case, reason: str, now_ms: int) -> Step:
    """Nobody but the requester is to blame."""
    settlement = replace(nothing(case.terms, Verdict.FAILED), worker=NOBODY)
    return decide(case, settlement, reason or "the requester does not serve the spec and its data", now_ms)


def _reported(failure: str | None) -> str:
    return "" if failure is None else f"the worker reports: {failure}"


def _remember(case: Case, conviction: Conviction | None) -> Case:
    if conviction is None:
        return case
    return replace(case, convictions={**case.convictions, conviction.segment: conviction})


def _dispute(case: Case, segment: int) -> Step:
    if segment in case.disputes or len(case.disputes) >= DISPUTES_MAX:
        return case, []
    return replace(case, disputes={**case.disputes, segment: None}), [ReplayDisputed(segment)]


def _ask_if_ready(case: Case, now_ms: int) -> Step:
    if case.phase is not Phase.COMMITTED or case.asked_opening:
        return case, []
    waited = now_ms >= case.since_ms + VERDICT_COMMIT_WAIT_MS
    awaited = set(case.terms.committee) - case.commits.keys() - case.lost
    if len(case.commits) < case.terms.m or (awaited and not waited):
        return case, []
    return replace(case, asked_opening=True, since_ms=now_ms), [AskOpening(tuple(case.commits.values()))]


def _on_finding(case: Case, member: NodeId, finding: Finding, reason: str, now_ms: int) -> Step:
    if case.phase not in (Phase.REVEALED, Phase.DISPUTED) or member in case.findings:
        return case, []
    if member not in case.terms.committee:
        return case, []
    case = replace(case, findings={**case.findings, member: finding})
    accused = finding.mismatch_segment
    own_accusation = case.own.mismatch_segment if case.own else -1
    if not finding.ok and accused >= 0 and accused != own_accusation and accused not in case.disputes:
        return _dispute(replace(_to(case, Phase.DISPUTED, now_ms), reason=reason), accused)
    return _conclude_if_ready(case, now_ms)


def _conclude_if_ready(case: Case, now_ms: int) -> Step:
    """Decide once everyone who committed revealed and every dispute is replayed, or the wait is over."""
    if case.phase not in (Phase.REVEALED, Phase.DISPUTED):
        return case, []
    if any(mismatch for mismatch in case.disputes.values()):
        segment = next(s for s, mismatch in case.disputes.items() if mismatch)
        return convict(case, segment, f"segment {segment} replays to other bits", now_ms)
    if None in case.disputes.values():
        return case, []
    if case.own is not None and not case.own.ok:
        return convict(case, case.own.mismatch_segment, case.reason or "our own replay failed", now_ms)
    counted = [node for node, finding in case.findings.items() if finding.counted and finding.ok]
    waited = now_ms >= case.since_ms + VERDICT_REVEAL_WAIT_MS
    if not waited and not case.commits.keys() <= case.findings.keys():
        return case, []
    if len(counted) < case.terms.m:
        return case, []
    mask = sum(1 << i for i, node in enumerate(case.terms.committee) if node in counted)
    terms = case.terms
    ok = Settlement(Verdict.OK, terms.worker, terms.price, case.units, case.result_hash, mask)
    return decide(case, ok, "", now_ms)


def _on_time(case: Case, now_ms: int) -> Step:
    match case.phase:
        case Phase.AWARDED if now_ms >= case.since_ms + case.terms.lease_ms:
            silence = f"the worker did not start within {case.terms.lease_ms} ms"
            return lose_worker(case, silence, now_ms, silent=True)
        case Phase.RUNNING if now_ms >= case.terms.deadline_ms:
            return _fail(case, "the worker did not finish by the work deadline", now_ms)
        case Phase.HANDING_OVER if now_ms >= round_ends_ms(case):
            return next_round(case, now_ms)
        case Phase.SEEKING | Phase.REPLAYING if now_ms >= (next_wake_ms(case) or 0):
            return _give_up(case, f"our own {case.phase.name.lower()} did not end")
        case Phase.COMMITTED if not case.asked_opening:
            case, effects = _ask_if_ready(case, now_ms)
            if effects or now_ms < case.since_ms + VERDICT_COMMIT_WAIT_MS:
                return case, effects
            return _give_up(case, f"only {len(case.commits)} of {len(case.terms.committee)} members gave a verdict")
        case Phase.COMMITTED if now_ms >= case.since_ms + VERDICT_REVEAL_WAIT_MS:
            return _fail(case, "the worker did not open its traces", now_ms)
        case Phase.REVEALED | Phase.DISPUTED if now_ms >= case.since_ms + VERDICT_REVEAL_WAIT_MS:
            case, effects = _conclude_if_ready(case, now_ms)
            if case.phase is Phase.DECIDED:
                return case, effects
            return _give_up(case, "too few verdicts count; the requester is refunded at the refund time")
        case Phase.DECIDED if now_ms >= case.round_started_ms + SETTLE_ROUND_MS:
            if case.round + 1 >= SETTLE_ROUNDS_MAX:
                return _give_up(case, f"no settlement found {case.terms.m} votes in {SETTLE_ROUNDS_MAX} rounds")
            case = replace(case, round=case.round + 1, round_started_ms=now_ms)
            return case, lead(case)
        case _:
            return case, []


def _give_up(case: Case, reason: str) -> Step:
    return replace(case, phase=Phase.GIVEN_UP, reason=reason), [GiveUp(reason)]
