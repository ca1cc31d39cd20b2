"""One job in a few figures, for a list and for its status: what it is, how it stands, what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..protocol.chain import Verdict
from ..protocol.messages import InferenceClaim, ResultClaim
from ..protocol.receipt import fee_split
from ..protocol.settlement import result_hash
from ..protocol.units import base58
from .chronicle import Chronicle
from .explanation_left import OnChain
from .job import FINAL, JobPhase
from .job_evidence import JobEvidence, evidence_of

ID_SHOWN = 10
"""Characters of an id that are shown where space is short: enough to find the job by."""


@dataclass(frozen=True, slots=True)
class JobSummary:
    """Money in micro-CYX, times in Unix ms. `left` says that its `submit` ended before it did. `completed_in_ms` is
    None before the end; `result_uri` is empty unless the quorum accepted a result that is known here."""

    name: str
    number: int
    kind: str
    what: str
    state: str
    left: bool
    reason: str
    placed_at_ms: int
    since_ms: int
    completed_at_ms: int | None
    completed_in_ms: int | None
    budget: int
    cost: int
    price: int | None
    worker: str
    verified_by: tuple[str, ...]
    result_uri: str
    transactions: dict[str, str]
    progress: dict[str, int]
    notes: tuple[str, ...]


def summarise(told: Chronicle, *, running: bool, chain: OnChain | None = None) -> JobSummary:
    """`running` and `chain` as for `explain`."""
    found, placed = evidence_of(told), told.placed
    left = not told.ended and not running
    phase = (chain.phase if left and chain is not None else None) or told.phase
    ended_at_ms = told.ended_at_ms or None
    return JobSummary(
        name=told.name,
        number=told.number,
        kind=placed.kind if placed is not None else "",
        what=placed.what if placed is not None else "its order cannot be read",
        state=phase.value,
        left=left,
        reason=_reason(told, phase, left=left),
        placed_at_ms=told.placed_at_ms,
        since_ms=told.since_ms,
        completed_at_ms=ended_at_ms,
        completed_in_ms=ended_at_ms - told.placed_at_ms if ended_at_ms is not None else None,
        budget=told.funded.budget if told.funded is not None else (placed.budget if placed is not None else 0),
        cost=_cost(told, found, chain),
        price=found.award.price if found.award is not None else None,
        worker=base58(found.award.winner) if found.award is not None else "",
        verified_by=tuple(base58(node) for node in found.verified_by),
        result_uri=_result_uri(found),
        transactions=dict(told.transactions),
        progress=_progress(told) if phase not in FINAL else {},
        notes=_notes(told, found),
    )


def _reason(told: Chronicle, phase: JobPhase, *, left: bool) -> str:
    """One line: the cause of an end, else what a job waits for in its state."""
    if left:
        return f"`submit` ended first: cyxnode job explain {told.name[:ID_SHOWN]}"
    if told.ended:
        return "" if phase is JobPhase.SETTLED and told.cause == Verdict.OK.name else told.cause
    if told.lacking is not None and told.job is None:
        return f"{told.lacking.fitting} of {told.lacking.needed} fitting nodes are live"
    if told.trouble is not None:
        return told.trouble[1]
    return f"{len(told.declines)} nodes declined" if told.declines and phase is JobPhase.BIDDING else ""


def _cost(told: Chronicle, found: JobEvidence, chain: OnChain | None) -> int:
    """What was paid; 0 before the settlement, and where it accepts no units."""
    paid = found.outcome.message if found.outcome is not None else (chain.settlement if chain is not None else None)
    funded = told.funded
    if paid is None or funded is None or not funded.units_total:
        return 0
    split = fee_split(paid.price, paid.units, funded.units_total, funded.fee_bps, funded.verifier_share_bps)
    return split["amount"]


def _result_uri(found: JobEvidence) -> str:
    if found.claim is None or found.outcome is None:
        return ""
    claim, outcome = found.claim.message, found.outcome.message
    if outcome.verdict != Verdict.OK or result_hash(claim) != outcome.result_hash:
        return ""
    match claim:
        case ResultClaim():
            return claim.model_weights_uri
        case InferenceClaim():
            return claim.result_uri
        case _:
            return ""


def _progress(told: Chronicle) -> dict[str, int]:
    if told.worked is None:
        return {}
    at_ms, news = told.worked
    if news.characters:
        return {"at_ms": at_ms, "characters": news.characters}
    return {
        "at_ms": at_ms,
        "progress_ppm": news.progress_ppm,
        "current_epoch": news.epoch,
        "batch_loss_micro": news.loss_micro,
        "batch_accuracy_micro": news.accuracy_micro,
    }


def _notes(told: Chronicle, found: JobEvidence) -> tuple[str, ...]:
    damaged = (f"{told.damaged} records of this job cannot be read",) if told.damaged else ()
    return (*damaged, *found.notes)


def summary_json(one: JobSummary) -> dict[str, Any]:
    """As `cyxnode job list --json` prints it."""
    return {
        "job_id": one.name,
        "number": one.number,
        "kind": one.kind,
        "what": one.what,
        "status": one.state,
        "left": one.left,
        "reason": one.reason,
        "submitted_at_ms": one.placed_at_ms,
        "since_ms": one.since_ms,
        "completed_at_ms": one.completed_at_ms,
        "completed_in_ms": one.completed_in_ms,
        "budget_micro_cyx": one.budget,
        "cost_micro_cyx": one.cost,
        "price_micro_cyx": one.price,
        "worker": one.worker,
        "verified_by": list(one.verified_by),
        "result": one.result_uri,
        "transactions": one.transactions,
        "progress": one.progress,
        "notes": list(one.notes),
    }
