"""A case whose worker is lost: rounds of hand-over, signs of life, certificates, and what is left without them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.handover import Successor
from cyxnode.protocol.limits import HANDOVER_ROUND_MS, HANDOVER_ROUNDS_MAX, START_LEASE_MS
from cyxnode.protocol.settlement import NOBODY, Settlement
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.scheduler import verification as machine
from cyxnode.scheduler.verification import Finding, Phase, ProposeHandover

A, ME, B = (NodeId(bytes([n]) * 32) for n in range(1, 4))
LADDER = tuple(Successor(rank, NodeId(bytes([10 + rank]) * 32), 100 + rank, 5_000) for rank in range(3))
TERMS = machine.CaseTerms(JobId(b"j" * 32), ME, (A, ME, B), 2, LADDER[0].node, 100, 16, 60_000, ladder=LADDER)
RESULT, NOTHING = b"r" * 32, bytes(32)
FAILED = machine.ClaimReceived(NOTHING, "out of memory", 20, owns_up=True)


def feed(case: machine.Case, *stimuli: machine.Stimulus) -> tuple[machine.Case, list[machine.Effect]]:
    effects: list[machine.Effect] = []
    for stimulus in stimuli:
        case, more = machine.step(case, stimulus)
        effects += more
    return case, effects


def opened(terms: machine.CaseTerms = TERMS) -> machine.Case:
    return machine.open_case(terms, 0)


def lapsed(terms: machine.CaseTerms = TERMS) -> machine.Case:
    return feed(opened(terms), machine.TimePassed(START_LEASE_MS))[0]


def signed(case: machine.Case, leader: NodeId = A, round_: int = 0) -> machine.Case:
    case, agreed, reason = machine.judge_handover(case, leader, case.rank + 1, round_)
    assert agreed, reason
    return case


@pytest.mark.parametrize(
    ("stimuli", "provisional", "reason"),
    [
        ((machine.TimePassed(START_LEASE_MS),), True, f"the worker did not start within {START_LEASE_MS} ms"),
        ((machine.WorkerStarted(10), machine.WorkerLost("its heartbeats stopped", 20)), True, "its heartbeats stopped"),
        ((machine.WorkerStarted(10), FAILED), False, "the worker reports: out of memory"),
    ],
)
def test_a_lost_worker_is_followed_by_the_next(
    stimuli: tuple[machine.Stimulus, ...], provisional: bool, reason: str
) -> None:
    case, effects = feed(opened(), *stimuli)
    assert (case.phase, case.decision, case.provisional) == (Phase.HANDING_OVER, None, provisional)
    assert (case.reason, effects) == (reason, [])
    _, effects = feed(opened(replace(TERMS, me=A)), *stimuli)
    assert effects == [ProposeHandover(1, 0, reason)]


@pytest.mark.parametrize("why", ["nobody is next", "too late for its estimate"])
def test_the_job_fails_where_nobody_can_take_over(why: str) -> None:
    terms = replace(TERMS, ladder=LADDER[:1]) if why == "nobody is next" else replace(TERMS, deadline_ms=7_999)
    case = lapsed(terms)
    assert (case.phase, case.provisional) == (Phase.DECIDED, True)
    assert case.decision == Settlement(Verdict.FAILED, LADDER[0].node, 0, 0, NOTHING, 0)
    assert lapsed(replace(TERMS, deadline_ms=8_000)).phase is Phase.HANDING_OVER


@pytest.mark.parametrize(
    "claim",
    [
        machine.ClaimReceived(NOTHING, "not served", 20, blames_requester=True),
        machine.ClaimReceived(NOTHING, "the claim does not bear its worker's seal", 20),
    ],
)
def test_nobody_follows_a_worker_that_blames_the_requester_or_contradicts_the_announce(
    claim: machine.ClaimReceived,
) -> None:
    case, _ = feed(opened(), machine.WorkerStarted(10), claim)
    case, _ = feed(case, machine.TaskSought(False, 30))
    assert case.phase is Phase.DECIDED and case.decision is not None
    assert case.decision.worker == (NOBODY if claim.blames_requester else LADDER[0].node)


def test_a_missed_work_deadline_hands_nothing_over() -> None:
    assert feed(opened(), machine.WorkerStarted(10), machine.TimePassed(60_000))[0].phase is Phase.DECIDED


def test_each_round_is_led_by_the_next_member_and_the_last_one_ends_in_failure() -> None:
    case, rounds = lapsed(), []
    for round_ in range(1, HANDOVER_ROUNDS_MAX + 1):
        wake_ms = machine.next_wake_ms(case)
        assert wake_ms == START_LEASE_MS + round_ * HANDOVER_ROUND_MS
        assert feed(case, machine.TimePassed(wake_ms - 1)) == (case, [])
        case, effects = feed(case, machine.TimePassed(wake_ms))
        rounds += [effect.round for effect in effects if isinstance(effect, ProposeHandover)]
    assert rounds == [1, 4, 7, 10]
    assert (case.phase, case.provisional) == (Phase.DECIDED, True)
    assert case.decision == Settlement(Verdict.FAILED, LADDER[0].node, 0, 0, NOTHING, 0)
    late, _ = feed(
        signed(lapsed()), *(machine.TimePassed(START_LEASE_MS + n * HANDOVER_ROUND_MS) for n in range(1, 13))
    )
    revived, _ = feed(late, machine.WorkerStarted(90_000))
    assert (revived.phase, revived.decision) == (Phase.RUNNING, None), "as if nobody had been next"


def test_only_a_hand_over_that_is_due_here_is_signed_and_only_for_its_leader() -> None:
    case = lapsed()
    for leader, rank, round_, why in [
        (B, 1, 0, "not led by the proposer"),
        (A, 2, 0, "rank 0 is HANDING_OVER"),
        (A, 0, 0, "rank 0 is HANDING_OVER"),
    ]:
        unchanged, agreed, reason = machine.judge_handover(case, leader, rank, round_)
        assert (unchanged, agreed) == (case, False) and why in reason
    for phase in Phase:
        if phase is not Phase.HANDING_OVER:
            assert not machine.judge_handover(replace(case, phase=phase), A, 1, 0)[1]
    assert signed(signed(case), ME, 1).handover_signed == 1, "any round of the rank, again and again"


@pytest.mark.parametrize("phase", [Phase.AWARDED, Phase.RUNNING, Phase.HANDING_OVER])
def test_who_is_asked_early_says_so(phase: Phase) -> None:
    case = replace(lapsed(), phase=phase)
    assert machine.may_come(case, 1) and machine.may_come(case, 2)
    assert not machine.may_come(replace(case, rank=2), 1)
    assert not machine.may_come(replace(case, phase=Phase.REPLAYING), 1)


def test_a_sign_of_life_calls_off_what_is_not_signed() -> None:
    started, _ = feed(lapsed(), machine.WorkerStarted(3_100))
    assert (started.phase, started.reason, started.provisional) == (Phase.RUNNING, "", False)
    claimed, effects = feed(lapsed(), machine.ClaimReceived(RESULT, None, 3_100))
    assert (claimed.phase, effects) == (Phase.REPLAYING, [machine.ReplaySamples()])
    sought, _ = feed(lapsed(), machine.ClaimReceived(NOTHING, "not served", 3_100, blames_requester=True))
    assert sought.phase is Phase.SEEKING


def test_once_signed_no_sign_of_life_changes_anything() -> None:
    case = signed(lapsed())
    assert machine.is_bound(case) and not machine.is_bound(lapsed())
    for sign in (
        machine.WorkerStarted(3_100),
        machine.ClaimReceived(RESULT, None, 3_100),
        machine.ClaimReceived(NOTHING, "not served", 3_100, blames_requester=True),
    ):
        assert feed(case, sign) == (case, [])


@pytest.mark.parametrize("case", [lapsed(), signed(lapsed())], ids=["unsigned", "signed"])
def test_a_silent_worker_that_owns_up_is_silent_no_more(case: machine.Case) -> None:
    owned, effects = feed(case, replace(FAILED, now_ms=3_100))
    assert (owned.phase, owned.provisional, effects) == (Phase.HANDING_OVER, False, [])
    assert owned.reason == "the worker reports: out of memory"
    assert owned.handover_round_started_ms == case.handover_round_started_ms, "its rounds go on"
    assert feed(owned, machine.WorkerStarted(3_200))[0] == owned


def handed_over(case: machine.Case, rank: int = 1, now_ms: int = 4_000) -> machine.Case:
    case, effects = feed(case, machine.HandedOver(rank, now_ms))
    assert not effects
    return case


def sought() -> machine.Case:
    return feed(opened(), machine.ClaimReceived(NOTHING, "not served", 9, blames_requester=True))[0]


@pytest.mark.parametrize(
    "case",
    [
        opened(),
        feed(opened(), machine.WorkerStarted(10))[0],
        lapsed(),
        signed(lapsed()),
        feed(opened(), machine.ClaimReceived(RESULT, None, 9))[0],
        sought(),
        lapsed(replace(TERMS, deadline_ms=7_999)),
    ],
    ids=["awarded", "running", "unsigned", "signed", "replaying", "seeking", "failed"],
)
def test_a_certificate_begins_anew_with_the_successor_whatever_was_before(case: machine.Case) -> None:
    fresh = handed_over(case)
    assert (fresh.phase, fresh.rank, fresh.since_ms) == (Phase.AWARDED, 1, 4_000)
    assert (fresh.terms.worker, fresh.terms.price) == (LADDER[1].node, LADDER[1].price)
    assert (fresh.decision, fresh.result_hash, fresh.units, fresh.own, fresh.reason) == (None, NOTHING, 0, None, "")
    assert machine.next_wake_ms(fresh) == 4_000 + START_LEASE_MS, "it has a lease of its own"
    last = handed_over(case, 2)
    assert last.terms.worker == LADDER[2].node, "who missed one goes straight to the last"
    assert handed_over(fresh, 1, 9_000) is fresh, "the same again is nothing new"
    assert handed_over(last, 1, 9_000) is last, "nor is an earlier one"
    assert handed_over(case, 3) is case, "nobody is of that rank"


def test_a_sealed_verdict_binds_its_member() -> None:
    claimed, _ = feed(opened(), machine.ClaimReceived(RESULT, None, 9))
    sealed, _ = feed(claimed, machine.SamplesReplayed(True, -1, "", 20))
    assert handed_over(sealed) is sealed


def test_what_is_over_stays_over() -> None:
    closed, _ = feed(opened(), machine.OutcomeSeen())
    assert handed_over(closed) is closed


def test_verdicts_that_others_sealed_before_we_heard_of_the_hand_over_count() -> None:
    case, _ = feed(opened(), machine.WorkerStarted(10), machine.CommitReceived(B, b"b", 20), machine.MemberLost(A, 30))
    fresh = handed_over(case)
    assert fresh.commits == {B: b"b"} and fresh.lost == {A}
    fresh, effects = feed(
        fresh,
        machine.WorkerStarted(4_100),
        machine.ClaimReceived(RESULT, None, 5_000),
        machine.SamplesReplayed(True, -1, "", 5_100),
        machine.CommitReceived(ME, b"me", 5_101),
    )
    assert effects[-1] == machine.AskOpening((b"b", b"me"))


def test_the_successor_is_paid_its_own_price_and_named_when_it_fails() -> None:
    fresh, _ = feed(handed_over(opened()), machine.ClaimReceived(RESULT, None, 5_000))
    fresh, _ = feed(
        fresh,
        machine.SamplesReplayed(True, -1, "", 5_100),
        *(machine.CommitReceived(node, b"c", 5_101) for node in (A, ME, B)),
        machine.TracesOpened("", 5_200),
        *(machine.FindingRevealed(node, Finding(True, -1, True), "", 5_300) for node in (A, ME, B)),
    )
    assert fresh.decision == Settlement(Verdict.OK, LADDER[1].node, LADDER[1].price, 16, RESULT, 0b111)
    last = handed_over(opened(), 2)
    failed, _ = feed(last, machine.TimePassed(4_000 + START_LEASE_MS))
    assert failed.decision == Settlement(Verdict.FAILED, LADDER[2].node, 0, 0, NOTHING, 0)


def test_what_was_signed_for_a_settlement_is_remembered_over_a_hand_over() -> None:
    """A FAILED that silence made us sign binds its round, whoever works now."""
    case = lapsed(replace(TERMS, deadline_ms=7_999))
    assert case.decision is not None
    case, agreed, _ = machine.judge_settlement(case, A, 0, case.decision)
    assert agreed
    fresh, _ = feed(handed_over(case, 2), machine.TimePassed(4_000 + START_LEASE_MS))
    assert fresh.decision is not None
    _, agreed, reason = machine.judge_settlement(fresh, A, 0, fresh.decision)
    assert not agreed and "another settlement was signed in round 0" in reason
    assert machine.judge_settlement(fresh, ME, 1, fresh.decision)[1]
