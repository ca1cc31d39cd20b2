"""Why a job is as it is: something to hold on to in every state, whatever is left of its chronicle."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicles import AT_MS, BIDDING, FUNDED, LACKING, OPENED, PLACED, QUEUED, STATES, WORKED, told
from cyxnode.protocol.chain import JobAccount, JobState, Settle, Verdict
from cyxnode.protocol.limits import CHRONICLE_NOTES_MAX, SEAT_DEADLINE_SLOTS, SLOT_MS
from cyxnode.protocol.messages import DeclineReason
from cyxnode.protocol.settlement import NO_RESULT, NOBODY
from cyxnode.protocol.units import JobId, MicroCyx, NodeId
from cyxnode.scheduler.chronicle import Chronicle
from cyxnode.scheduler.chronicle_facts import AnyFact, Moved, Troubled, Worked
from cyxnode.scheduler.explanation import ADVICE, Explanation, explain
from cyxnode.scheduler.explanation_left import OnChain
from cyxnode.scheduler.job import FINAL, JobPhase
from sample_job import JOB, TERMS

NOW_MS = AT_MS + 30_000
LATE_MS = AT_MS + 3_600_000
ENDED = {"settled", "unsold unfunded", "unsold", "failed", "fraud", "expired", "cancelled"}


def account(state: JobState, verdict: Verdict | None = None) -> JobAccount:
    return JobAccount(
        job=JobId(JOB), requester=NodeId(b"r" * 32), budget=MicroCyx(5_000_000), spec_hash=bytes(32),
        execution_class=bytes(32), fee_bps=1_000, verifier_share_bps=2_000, k=3, m=2, open_slot=7,
        committee=TERMS.committee, work_deadline_s=FUNDED.work_deadline_s, refund_at_s=FUNDED.refund_at_s,
        units_total=4, units_paid=0, settlements=0, state=state, verdict=verdict, worker=None, paid=MicroCyx(0),
        result_hash=bytes(32), fee_mask=0, shares=(), slashed=MicroCyx(0),
    )  # fmt: skip


def settlement(verdict: Verdict) -> Settle:
    return Settle(JobId(JOB), verdict, NOBODY, MicroCyx(0), 0, NO_RESULT, 0, 0, 0, ())


CHAINS = {
    "not asked": None,
    "away": OnChain(fault="the RPC server did not answer"),
    "open": OnChain(account(JobState.SEATED)),
    "settled": OnChain(account(JobState.SETTLED, Verdict.OK)),
    "closed": OnChain(None, settlement(Verdict.OK)),
    "failed": OnChain(account(JobState.SETTLED, Verdict.FAILED)),
    "gone": OnChain(),
}


def sound(one: Explanation) -> None:
    """Says why, and what comes: a wait with its end and what follows, or what can be done."""
    texts = [one.state, one.why, one.waits_for, one.then, *one.advice, *one.notes]
    texts += [text for cause in one.causes for text in (cause.reason, cause.said, cause.advice)]
    assert one.state and one.why
    assert not [text for text in texts if "unknown" in text or "None" in text or "\n" in text]
    assert bool(one.waits_for) == bool(one.then) or not one.then
    assert one.waits_for or one.advice, "nothing to wait for and nothing to do"
    assert one.until_ms is None or one.waits_for
    assert all(cause.count > 0 and cause.advice for cause in one.causes)


@pytest.mark.parametrize("now_ms", [AT_MS, NOW_MS, LATE_MS])
@pytest.mark.parametrize("state", STATES)
def test_every_state_is_explained_while_submit_is_up(state: str, now_ms: int) -> None:
    one = explain(told(STATES[state]), now_ms, running=True)
    sound(one)
    assert (one.state in {phase.value for phase in FINAL}) == (state in ENDED) == (not one.waits_for)


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("state", STATES)
def test_every_state_is_explained_when_submit_is_gone(state: str, chain: str) -> None:
    read = told(STATES[state])
    one = explain(read, NOW_MS, running=False, chain=CHAINS[chain])
    sound(one)
    if state in ENDED:
        assert one == explain(read, NOW_MS, running=False)
    else:
        assert "`submit` ended" in one.why


@given(st.sets(st.integers(0, 30)), st.sampled_from(sorted(STATES)), st.booleans(), st.sampled_from(sorted(CHAINS)))
def test_a_chronicle_with_gaps_is_still_explained(lost: set[int], state: str, running: bool, chain: str) -> None:
    kept = tuple(fact for place, fact in enumerate(STATES[state]) if place not in lost)
    if not kept:
        return
    read = told(kept)
    read.damaged = len(STATES[state]) - len(kept)
    one = explain(read, NOW_MS, running=running, chain=CHAINS[chain])
    sound(one)
    if read.damaged:
        assert any("cannot be read" in note for note in one.notes)


def waiting(facts: tuple[AnyFact, ...], now_ms: int = NOW_MS, **changes: object) -> Explanation:
    return explain(replace(told(facts), **changes), now_ms, running=True)  # type: ignore[arg-type]


def test_a_queued_job_counts_who_does_not_fit_and_says_until_when() -> None:
    one = waiting(QUEUED)
    assert "2 of the 4 nodes needed" in one.why and "7 nodes are live" in one.why
    assert one.until_ms == AT_MS + PLACED.wait_ms and "UNSOLD" in one.then and "nothing is funded" in one.then
    assert [(cause.count, cause.reason) for cause in one.causes] == [
        (3, "have no sandbox"),
        (1, "are of another device"),
        (1, "a new cause"),
    ]
    assert one.causes[0].advice == "allow it with unsandboxed_ok" in one.advice


def test_who_hears_no_node_at_all_is_sent_to_the_doctor() -> None:
    alone = msgspec.structs.replace(LACKING, live=0, fitting=0, causes=())
    one = waiting(tuple(alone if fact is LACKING else fact for fact in QUEUED))
    assert "0 nodes are live" in one.why and any("cyxnode doctor" in text for text in one.advice)


def test_declines_are_counted_with_a_hint_and_what_to_do() -> None:
    price, busy = waiting(STATES["seated"]).causes
    assert (price.count, price.reason, price.said) == (2, "PRICE", "from 0.03 CYX here")
    assert (busy.count, busy.advice) == (1, ADVICE["BUSY"])


def test_every_reason_of_a_decline_has_advice() -> None:
    assert set(ADVICE) == {reason.name for reason in DeclineReason}


def test_a_committee_that_cannot_be_seated_any_more_leaves_the_refund() -> None:
    in_time, late = waiting(BIDDING), waiting(BIDDING, LATE_MS)
    funded_ms = AT_MS + 1000 * OPENED.index(FUNDED)
    assert in_time.until_ms == funded_ms + SEAT_DEADLINE_SLOTS * SLOT_MS and "draw" in in_time.waits_for
    assert late.until_ms == FUNDED.refund_at_s * 1000 and "too late" in late.waits_for


def test_an_award_has_windows_and_rounds_and_then_is_overdue() -> None:
    seated_ms = AT_MS + 1000 * (len(STATES["seated"]) - 1)
    in_time, late = waiting(STATES["seated"], seated_ms), waiting(STATES["seated"], seated_ms + 2_001)
    assert in_time.until_ms == seated_ms + FUNDED.windows_ms + 3 * FUNDED.round_ms and "UNSOLD" in in_time.then
    assert late.until_ms == FUNDED.refund_at_s * 1000 and "is over" in late.why


def test_a_winner_has_a_lease() -> None:
    awarded_ms = told(STATES["awarded"]).since_ms
    in_time, late = waiting(STATES["awarded"], awarded_ms), waiting(STATES["awarded"], awarded_ms + 4_001)
    assert in_time.until_ms == awarded_ms + 4_000 and "FAILED" in in_time.then
    assert late.until_ms == FUNDED.refund_at_s * 1000


def test_who_takes_over_has_a_lease_of_its_own() -> None:
    handed_over_ms = told(STATES["handed over"]).since_ms
    one = waiting(STATES["handed over"], handed_over_ms)
    assert (one.state, one.until_ms) == ("awarded", handed_over_ms + 4_000)
    assert "another node took over" in one.why and "takes over and begins anew" in one.then


def test_a_running_job_tells_its_progress_and_its_deadline() -> None:
    one = waiting(STATES["running"], worked=(NOW_MS - 2_000, WORKED))
    assert "43.0 %, 2 s ago" in one.why and one.until_ms == FUNDED.work_deadline_s * 1000
    answers = Worked(progress_ppm=0, epoch=0, loss_micro=0, accuracy_micro=0, characters=77)
    assert "77 characters of answers" in waiting(STATES["running"], worked=(NOW_MS, answers)).why


def test_a_verdict_that_is_here_is_told_before_the_job_ends() -> None:
    assert "settled the job: OK" in waiting(STATES["decided"]).why
    unsold = (*STATES["seated"], *(one for one in STATES["decided"] if getattr(one, "stage", "") == "settled"))
    assert "OK" in waiting(unsold).why


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("unsold unfunded", "2 of the 4 nodes"),
        ("unsold", "from 0.03 CYX"),
        ("failed", "out of memory"),
        ("fraud", "segment 3"),
        ("expired", "refund"),
        ("cancelled", "budget: too little"),
    ],
)
def test_an_end_names_its_cause(state: str, text: str) -> None:
    assert text in explain(told(STATES[state]), NOW_MS, running=False).why


def test_what_the_chain_knows_decides_what_can_be_done() -> None:
    read = told(STATES["running"])

    def left(chain: str, now_ms: int = NOW_MS) -> Explanation:
        return explain(read, now_ms, running=False, chain=CHAINS[chain])

    assert "has accepted the result" in left("settled").why
    assert any("job result" in text for text in left("settled").advice)
    assert any("job reclaim" in text for text in left("settled").advice)
    assert not any("job reclaim" in text for text in left("closed").advice), "there is nothing left to reclaim"
    assert left("failed").why.endswith("failed") and left("failed").state == "failed"
    assert left("open").until_ms == FUNDED.refund_at_s * 1000
    assert left("open", LATE_MS).advice == ("take it: cyxnode job reclaim",)
    assert "did not answer" in left("away").why
    assert "remembers no settlement" in left("gone").why


def test_notes_tell_of_trouble_damage_and_shortening() -> None:
    facts = (PLACED, *(Troubled(detail=str(number)) for number in range(CHRONICLE_NOTES_MAX + 1)))
    one = waiting((*facts, Moved(phase="queued", cause="")))
    assert any(note.startswith("last trouble, ") and "s ago: " in note for note in one.notes)
    assert any("not counted" in note for note in one.notes)


def test_an_empty_chronicle_is_explained_too() -> None:
    sound(explain(Chronicle(1, damaged=3), NOW_MS, running=True))
    assert explain(Chronicle(1), NOW_MS, running=False).state == JobPhase.DRAFT.value
