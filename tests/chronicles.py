"""Chronicles of jobs in every state, as a requester's journal holds them."""

from __future__ import annotations

from cyxnode.ledger.journal import MemoryJournal
from cyxnode.protocol.ports import Journal
from cyxnode.scheduler.chronicle import Chronicle, Chronicler, read_chronicle
from cyxnode.scheduler.chronicle_facts import (
    AnyFact,
    Declined,
    Funded,
    Kept,
    Lacking,
    Moved,
    Named,
    Placed,
    Reached,
    Seated,
    Sent,
    Troubled,
    Worked,
)
from sample_job import JOB, OPENING, TERMS, WORKER, evidence
from sample_messages import GENESIS

AT_MS = 1_800_000_000_000
"""When each order was placed; what follows comes a second apart."""
PLACED = Placed(
    kind="train", what="training of 64 steps", budget=5_000_000, k=3, wait_ms=60_000, work_seconds=600, results=""
)
LACKING = Lacking(
    fitting=2, needed=4, live=7, causes=(("have no sandbox", 3), ("are of another device", 1), ("a new cause", 1))
)
FUNDED = Funded(
    genesis=GENESIS,
    program=OPENING.program,
    execution_class=OPENING.execution_class,
    open_slot=TERMS.open_slot,
    budget=5_000_000,
    work_deadline_s=AT_MS // 1000 + 600,
    refund_at_s=AT_MS // 1000 + 900,
    units_total=4,
    fee_bps=1_000,
    verifier_share_bps=2_000,
    windows_ms=500,
    round_ms=500,
)
PROOF = evidence()
QUEUED: tuple[AnyFact, ...] = (
    PLACED,
    Reached(stage="submitted", detail=""),
    Moved(phase="queued", cause="no class is large enough"),
    LACKING,
)
OPENED: tuple[AnyFact, ...] = (
    PLACED,
    Reached(stage="submitted", detail=""),
    Named(job=JOB),
    Sent(name="open_job", signature="5" * 88),
    FUNDED,
    Moved(phase="opened", cause="5" * 88),
    Kept(what="announce", raw=PROOF.announce),
)
DECLINES = (
    Declined(node=b"1" * 32, reason="PRICE", hint="from 0.02 CYX here"),
    Declined(node=b"2" * 32, reason="PRICE", hint="from 0.03 CYX here"),
    Declined(node=b"3" * 32, reason="BUSY", hint="1 job is running"),
)
BIDDING = (
    *OPENED,
    Moved(phase="bidding", cause="gossiped"),
    Reached(stage="announced", detail="a topic"),
    *DECLINES,
)
SEATED = (*BIDDING, Sent(name="seat", signature="6" * 88), Seated(committee=TERMS.committee))
AWARDED = (
    *SEATED,
    Kept(what="certificate", raw=PROOF.certificate),
    Moved(phase="awarded", cause="the winner"),
    Reached(stage="awarded", detail=""),
)
RUNNING = (*AWARDED, Moved(phase="running", cause="the winner"), Reached(stage="started", detail=""))
HANDED_OVER = (
    *RUNNING,
    Moved(phase="awarded", cause="the next one: the worker's heartbeats stopped"),
    Reached(stage="handed over", detail="the next one takes over at 0.04 CYX and begins anew"),
)
CLAIMED = (
    *RUNNING,
    Kept(what="claim", raw=PROOF.claim),
    Moved(phase="claimed", cause="completed"),
    Reached(stage="claimed", detail="completed"),
)
DECIDED = (
    *CLAIMED,
    Kept(what="outcome", raw=PROOF.outcome),
    Sent(name="settle", signature="7" * 88),
    Reached(stage="settled", detail="OK"),
)
SETTLED = (
    *DECIDED,
    Reached(stage="fetched", detail="100 bytes"),
    Moved(phase="settled", cause="OK"),
    Reached(stage="completed", detail=""),
)
UNSOLD_UNFUNDED = (*QUEUED, Moved(phase="unsold", cause="2 of the 4 nodes needed after 60 s"))
UNSOLD = (*SEATED, Moved(phase="unsold", cause="no bid; declined: 2 PRICE (from 0.03 CYX here)"))
FAILED = (*RUNNING, Moved(phase="failed", cause="the worker reports: out of memory"))
FRAUD = (*CLAIMED, Moved(phase="fraud", cause="segment 3 replays to something else"))
EXPIRED = (
    *BIDDING,
    Troubled(detail="only 2 nodes may sit, 3 are needed"),
    Moved(phase="expired", cause="the refund time has come"),
)
CANCELLED = (PLACED, Moved(phase="cancelled", cause="refused before it was funded: budget: too little"))
WORKED = Worked(progress_ppm=430_000, epoch=3, loss_micro=1_250_000, accuracy_micro=870_000, characters=0)
STATES: dict[str, tuple[AnyFact, ...]] = {
    "draft": (PLACED,),
    "queued": QUEUED,
    "named": OPENED[:3],
    "opened": OPENED,
    "bidding": BIDDING,
    "seated": SEATED,
    "awarded": AWARDED,
    "running": RUNNING,
    "handed over": HANDED_OVER,
    "claimed": CLAIMED,
    "decided": DECIDED,
    "settled": SETTLED,
    "unsold unfunded": UNSOLD_UNFUNDED,
    "unsold": UNSOLD,
    "failed": FAILED,
    "fraud": FRAUD,
    "expired": EXPIRED,
    "cancelled": CANCELLED,
}
WINNER = WORKER.node_id


def write(journal: Journal, facts: tuple[AnyFact, ...]) -> int:
    """One more chronicle, a second between two facts; its number."""
    chronicler = Chronicler.begin(journal)
    for second, fact in enumerate(facts):
        chronicler.tell(AT_MS + 1000 * second, fact)
    return chronicler.number


def told(facts: tuple[AnyFact, ...]) -> Chronicle:
    """The same, written and read."""
    journal = MemoryJournal()
    chronicle = read_chronicle(journal, write(journal, facts))
    assert chronicle is not None
    return chronicle
