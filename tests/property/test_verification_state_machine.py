"""Random cases: whatever worker and members do, money moves only on proof."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.limits import FRAUD_ROUNDS_MAX
from cyxnode.protocol.settlement import Settlement
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.scheduler import verification as machine
from cyxnode.scheduler import verification_settling
from cyxnode.scheduler.verification import Finding, Phase

NODES = [NodeId(bytes([n]) * 32) for n in range(1, 7)]
ME, WORKER = NODES[0], NODES[5]
COMMITTEE = tuple(NODES[:5])
TERMS = machine.CaseTerms(JobId(b"j" * 32), ME, COMMITTEE, 3, WORKER, price=100, units=16, deadline_ms=60_000)
FINAL = (Phase.CLOSED, Phase.GIVEN_UP)
nodes = st.sampled_from(NODES)
findings = st.builds(Finding, st.booleans(), st.integers(-1, 3), st.booleans())
steps = st.integers(0, 40_000)
settlements = st.builds(
    Settlement,
    st.sampled_from(Verdict),
    st.sampled_from([WORKER, ME]),
    st.sampled_from([0, 100]),
    st.sampled_from([0, 16]),
    st.sampled_from([b"r" * 32, bytes(32)]),
    st.integers(0, 31),
)
pytestmark = pytest.mark.slow


def conviction(segment: int, gross: bool | None) -> machine.Conviction | None:
    """What our replay of a bad segment gave; None where nothing was measured."""
    return machine.Conviction(segment, b"e" * 32, gross) if segment >= 0 and gross is not None else None


class Cases(RuleBasedStateMachine):
    """A seat on a committee of five, m = 3."""

    @initialize()
    def award(self) -> None:
        self.now = 0
        self.case = machine.open_case(TERMS, 0)
        self.signed: dict[int, bytes] = {}
        self.convicted = False

    def feed(self, stimulus: machine.Stimulus) -> None:
        before = self.case
        self.case, effects = machine.step(before, stimulus)
        if before.phase in FINAL:
            assert self.case == before
            assert not effects
        if before.decision is not None and not before.provisional:
            assert self.case.decision == before.decision, "only silence is forgiven"

    def forgiven(self) -> bool:
        """Whether a sign of life undoes the decision."""
        return self.case.provisional and self.case.phase not in FINAL

    @rule(after=steps)
    def starts(self, after: int) -> None:
        self.now += after // 20
        self.convicted = self.convicted and not self.forgiven()
        self.feed(machine.WorkerStarted(self.now))

    @rule(failure=st.sampled_from([None, None, "out of memory"]))
    def claims(self, failure: str | None) -> None:
        self.convicted = (self.convicted and not self.forgiven()) or failure is not None
        self.feed(machine.ClaimReceived(b"r" * 32, failure, self.now))

    @rule()
    def loses_the_worker(self) -> None:
        self.convicted = self.convicted or self.case.phase in (Phase.AWARDED, Phase.RUNNING)
        self.feed(machine.WorkerLost("gone", self.now))

    @rule(ok=st.booleans(), segment=st.integers(-1, 3), gross=st.sampled_from([None, False, True]))
    def replays(self, ok: bool, segment: int, gross: bool | None) -> None:
        self.convicted = self.convicted or (not ok and self.case.phase is Phase.REPLAYING)
        accused = -1 if ok else segment
        self.feed(machine.SamplesReplayed(ok, accused, "", self.now, conviction(accused, gross)))

    @rule(member=nodes)
    def commits(self, member: NodeId) -> None:
        before, asked = set(self.case.commits), self.case.asked_opening
        self.feed(machine.CommitReceived(member, b"c" + member, self.now))
        assert not asked or set(self.case.commits) == before

    @rule(valid=st.sampled_from([True, True, True, False]))
    def opens(self, valid: bool) -> None:
        self.convicted = self.convicted or (not valid and self.case.phase is Phase.COMMITTED)
        self.feed(machine.TracesOpened("" if valid else "refuted", self.now))

    @rule(member=nodes, finding=findings)
    def reveals(self, member: NodeId, finding: Finding) -> None:
        self.feed(machine.FindingRevealed(member, finding, "", self.now))

    @rule(segment=st.integers(0, 3), mismatch=st.booleans(), gross=st.sampled_from([None, False, True]))
    def replays_a_dispute(self, segment: int, mismatch: bool, gross: bool | None) -> None:
        self.convicted = self.convicted or (mismatch and self.case.phase is Phase.DISPUTED)
        found = conviction(segment, gross) if mismatch else None
        self.feed(machine.DisputeReplayed(segment, mismatch, self.now, found))

    @rule(segment=st.integers(0, 3))
    def hears_an_accusation(self, segment: int) -> None:
        self.feed(machine.SegmentAccused(segment, self.now))

    @rule(after=steps)
    def time(self, after: int) -> None:
        self.now += after
        silent = (Phase.AWARDED, Phase.RUNNING, Phase.COMMITTED)
        before = self.case.phase
        self.feed(machine.TimePassed(self.now))
        if before in silent and self.case.decision is not None:
            self.convicted = True

    @rule(leader=nodes, round_=st.sampled_from([0, 1, 2, 3, 4, 10, 11]), asked=settlements, ours=st.booleans())
    def asks_for_a_signature(self, leader: NodeId, round_: int, asked: Settlement, ours: bool) -> None:
        if ours and self.case.decision is not None:
            due = verification_settling.due(self.case, round_)
            assert due is not None
            asked = replace(due, fee_mask=asked.fee_mask)
        proved = next((one for one in self.case.convictions.values() if one.gross), None)
        proof = (proved.segment, proved.end_hash) if ours and proved is not None else (-1, bytes(32))
        self.case, agreed, reason = machine.judge_settlement(self.case, leader, round_, asked, proof)
        if not agreed:
            assert reason
            return
        assert self.signed.setdefault(round_, asked.digest) == asked.digest
        assert leader == self.case.leader(round_)
        assert self.case.decision is not None
        given_up = self.case.decision.verdict is Verdict.FRAUD and round_ >= FRAUD_ROUNDS_MAX
        assert asked.verdict is (Verdict.FAILED if given_up else self.case.decision.verdict)
        if asked.verdict is Verdict.OK:
            masked = [node for i, node in enumerate(COMMITTEE) if asked.fee_mask >> i & 1]
            assert len(masked) >= TERMS.m
            assert all(self.case.findings[node].counted and self.case.findings[node].ok for node in masked)
        elif asked.verdict is Verdict.FRAUD:
            assert (asked.price, asked.units, asked.fee_mask) == (100, 0, 0)
            assert self.case.convictions[proof[0]].gross
            assert round_ < FRAUD_ROUNDS_MAX
        else:
            assert (asked.price, asked.fee_mask) == (0, 0)

    @rule()
    def hears_the_outcome(self) -> None:
        self.feed(machine.OutcomeSeen())

    @rule()
    def wakes(self) -> None:
        wake_ms = machine.next_wake_ms(self.case)
        if wake_ms is None:
            return
        self.now = max(self.now, wake_ms)
        before = self.case
        self.time(0)
        assert self.case != before

    @invariant()
    def decisions_have_proof(self) -> None:
        decision = self.case.decision if hasattr(self, "case") else None
        if decision is None:
            return
        if decision.verdict is Verdict.OK:
            counted = [node for node, one in self.case.findings.items() if one.ok and one.counted]
            assert len(counted) >= TERMS.m
            assert self.case.own is not None
            assert self.case.own.ok
            assert not any(self.case.disputes.values())
            assert (decision.worker, decision.price, decision.units) == (WORKER, 100, 16)
        elif decision.verdict is Verdict.FRAUD:
            assert self.convicted
            assert any(one.gross for one in self.case.convictions.values())
            assert (decision.worker, decision.price, decision.units) == (WORKER, 100, 0)
        else:
            assert decision.verdict is Verdict.FAILED
            assert self.convicted
            assert decision.price == 0


Cases.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestCases = Cases.TestCase
