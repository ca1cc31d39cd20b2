"""Why a job is in its state, what it waits for, until when at most, what happens then, and what its requester can do.

A pure function of the chronicle and, once `submit` is gone, of what the chain says. Never empty: whoever asks is told
something to hold on to, also when the chronicle is damaged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ..protocol.chain import Verdict
from ..protocol.limits import (
    BLOCKHASHES_MAX,
    DEAD_AFTER_MS,
    ROUNDS_MAX,
    SEAT_DEADLINE_SLOTS,
    SLOT_MS,
    START_LEASE_MS,
    STREAM_IDLE_TIMEOUT_S,
    SUBMIT_ATTEMPTS_MAX,
)
from ..protocol.units import format_cyx
from .chronicle import Chronicle
from .explanation_left import OnChain, explain_left
from .job import JobPhase
from .requirements import HINTS

ADVICE = {
    "BUSY": "wait until they are idle, and submit again",
    "PRICE": "raise the budget",
    "MEMORY": "ask for less memory",
    "DEVICE": "ask for device any",
    "REGION": "ask for no region",
    "STAKE": "wait: their stakes are bound by other jobs, or too small for this price",
    "SANDBOX": "allow it with unsandboxed_ok",
    "DRAINING": "wait for other nodes: these are leaving",
    "DEADLINE": "give more time: raise work_seconds",
    "MODEL": "see what is served: cyxnode market models",
}
"""Reason of a decline -> what a requester can do about it."""
UNDECIDED = frozenset(
    {JobPhase.DRAFT, JobPhase.QUEUED, JobPhase.OPENED, JobPhase.BIDDING, JobPhase.UNSOLD, JobPhase.EXPIRED}
)
"""Where another order might have found a worker."""
REFUNDED = "the budget returns, but for the fees of the transactions"
FOLLOWED = (
    f"the next in the ranking takes over and begins anew; with nobody left the committee signs FAILED, and {REFUNDED}"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Nodes that do not take part, counted, and what could be done about it. `said` is the latest hint of one."""

    count: int
    reason: str
    said: str
    advice: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`until_ms` is None when there is no such limit; `waits_for` and `then` are empty once nothing is waited for."""

    state: str
    since_ms: int
    why: str
    waits_for: str = ""
    until_ms: int | None = None
    then: str = ""
    causes: tuple[Cause, ...] = ()
    advice: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def explain(told: Chronicle, now_ms: int, *, running: bool, chain: OnChain | None = None) -> Explanation:
    """`running` says whether the `submit` of this job is up; `chain` is what the chain was asked when it is not."""
    left, phase = not told.ended and not running, told.phase
    if left:
        phase = (chain.phase if chain is not None else None) or phase
        why, waits_for, until_ms, then, advice = explain_left(told, now_ms, chain)
    elif told.ended:
        why, advice = _ended(told)
        waits_for, until_ms, then = "", None, ""
    else:
        why, waits_for, until_ms, then, advice = _live(told, now_ms)
    causes = _causes(told)
    if phase in UNDECIDED and (told.job is None or not left):
        advice += tuple(one for one in dict.fromkeys(cause.advice for cause in causes) if one not in advice)
    return Explanation(
        state=phase.value,
        since_ms=told.since_ms,
        why=why,
        waits_for=waits_for,
        until_ms=until_ms,
        then=then,
        causes=causes,
        advice=advice,
        notes=_notes(told, now_ms),
    )


def _causes(told: Chronicle) -> tuple[Cause, ...]:
    """Of an order that was not funded, why live nodes do not fit; of a job, the declines."""
    lacking = told.lacking if told.job is None else None
    if lacking is not None:
        return tuple(Cause(count, name, "", HINTS.get(name, "wait for others")) for name, count in lacking.causes)
    counted = Counter(one.reason for one in told.declines.values()).most_common()
    said = {one.reason: one.hint for one in told.declines.values()}
    return tuple(
        Cause(count, reason, said[reason], ADVICE.get(reason, "ask its operator")) for reason, count in counted
    )


def _notes(told: Chronicle, now_ms: int) -> tuple[str, ...]:
    notes = []
    if told.trouble is not None:
        at_ms, detail = told.trouble
        ago = f", {max(0, now_ms - at_ms) // 1000} s ago" if not told.ended else ""
        notes.append(f"last trouble{ago}: {detail}")
    if told.damaged:
        notes.append(f"{told.damaged} records of this job cannot be read: what they said is missing here")
    if told.shortened:
        notes.append("more happened than the journal keeps of one job: later declines and troubles are not counted")
    return tuple(notes)


Waiting = tuple[str, str, int | None, str, tuple[str, ...]]
"""Why, what is waited for, until when at most (Unix ms), what happens then, and what can be done."""


def _live(told: Chronicle, now_ms: int) -> Waiting:
    if "settled" in told.stages:
        return _closing(told)
    match told.phase:
        case JobPhase.DRAFT | JobPhase.QUEUED:
            return _funding(told) if told.job is not None else _queued(told)
        case JobPhase.OPENED:
            text = "the escrow is confirmed; the job is being announced"
            return text, "the announce to leave", _refund_ms(told), _refund(told), ()
        case JobPhase.BIDDING:
            return _bidding(told, now_ms)
        case JobPhase.AWARDED:
            return _awarded(told, now_ms)
        case JobPhase.RUNNING:
            return _running(told, now_ms)
        case _:
            return (
                "the worker has claimed its result, and the committee replays samples of the work",
                "the verdict of a quorum of the committee",
                _refund_ms(told),
                _refund(told),
                ("wait: nothing is paid before a quorum has signed",),
            )


def _queued(told: Chronicle) -> Waiting:
    lacking, placed = told.lacking, told.placed
    needed = lacking.needed if lacking is not None else (placed.k + 1 if placed is not None else 0)
    if lacking is None:
        why = "the order was just placed; nodes that fit are being counted"
    else:
        why = f"{lacking.fitting} of the {needed} nodes needed are live and fit; {lacking.live} nodes are live in all"
    until_ms = told.placed_at_ms + placed.wait_ms if placed is not None else None
    advice: tuple[str, ...] = ()
    if lacking is not None and not lacking.live:
        advice = ("find out why no node is heard: cyxnode doctor, and check --bootstrap",)
    elif lacking is not None:
        advice = ("start more nodes, wait longer (wait_seconds), or take a smaller committee (k)",)
    nodes = f"{needed} live nodes of one execution class that fit" if needed else "enough live nodes that fit"
    return why, nodes, until_ms, "it ends UNSOLD; nothing is funded before, so nothing is lost", advice


def _funding(told: Chronicle) -> Waiting:
    until_ms = told.records[-1].at_ms + SUBMIT_ATTEMPTS_MAX * BLOCKHASHES_MAX * SLOT_MS
    then = "the order is refused; should the escrow have been opened, `cyxnode job reclaim` brings the budget back"
    return "enough nodes fit; the escrow is being funded", "the chain to confirm open_job", until_ms, then, ()


def _bidding(told: Chronicle, now_ms: int) -> Waiting:
    funded, silent = told.funded, not told.declines
    if "seated" not in told.stages:
        until_ms = told.stages.get("funded", told.since_ms) + SEAT_DEADLINE_SLOTS * SLOT_MS
        why = "the job is announced; its committee is not seated yet"
        then = f"no committee can be seated any more: {_refund(told)}"
        if now_ms > until_ms:
            return why, "the refund: it is too late to seat a committee", _refund_ms(told), _refund(told), ()
        return why, "the draw: the slot after the escrow's, and enough nodes that may sit", until_ms, then, ()
    heard = "no node has declined so far" if silent else f"{len(told.declines)} nodes declined"
    why = f"nodes bid, and the committee of {len(told.committee)} tallies the bids; {heard}"
    windows_ms = funded.windows_ms + ROUNDS_MAX * funded.round_ms if funded is not None else 0
    until_ms = told.stages["seated"] + windows_ms
    if now_ms <= until_ms:
        then = f"the committee signs UNSOLD, and {REFUNDED} at once; if it cannot agree, {_refund(told)}"
        return why, "the committee's award", until_ms, then, ()
    why += "; the time for an award is over, and no quorum has signed anything yet"
    return why, "the committee to award it or to sign UNSOLD", _refund_ms(told), _refund(told), ()


def _awarded(told: Chronicle, now_ms: int) -> Waiting:
    round_ms = told.funded.round_ms if told.funded is not None else 0
    until_ms = told.since_ms + START_LEASE_MS + 2 * round_ms
    why, waits_for = "the winner has the award and has not said yet that it began", "the winner to start"
    if "handed over" in told.stages:
        why, waits_for = "another node took over and has not said yet that it began", "that node to start"
    if now_ms > until_ms:
        return why, f"{waits_for}, or the committee to name the next", _refund_ms(told), _refund(told), ()
    return why, waits_for, until_ms, FOLLOWED, ()


def _running(told: Chronicle, now_ms: int) -> Waiting:
    worked, funded = told.worked, told.funded
    why = "the worker computes"
    if worked is not None:
        at_ms, news = worked
        said = f"{news.characters} characters of answers" if news.characters else f"{news.progress_ppm / 10_000:.1f} %"
        why += f": {said}, {max(0, now_ms - at_ms) / 1000:.0f} s ago"
    until_ms = funded.work_deadline_s * 1000 if funded is not None else None
    then = f"the committee signs FAILED, and {REFUNDED}"
    gone = f"if the worker dies, that is noticed within {DEAD_AFTER_MS // 1000} s, and {FOLLOWED}"
    return why, "the worker's result", until_ms, then, (gone,)


def _closing(told: Chronicle) -> Waiting:
    verdict = told.details["settled"] or "see its outcome"
    why = f"the committee has settled the job: {verdict}"
    if not verdict.startswith(Verdict.OK.name):
        return why, "the escrow to be closed", _refund_ms(told), f"the job ends, and {REFUNDED}", ()
    silence = f"a transfer may take as long as it needs; {STREAM_IDLE_TIMEOUT_S:.0f} s of silence end it"
    then = f"the job ends; what could not be fetched can be had later: cyxnode job result {told.name}"
    return why, f"the result to be fetched ({silence})", None, then, ()


def _refund_ms(told: Chronicle) -> int | None:
    return told.funded.refund_at_s * 1000 if told.funded is not None else None


def _refund(told: Chronicle) -> str:
    if told.funded is None:
        return "`submit` takes the refund once it is due"
    return f"`submit` takes the refund of {format_cyx(told.funded.budget)} CYX once it is due"


def _ended(told: Chronicle) -> tuple[str, tuple[str, ...]]:
    cause = told.cause or "no reason was given"
    closed = "close_job" in told.transactions
    back = REFUNDED if closed else f"{REFUNDED} once the escrow is closed: cyxnode job reclaim"
    again = "change the order, or submit it again"
    match told.phase:
        case JobPhase.SETTLED:
            fetched = "fetched" in told.stages
            why = "a quorum of the committee accepted the result, and the worker was paid"
            text = f"see where it is: cyxnode job result {told.name}"
            return (why if fetched else f"{why}; {told.cause or 'it was not fetched here'}"), (text,)
        case JobPhase.UNSOLD if told.job is None:
            return f"not enough nodes fitted within the waiting time: {cause}", (again,)
        case JobPhase.UNSOLD:
            return f"no bid counted, so the committee signed UNSOLD ({cause}); {back}", (again,)
        case JobPhase.FAILED:
            return f"the work was not accepted: {cause}; nothing is paid for it, and {back}", (again,)
        case JobPhase.FRAUD:
            return f"the worker was convicted of fraud and loses stake: {cause}; {back}", ("submit it again",)
        case JobPhase.EXPIRED:
            why = f"no quorum settled the job in time ({cause}); the budget was refunded"
            return why, ("look at the last trouble below, if any, and submit it again",)
        case _:
            return f"it did not come to a job: {cause}; {'nothing was funded' if told.job is None else back}", (again,)
