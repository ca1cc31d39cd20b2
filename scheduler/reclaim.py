"""Money of jobs that this requester left behind, after a crash or a power cut: nothing stays in escrow for ever.

The journal remembers every escrow that was opened. One that is settled is closed, one whose refund time has come is
refunded, one that is gone is forgotten, and any other is still in the hands of its committee.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.chain import CloseJob, JobAccount, JobState, RefundExpired, Verdict
from ..protocol.errors import ChainRejected
from ..protocol.ports import Chain, Journal
from ..protocol.units import JobId
from .chronicle import Chronicler, number_of, read_chronicle
from .chronicle_facts import Moved, Seated
from .job import ENDS, JobPhase

OPENED = b"open/"


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What was done about one job: 'closed', 'refunded', or 'open until UNIX_S'."""

    job: JobId
    what: str


def remember_escrow(journal: Journal, job: JobId, nonce: bytes, spec_hash: bytes) -> None:
    """Before the transaction that opens it is sent."""
    journal.put(OPENED + job, nonce + spec_hash)


async def reclaim(chain: Chain, journal: Journal) -> list[Reclaimed]:
    """Look after every escrow that the journal remembers. Raises ChainUnreachable when the chain is away."""
    done: list[Reclaimed] = []
    for key, value in list(journal.items(OPENED)):
        if not value:
            continue
        job = JobId(key.removeprefix(OPENED))
        what = await _reclaim_one(chain, journal, job)
        if what.startswith("open"):
            done.append(Reclaimed(job, what))
            continue
        journal.put(key, b"")
        if what:
            done.append(Reclaimed(job, what))
    return done


async def _reclaim_one(chain: Chain, journal: Journal, job: JobId) -> str:
    account = await chain.job(job)
    if account is None:
        return ""
    now_s = (await chain.time()).unix_s
    try:
        if account.state is JobState.SETTLED:
            verdict = account.verdict
            cause = "the result was not fetched" if verdict is Verdict.OK else "settled while `submit` was gone"
            _tell_end(journal, account, ENDS.get(verdict) if verdict is not None else None, cause, now_s)
            await chain.submit(CloseJob(job))
            return "closed"
        if now_s >= account.refund_at_s:
            await chain.submit(RefundExpired(job))
            _tell_end(journal, account, JobPhase.EXPIRED, "refunded after its time", now_s)
            return "refunded"
    except ChainRejected:
        if await chain.job(job) is None:
            return ""  # somebody else was quicker
        raise
    return f"open until {account.refund_at_s}"


def _tell_end(journal: Journal, account: JobAccount, phase: JobPhase | None, cause: str, now_s: int) -> None:
    """The end of a job in its chronicle, which its `submit` did not live to write; its committee is told by nobody else
    once the escrow is closed."""
    number = number_of(journal, account.job)
    told = read_chronicle(journal, number) if number else None
    if told is None:
        return
    chronicler = Chronicler.resume(journal, number)
    if account.committee and not told.committee:
        chronicler.tell(now_s * 1000, Seated(committee=account.committee))
    if phase is not None and not told.ended:
        chronicler.tell(now_s * 1000, Moved(phase=phase.value, cause=cause))
