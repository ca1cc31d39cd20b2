"""Three members of one committee, who lose, hear and hand over workers in any order: nobody contradicts itself, nobody
goes back, and every case ends."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.handover import Successor, slot
from cyxnode.protocol.hashing import handover_digest
from cyxnode.protocol.limits import HANDOVER_ROUNDS_MAX, SETTLE_ROUNDS_MAX
from cyxnode.protocol.settlement import Settlement
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.scheduler import verification as machine
from cyxnode.scheduler.verification import Finding, Phase

JOB, AWARD = JobId(b"j" * 32), b"a" * 32
MEMBERS = tuple(NodeId(bytes([n]) * 32) for n in (1, 2, 3))
LADDER = tuple(Successor(rank, NodeId(bytes([10 + rank]) * 32), 100 + 10 * rank, 5_000) for rank in range(3))
DEADLINE_MS, UNITS, M = 60_000, 16, 2
FINAL = (Phase.CLOSED, Phase.GIVEN_UP)
members = st.integers(0, 2)
ranks = st.integers(0, 2)
pytestmark = pytest.mark.slow


def digest(rank: int) -> bytes:
    step = LADDER[rank]
    return handover_digest(JOB, AWARD, rank, 0, step.node, step.price)


class Committee(RuleBasedStateMachine):
    """Each member has a clock of its own; what one sends reaches any of the others, or none."""

    @initialize()
    def award(self) -> None:
        self.now = [0, 0, 0]
        self.cases = [
            machine.open_case(
                machine.CaseTerms(JOB, me, MEMBERS, M, LADDER[0].node, 100, UNITS, DEADLINE_MS, ladder=LADDER), 0
            )
            for me in MEMBERS
        ]
        self.proposals: list[tuple[int, int, int]] = []
        self.signatures: dict[tuple[int, int], bytes] = {}
        self.signers: dict[tuple[int, int], set[int]] = {}
        self.due = [0, 0, 0]
        """Of each member: the highest rank whose certificate it saw before its verdict was sealed."""

    def feed(self, member: int, stimulus: machine.Stimulus) -> None:
        before = self.cases[member]
        case, effects = machine.step(before, stimulus)
        self.cases[member] = case
        assert case.rank >= before.rank, "nobody goes back to a worker that was replaced"
        assert case.rank == before.rank or isinstance(stimulus, machine.HandedOver)
        assert case.own is None or case.rank == before.rank, "a sealed verdict binds"
        if before.phase in FINAL:
            assert case == before and not effects
        for effect in effects:
            if isinstance(effect, machine.ProposeHandover):
                assert (case.phase, effect.rank) == (Phase.HANDING_OVER, case.rank + 1)
                assert MEMBERS[effect.round % 3] == MEMBERS[member]
                self.proposals.append((member, effect.rank, effect.round))
                self.sign(member, member, effect.rank, effect.round)
            if isinstance(effect, machine.ReplaySamples):
                assert case.phase is Phase.REPLAYING

    def sign(self, member: int, leader: int, rank: int, round_: int) -> None:
        before = self.cases[member]
        self.cases[member], agreed, reason = machine.judge_handover(before, MEMBERS[leader], rank, round_)
        if not agreed:
            assert reason and self.cases[member] == before
            return
        assert before.phase is Phase.HANDING_OVER and rank == before.rank + 1
        place = (member, slot(rank, round_))
        assert self.signatures.setdefault(place, digest(rank)) == digest(rank)
        self.signers.setdefault((rank, round_), set()).add(member)
        assert machine.is_bound(self.cases[member])

    @rule(member=members, leader=members, rank=st.integers(1, 2), round_=st.integers(0, HANDOVER_ROUNDS_MAX - 1))
    def is_asked_by_anyone(self, member: int, leader: int, rank: int, round_: int) -> None:
        self.sign(member, leader, rank, round_)

    @rule(member=members, which=st.integers(0, 100))
    def is_asked_by_a_leader(self, member: int, which: int) -> None:
        if self.proposals:
            leader, rank, round_ = self.proposals[which % len(self.proposals)]
            self.sign(member, leader, rank, round_)

    @rule(member=members, which=st.integers(0, 100))
    def sees_a_certificate(self, member: int, which: int) -> None:
        certified = [rank for (rank, _), signers in self.signers.items() if len(signers) >= M]
        if certified:
            rank = certified[which % len(certified)]
            if self.cases[member].own is None and self.cases[member].phase not in FINAL:
                self.due[member] = max(self.due[member], rank)
            self.feed(member, machine.HandedOver(rank, self.now[member]))

    def heard(self, member: int, rank: int) -> bool:
        """What the shell sees to: only the present worker is heard, and not while we are bound."""
        return self.cases[member].rank == rank and not machine.is_bound(self.cases[member])

    @rule(member=members, rank=ranks)
    def worker_starts(self, member: int, rank: int) -> None:
        if self.heard(member, rank):
            self.feed(member, machine.WorkerStarted(self.now[member]))

    @rule(member=members, rank=ranks)
    def worker_is_lost(self, member: int, rank: int) -> None:
        if self.cases[member].rank == rank:
            self.feed(member, machine.WorkerLost("silent", self.now[member]))

    @rule(member=members, rank=ranks)
    def worker_reports_its_failure(self, member: int, rank: int) -> None:
        if self.cases[member].rank == rank:
            claim = machine.ClaimReceived(bytes(32), "out of memory", self.now[member], owns_up=True)
            self.feed(member, claim)

    @rule(member=members, rank=ranks)
    def worker_claims(self, member: int, rank: int) -> None:
        if self.heard(member, rank):
            self.feed(member, machine.ClaimReceived(bytes([rank + 1]) * 32, None, self.now[member]))

    @rule(member=members, ok=st.booleans())
    def seals_its_verdict(self, member: int, ok: bool) -> None:
        if self.cases[member].phase is Phase.REPLAYING:
            self.feed(member, machine.SamplesReplayed(ok, -1, "", self.now[member]))
            for other in range(3):
                self.feed(other, machine.CommitReceived(MEMBERS[member], b"sealed", self.now[other]))

    @rule(member=members)
    def verdicts_are_opened(self, member: int) -> None:
        if self.cases[member].phase is Phase.COMMITTED:
            self.feed(member, machine.TracesOpened("", self.now[member]))
        for other, case in enumerate(self.cases):
            if case.own is not None:
                same = case.rank == self.cases[member].rank
                finding = Finding(case.own.ok, -1, counted=same)
                self.feed(member, machine.FindingRevealed(MEMBERS[other], finding, "", self.now[member]))

    @rule(member=members, after=st.integers(0, 8_000))
    def time(self, member: int, after: int) -> None:
        self.now[member] += after
        self.feed(member, machine.TimePassed(self.now[member]))

    @rule(member=members)
    def wakes(self, member: int) -> None:
        wake_ms = machine.next_wake_ms(self.cases[member])
        if wake_ms is None:
            return
        self.now[member] = max(self.now[member], wake_ms)
        before = self.cases[member]
        self.feed(member, machine.TimePassed(self.now[member]))
        assert self.cases[member] != before

    @invariant()
    def money_goes_to_the_present_worker_alone(self) -> None:
        for member, case in enumerate(getattr(self, "cases", [])):
            step = LADDER[case.rank]
            assert (case.terms.worker, case.terms.price) == (step.node, step.price)
            assert case.rank >= self.due[member], "a certificate that came before the verdict is followed"
            if case.decision is not None and case.decision.verdict is Verdict.OK:
                assert (case.decision.worker, case.decision.price) == (step.node, step.price)
                assert case.own is not None and case.own.ok
            elif case.decision is not None:
                assert case.decision == Settlement(Verdict.FAILED, step.node, 0, 0, bytes(32), 0)

    def teardown(self) -> None:
        for member in range(3) if hasattr(self, "cases") else ():
            for _ in range(3 * (HANDOVER_ROUNDS_MAX + 4) + SETTLE_ROUNDS_MAX + 16):
                self.wakes(member)
            assert self.cases[member].phase in FINAL, f"it never ends: {self.cases[member]}"


Committee.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestCommittee = Committee.TestCase
