"""A lost worker, as a committee member sees it: who may go on, and how the members agree on it (DESIGN 5, 7).

Rule 1: a worker that does not start within its lease, is silent, or reports its own failure is lost. The next in the
award's ranking takes over, if there is one and its bid's estimate fits before the work deadline; else the job FAILED.
Rule 2: the members that find a worker lost sign for the next rank, asked by the leader of a round; m signatures are the
certificate. After HANDOVER_ROUNDS_MAX rounds without one the job FAILED here, as if nobody were next.
Rule 3: a sign of life of a silent worker calls off a hand-over that we have not signed. Once we signed, we neither hear
the worker nor go back, until the rounds are over: no member helps both workers at once.
Rule 4: whoever sees a certificate goes over to the successor and begins anew, whatever it thought of the worker before,
unless its verdict is sealed: a member judges one claim of a job, since its verdict tells which samples it draws. Fewer
than m members can be so bound while m others hand over.
Pure: a useless or late stimulus changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from ..protocol.chain import Verdict
from ..protocol.handover import Successor
from ..protocol.limits import HANDOVER_ROUND_MS, HANDOVER_ROUNDS_MAX
from ..protocol.units import NodeId
from .verification_case import Case, Phase
from .verification_events import Effect, HandedOver, ProposeHandover
from .verification_settling import Step, decide, nothing


def lose_worker(case: Case, reason: str, now_ms: int, *, silent: bool) -> Step:
    """The worker is lost: look for votes to hand over, or decide on FAILED. `silent`: it may only not be heard."""
    case = replace(case, provisional=silent)
    following = _next(case)
    if following is None or now_ms + following.estimated_ms > case.terms.deadline_ms:
        return decide(case, nothing(case.terms, Verdict.FAILED), reason, now_ms)
    case = replace(
        case,
        phase=Phase.HANDING_OVER,
        since_ms=now_ms,
        reason=reason,
        handover_round=0,
        handover_round_started_ms=now_ms,
    )
    return case, _lead(case)


def _next(case: Case) -> Successor | None:
    rank = case.rank + 1
    return case.terms.ladder[rank] if rank < len(case.terms.ladder) else None


def _lead(case: Case) -> list[Effect]:
    if case.leader(case.handover_round) != case.terms.me:
        return []
    return [ProposeHandover(case.rank + 1, case.handover_round, case.reason)]


def is_bound(case: Case) -> bool:
    """Whether we signed a hand-over that is still looked for: the worker is not heard meanwhile."""
    return case.phase is Phase.HANDING_OVER and case.handover_signed > case.rank


def revive(case: Case, now_ms: int) -> Case:
    """The worker shows a sign of life: what rests on its silence alone is undone, if it can be."""
    if not case.provisional or is_bound(case):
        return case
    return replace(case, phase=Phase.AWARDED, since_ms=now_ms, decision=None, provisional=False, reason="")


def judge_handover(case: Case, leader: NodeId, rank: int, round_: int) -> tuple[Case, bool, str]:
    """Whether to sign a proposed hand-over; the text says why not, or that it is too early."""
    if case.phase is not Phase.HANDING_OVER or rank != case.rank + 1:
        return case, False, f"the worker of rank {case.rank} is {case.phase.name} here"
    if leader != case.leader(round_):
        return case, False, f"hand-over round {round_} is not led by the proposer"
    return replace(case, handover_signed=rank), True, ""


def may_come(case: Case, rank: int) -> bool:
    """Whether a hand-over that we would not sign now may be one that we sign soon."""
    return rank > case.rank and case.phase in (Phase.AWARDED, Phase.RUNNING, Phase.HANDING_OVER)


def go_over(case: Case, seen: HandedOver) -> Case:
    """Begin anew with the successor of a valid certificate. Verdicts that others sealed are kept: each member seals one
    in a job, perhaps before we heard of the hand-over."""
    if not case.rank < seen.rank < len(case.terms.ladder) or case.own is not None:
        return case
    successor = case.terms.ladder[seen.rank]
    return Case(
        replace(case.terms, worker=successor.node, price=successor.price),
        Phase.AWARDED,
        seen.now_ms,
        seen.rank,
        commits=case.commits,
        lost=case.lost,
        round=case.round,
        signed=case.signed,
        handover_signed=case.handover_signed,
    )


def next_round(case: Case, now_ms: int) -> Step:
    """A round ended without a certificate."""
    round_ = case.handover_round + 1
    if round_ >= HANDOVER_ROUNDS_MAX:
        return decide(case, nothing(case.terms, Verdict.FAILED), case.reason, now_ms)
    case = replace(case, handover_round=round_, handover_round_started_ms=now_ms)
    return case, _lead(case)


def round_ends_ms(case: Case) -> int:
    """When `next_round` is due."""
    return case.handover_round_started_ms + HANDOVER_ROUND_MS
