"""Money of jobs that this requester left behind, after a crash or a power cut: nothing stays in escrow for ever.

The journal remembers every escrow that was opened. One that is settled is closed, one whose refund time has come is
refunded, one that is gone is forgotten, and any other is still in the hands of its committee.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.chain import CloseJob, JobState, RefundExpired
from ..protocol.errors import ChainRejected
from ..protocol.ports import Chain, Journal
from ..protocol.units import JobId

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
        what = await _reclaim_one(chain, job)
        if what.startswith("open"):
            done.append(Reclaimed(job, what))
            continue
        journal.put(key, b"")
        if what:
            done.append(Reclaimed(job, what))
    return done


async def _reclaim_one(chain: Chain, job: JobId) -> str:
    account = await chain.job(job)
    if account is None:
        return ""
    try:
        if account.state is JobState.SETTLED:
            await chain.submit(CloseJob(job))
            return "closed"
        if (await chain.time()).unix_s >= account.refund_at_s:
            await chain.submit(RefundExpired(job))
            return "refunded"
    except ChainRejected:
        if await chain.job(job) is None:
            return ""  # somebody else was quicker
        raise
    return f"open until {account.refund_at_s}"
