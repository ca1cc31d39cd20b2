"""The verification machine: leases, verdicts, disputes, decisions, settlements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.limits import (
    DISPUTES_MAX,
    FRAUD_ROUNDS_MAX,
    SETTLE_ROUND_MS,
    SETTLE_ROUNDS_MAX,
    START_LEASE_MS,
    STRICT_MASK_ROUNDS,
    VERDICT_COMMIT_WAIT_MS,
    VERDICT_REVEAL_WAIT_MS,
)
from cyxnode.protocol.settlement import NOBODY, Settlement
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.scheduler import verification as machine
from cyxnode.scheduler.verification import Conviction, Finding, Phase

ME, A, B, WORKER = (NodeId(bytes([n]) * 32) for n in range(1, 5))
TERMS = machine.CaseTerms(JobId(b"j" * 32), ME, (A, ME, B), 2, WORKER, price=100, units=16, deadline_ms=60_000)
RESULT = b"r" * 32
FINE, UNCOUNTED = Finding(True, -1, True), Finding(True, -1, False)


def feed(case: machine.Case, *stimuli: machine.Stimulus) -> tuple[machine.Case, list[machine.Effect]]:
    effects: list[machine.Effect] = []
    for stimulus in stimuli:
        case, more = machine.step(case, stimulus)
        effects += more
    return case, effects


def replaying() -> machine.Case:
    case = machine.open_case(TERMS, 0)
    return feed(case, machine.WorkerStarted(10), machine.ClaimReceived(RESULT, None, 100))[0]


def revealed(ok: bool = True, segment: int = -1, commits: tuple[NodeId, ...] = (ME, A, B)) -> machine.Case:
    case, _ = feed(replaying(), machine.SamplesReplayed(ok, segment, "" if ok else "mine", 200))
    case, _ = feed(case, *(machine.CommitReceived(node, b"c", 210) for node in commits))
    if len(commits) < 3:
        case, _ = feed(case, machine.TimePassed(200 + VERDICT_COMMIT_WAIT_MS))
    case, effects = feed(case, machine.TracesOpened("", case.since_ms + 1))
    assert effects == [machine.SendReveal()]
    return case


def found(member: NodeId, finding: Finding = FINE) -> machine.FindingRevealed:
    return machine.FindingRevealed(member, finding, "theirs", 300)


def test_a_worker_that_does_not_start_or_finish_fails() -> None:
    case = machine.open_case(TERMS, 0)
    assert machine.next_wake_ms(case) == START_LEASE_MS
    lapsed, _ = feed(case, machine.TimePassed(START_LEASE_MS))
    assert lapsed.decision is not None
    assert (lapsed.decision.verdict, lapsed.decision.worker, lapsed.decision.price) == (Verdict.FAILED, WORKER, 0)
    late, _ = feed(case, machine.WorkerStarted(10), machine.TimePassed(60_000))
    assert "deadline" in late.reason
    lost, _ = feed(case, machine.WorkerLost("gone", 5))
    assert lost.reason == "gone"


def test_a_decision_that_rests_on_silence_is_undone_by_a_sign_of_life() -> None:
    lapsed, _ = feed(machine.open_case(TERMS, 0), machine.TimePassed(START_LEASE_MS))
    assert lapsed.provisional
    started, _ = feed(lapsed, machine.WorkerStarted(START_LEASE_MS + 5))
    assert (started.phase, started.decision, started.reason) == (Phase.RUNNING, None, "")
    lost, _ = feed(started, machine.WorkerLost("gone", 4_000))
    claimed, effects = feed(lost, machine.ClaimReceived(RESULT, None, 5_000))
    assert (claimed.phase, claimed.decision) == (Phase.REPLAYING, None)
    assert effects == [machine.ReplaySamples()]
    late, _ = feed(started, machine.TimePassed(60_000), machine.ClaimReceived(RESULT, None, 60_001))
    assert late.decision is not None, "a missed deadline is not silence"


def test_a_claim_that_says_failed_is_a_failure() -> None:
    case, _ = feed(machine.open_case(TERMS, 0), machine.ClaimReceived(RESULT, "out of memory", 5))
    assert case.reason == "the worker reports: out of memory"


def test_a_worker_that_was_not_served_is_named_only_if_we_were() -> None:
    blamed = machine.ClaimReceived(RESULT, "not served", 5, blames_requester=True)
    case, effects = feed(machine.open_case(TERMS, 0), machine.WorkerStarted(1), blamed)
    assert (case.phase, effects) == (Phase.SEEKING, [machine.SeekTask()])
    found, _ = feed(case, machine.TaskSought(True, 9))
    assert found.decision == Settlement(Verdict.FAILED, WORKER, 0, 0, bytes(32), 0)
    assert found.reason == "the worker reports: not served"
    impossible, _ = feed(case, machine.TaskSought(False, 9, "the prompt is too long"))
    assert impossible.decision == Settlement(Verdict.FAILED, NOBODY, 0, 0, bytes(32), 0)
    assert impossible.reason == "the prompt is too long"
    vain, _ = feed(case, machine.TaskSought(False, 9))
    assert vain.decision == Settlement(Verdict.FAILED, NOBODY, 0, 0, bytes(32), 0)
    assert "the requester does not serve" in vain.reason
    assert feed(vain, machine.TaskSought(True, 10))[0] is vain
    wake_ms = machine.next_wake_ms(case)
    assert wake_ms is not None
    assert feed(case, machine.TimePassed(wake_ms - 1))[0].phase is Phase.SEEKING
    assert feed(case, machine.TimePassed(wake_ms))[0].phase is Phase.GIVEN_UP


def test_traces_are_asked_for_once_all_verdicts_are_sealed_or_m_of_them_after_the_wait() -> None:
    case, effects = feed(replaying(), machine.SamplesReplayed(True, -1, "", 200))
    assert effects == [machine.SendCommit(FINE)]
    case, effects = feed(case, machine.CommitReceived(ME, b"m", 201), machine.CommitReceived(A, b"a", 202))
    assert not effects
    _, effects = feed(case, machine.CommitReceived(B, b"b", 203))
    assert effects == [machine.AskOpening((b"m", b"a", b"b"))]
    _, effects = feed(case, machine.TimePassed(200 + VERDICT_COMMIT_WAIT_MS))
    assert effects == [machine.AskOpening((b"m", b"a"))]


def test_nobody_waits_for_the_verdict_of_a_dead_member() -> None:
    case, _ = feed(replaying(), machine.MemberLost(B, 150), machine.SamplesReplayed(True, -1, "", 200))
    case, effects = feed(case, machine.CommitReceived(ME, b"m", 201))
    assert not effects, "one verdict is no quorum"
    _, effects = feed(case, machine.CommitReceived(A, b"a", 202))
    assert effects == [machine.AskOpening((b"m", b"a"))]
    case, _ = feed(replaying(), machine.SamplesReplayed(True, -1, "", 200))
    case, effects = feed(case, *(machine.CommitReceived(node, b"c", 201) for node in (ME, A)))
    assert not effects
    assert feed(case, machine.MemberLost(B, 300))[1] == [machine.AskOpening((b"c", b"c"))]


def test_a_verdict_sealed_after_the_traces_were_asked_for_is_too_late() -> None:
    case = revealed(commits=(ME, A))
    assert set(feed(case, machine.CommitReceived(B, b"b", 70_000))[0].commits) == {ME, A}


def test_too_few_verdicts_end_in_nothing() -> None:
    case, _ = feed(replaying(), machine.SamplesReplayed(True, -1, "", 200), machine.CommitReceived(ME, b"m", 201))
    case, effects = feed(case, machine.TimePassed(200 + VERDICT_COMMIT_WAIT_MS))
    assert case.phase is Phase.GIVEN_UP
    assert isinstance(effects[0], machine.GiveUp)


def test_our_own_replay_that_never_ends_ends_the_case() -> None:
    case = replaying()
    wake_ms = machine.next_wake_ms(case)
    assert wake_ms is not None
    assert feed(case, machine.TimePassed(wake_ms))[0].phase is Phase.GIVEN_UP


@pytest.mark.parametrize("refuted", ["other traces", None])
def test_a_worker_that_does_not_open_its_traces_fails(refuted: str | None) -> None:
    case, _ = feed(replaying(), machine.SamplesReplayed(True, -1, "", 200))
    case, _ = feed(case, *(machine.CommitReceived(node, b"c", 210) for node in (ME, A, B)))
    last = machine.TimePassed(210 + VERDICT_REVEAL_WAIT_MS) if refuted is None else machine.TracesOpened(refuted, 220)
    case, _ = feed(case, last)
    assert case.decision is not None
    assert case.decision.verdict is Verdict.FAILED


def test_ok_pays_for_the_units_of_the_claim_and_never_for_more_than_there_are() -> None:
    for claimed, paid in ((5, 5), (17, 16), (None, 16)):
        case, _ = feed(machine.open_case(TERMS, 0), machine.ClaimReceived(RESULT, None, 100, units=claimed))
        case, _ = feed(case, machine.SamplesReplayed(True, -1, "", 200))
        case, _ = feed(case, *(machine.CommitReceived(node, b"c", 210) for node in (ME, A, B)))
        case, _ = feed(case, machine.TracesOpened("", 220), found(ME), found(A), found(B))
        assert case.decision == Settlement(Verdict.OK, WORKER, 100, paid, RESULT, 0b111)


def test_ok_names_the_members_whose_verdicts_count() -> None:
    case, effects = feed(revealed(), found(ME), found(A), found(B, UNCOUNTED))
    assert case.decision == Settlement(Verdict.OK, WORKER, 100, 16, RESULT, 0b011)
    assert not effects


def test_nobody_waits_for_the_reveal_of_a_member_that_sealed_nothing() -> None:
    case, _ = feed(revealed(commits=(ME, A)), found(ME), found(A))
    assert case.decision is not None
    assert case.decision.fee_mask == 0b011


def test_a_member_that_sealed_and_does_not_reveal_is_waited_for_and_left_out() -> None:
    case, _ = feed(revealed(), found(ME), found(A))
    assert case.decision is None
    case, _ = feed(case, machine.TimePassed(case.since_ms + VERDICT_REVEAL_WAIT_MS))
    assert case.decision is not None
    assert case.decision.fee_mask == 0b011


def test_no_ok_without_m_counted_verdicts() -> None:
    case, _ = feed(revealed(), found(ME), found(A, UNCOUNTED), found(B, UNCOUNTED))
    assert case.decision is None
    case, _ = feed(case, machine.TimePassed(case.since_ms + VERDICT_REVEAL_WAIT_MS))
    assert case.phase is Phase.GIVEN_UP


def test_an_accusation_is_replayed_and_believed_only_if_it_holds() -> None:
    accused, effects = feed(revealed(), found(ME), found(A, Finding(False, 7, True)), found(B))
    assert effects == [machine.ReplayDisputed(7)]
    assert accused.decision is None
    refuted, _ = feed(accused, machine.DisputeReplayed(7, False, 400))
    assert refuted.decision is not None
    assert (refuted.decision.verdict, refuted.decision.fee_mask) == (Verdict.OK, 0b110)
    confirmed, _ = feed(accused, machine.DisputeReplayed(7, True, 400))
    assert confirmed.decision is not None
    assert confirmed.decision.verdict is Verdict.FAILED


def test_our_own_conviction_needs_nobody_else() -> None:
    case, _ = feed(revealed(ok=False, segment=3), found(ME, Finding(False, 3, True)))
    assert case.decision is not None
    assert case.decision.verdict is Verdict.FAILED
    assert case.reason == "mine"


GROSS = Conviction(7, b"e" * 32, gross=True)
FRAUD = Settlement(Verdict.FRAUD, WORKER, 100, 0, RESULT, 0)
FAILED = Settlement(Verdict.FAILED, WORKER, 0, 0, bytes(32), 0)


def convicted(*, gross: bool = True) -> machine.Case:
    """Our own sample replays to other bits."""
    own = replace(GROSS, gross=gross)
    case, _ = feed(replaying(), machine.SamplesReplayed(False, 7, "mine", 200, own))
    case, _ = feed(case, *(machine.CommitReceived(node, b"c", 210) for node in (ME, A, B)))
    case, _ = feed(case, machine.TracesOpened("", 220), found(ME, Finding(False, 7, True)))
    return case


def test_a_gross_difference_is_fraud_and_a_small_one_is_not() -> None:
    assert convicted().decision == FRAUD
    assert convicted(gross=False).decision == FAILED


def test_an_accusation_that_our_own_replay_confirms_grossly_is_fraud() -> None:
    accused, _ = feed(revealed(), found(ME), found(A, Finding(False, 7, True)))
    assert feed(accused, machine.DisputeReplayed(7, True, 400, GROSS))[0].decision == FRAUD
    assert feed(accused, machine.DisputeReplayed(7, True, 400))[0].decision == FAILED, "nothing was measured"


def test_fraud_is_signed_for_the_same_bits_only() -> None:
    case = convicted()
    proof = (GROSS.segment, GROSS.end_hash)
    assert machine.judge_settlement(case, A, 0, FRAUD, proof)[1]
    for asked, wrong in (
        (FRAUD, (GROSS.segment, bytes(32))),
        (FRAUD, (8, GROSS.end_hash)),
        (FRAUD, (-1, bytes(32))),
        (replace(FRAUD, price=99), proof),
        (replace(FRAUD, result_hash=bytes(32)), proof),
        (replace(FRAUD, fee_mask=1), proof),
        (FAILED, (-1, bytes(32))),
    ):
        assert not machine.judge_settlement(case, A, 0, asked, wrong)[1]
    lesser = feed(case, machine.DisputeReplayed(7, True, 400, replace(GROSS, gross=False)))[0]
    assert lesser == case, "what we found ourselves is not replayed again"


def test_a_proposal_that_rests_on_another_segment_has_it_replayed_first() -> None:
    case, other = convicted(), Conviction(3, b"f" * 32, gross=True)
    assert machine.lacks_proof(case, FRAUD, 3)
    assert not machine.lacks_proof(case, FAILED, 3)
    assert not machine.judge_settlement(case, A, 0, FRAUD, (3, other.end_hash))[1]
    case, effects = feed(case, machine.SegmentAccused(3, 500))
    assert effects == [machine.ReplayDisputed(3)]
    assert feed(case, machine.SegmentAccused(3, 501)) == (case, [])
    case, _ = feed(case, machine.DisputeReplayed(3, True, 600, other))
    assert case.decision == FRAUD
    assert not machine.lacks_proof(case, FRAUD, 3)
    assert machine.judge_settlement(case, A, 0, FRAUD, (3, other.end_hash))[1]


def test_accusations_have_a_bound() -> None:
    case, replays = convicted(), 0
    for segment in range(8, 100):
        case, effects = feed(case, machine.SegmentAccused(segment, 500))
        replays += len(effects)
    assert replays == DISPUTES_MAX


def test_fraud_that_finds_no_quorum_becomes_failed() -> None:
    case = convicted()
    proposals: list[machine.ProposeSettlement] = []
    for round_ in range(1, FRAUD_ROUNDS_MAX + 3):
        case, effects = feed(case, machine.TimePassed(case.round_started_ms + SETTLE_ROUND_MS))
        proposals += [effect for effect in effects if isinstance(effect, machine.ProposeSettlement)]
        assert case.round == round_
    for proposal in proposals:
        early = proposal.round < FRAUD_ROUNDS_MAX
        assert proposal.settlement == (FRAUD if early else FAILED)
        assert proposal.proof == (GROSS if early else None)
    assert {proposal.settlement.verdict for proposal in proposals} == {Verdict.FRAUD, Verdict.FAILED}
    late, leader = FRAUD_ROUNDS_MAX, case.leader(FRAUD_ROUNDS_MAX)
    assert machine.judge_settlement(case, leader, late, FAILED)[1]
    assert not machine.judge_settlement(case, leader, late, FRAUD, (GROSS.segment, GROSS.end_hash))[1]


def test_a_settlement_is_signed_for_its_leader_once_a_round_and_only_as_decided() -> None:
    case, _ = feed(revealed(), found(ME), found(A), found(B, UNCOUNTED))
    mine = case.decision
    assert mine is not None
    signed, agreed, _ = machine.judge_settlement(case, A, 0, mine)
    assert agreed
    for leader, round_, asked in (
        (B, 0, mine),
        (A, 0, replace(mine, price=101)),
        (A, 0, replace(mine, verdict=Verdict.FAILED)),
        (A, 0, replace(mine, fee_mask=0b111)),
        (A, 0, replace(mine, fee_mask=0b001)),
        (A, 0, replace(mine, worker=NOBODY)),
    ):
        assert machine.judge_settlement(signed, leader, round_, asked)[1] is False


def test_a_mask_that_leaves_out_somebody_we_count_is_signed_only_in_late_rounds() -> None:
    case, _ = feed(revealed(), found(ME), found(A), found(B))
    assert case.decision is not None
    short = replace(case.decision, fee_mask=0b011)
    assert machine.judge_settlement(case, case.leader(0), 0, short)[1] is False
    late = STRICT_MASK_ROUNDS
    assert machine.judge_settlement(case, case.leader(late), late, short)[1] is True


def test_an_unsold_job_is_settled_with_nobody() -> None:
    case, effects = machine.open_unsold(replace(TERMS, committee=(ME, A, B)), "no bid", 0)
    assert case.decision == Settlement(Verdict.UNSOLD, NOBODY, 0, 0, bytes(32), 0)
    assert [type(effect) for effect in effects] == [machine.ProposeSettlement]


def test_settlement_rounds_change_leaders_and_end() -> None:
    case, effects = machine.open_unsold(TERMS, "no bid", 0)
    assert not effects
    for round_ in range(1, SETTLE_ROUNDS_MAX):
        case, effects = feed(case, machine.TimePassed(round_ * SETTLE_ROUND_MS))
        assert bool(effects) == (case.leader(round_) == ME)
    case, _ = feed(case, machine.TimePassed(SETTLE_ROUNDS_MAX * SETTLE_ROUND_MS))
    assert case.phase is Phase.GIVEN_UP
    assert feed(case, machine.OutcomeSeen()) == (case, [])


def test_the_outcome_closes_a_case_in_any_phase() -> None:
    for case in (machine.open_case(TERMS, 0), replaying(), revealed()):
        assert feed(case, machine.OutcomeSeen())[0].phase is Phase.CLOSED
