"""Random auctions: whatever arrives in whatever order, the auction's laws hold."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cyxnode.protocol.award import Award
from cyxnode.protocol.hashing import bid_commitment
from cyxnode.protocol.limits import BID_MAX_BYTES, COMMITS_MAX, ROUNDS_MAX
from cyxnode.protocol.messages import Tally
from cyxnode.protocol.scoring import Candidate
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.scheduler import auction as machine
from cyxnode.scheduler.auction import Phase
from sample_messages import BID

JOB, SALT = JobId(b"j" * 32), b"s" * 32
NODES = [NodeId(bytes([n]) * 32) for n in range(1, 9)]
ME = NODES[0]
TERMS = machine.AuctionTerms(JOB, ME, m=2, price_least=2, price_limit=100, commit_ms=250, reveal_ms=250, round_ms=500)
ORDER = [Phase.COMMITTING, Phase.REVEALING, Phase.TALLYING, Phase.ROUNDS, Phase.AWARDED, Phase.UNSOLD]
FINAL = (Phase.AWARDED, Phase.UNSOLD)
nodes = st.sampled_from(NODES)
bids = st.sampled_from([b"bid", b"other", b"x" * 600])
steps = st.integers(0, 200)
pytestmark = pytest.mark.slow


class Auctions(RuleBasedStateMachine):
    """A node in an auction, with other nodes that do as they please."""

    @initialize(own=st.booleans(), expected=st.sets(nodes))
    def announce(self, own: bool, expected: set[NodeId]) -> None:
        self.now = 0
        sealed = machine.SealedBid(b"own", SALT) if own else None
        self.auction, effects = machine.open_auction(TERMS, 0, frozenset(expected), sealed)
        self.votes_cast: dict[int, bytes] = {}
        self.late: set[NodeId] = set()
        self.ended = False
        self.check(effects)

    def feed(self, stimulus: machine.Stimulus) -> None:
        before = self.auction
        self.auction, effects = machine.step(before, stimulus)
        assert ORDER.index(self.auction.phase) >= ORDER.index(before.phase)
        if before.phase in FINAL:
            assert self.auction == before
            assert not effects
        self.check(effects)

    def check(self, effects: list[machine.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, machine.PublishCertificate):
                assert len(set(effect.votes)) >= TERMS.m
                assert set(self.auction.votes) <= set(self.auction.committee)
            if isinstance(effect, machine.PublishReveal):
                assert not self.auction.seated
                assert self.auction.phase is not Phase.COMMITTING
            if isinstance(effect, machine.Propose | machine.SendTally | machine.DeclareUnsold):
                assert self.auction.seated
            if isinstance(effect, machine.DeclareUnsold):
                assert not self.ended
                self.ended = True

    @rule(bidder=nodes, bid=bids, after=steps)
    def commits(self, bidder: NodeId, bid: bytes, after: int) -> None:
        self.now += after
        if self.now > TERMS.commit_ms and bidder not in self.auction.commits:
            self.late.add(bidder)
        self.feed(machine.CommitSeen(bidder, bid_commitment(JOB, bidder, SALT, bid), self.now))

    @rule(bidder=nodes, bid=bids, price=st.integers(1, 150))
    def reveals(self, bidder: NodeId, bid: bytes, price: int) -> None:
        known = self.auction.reveals.get(bidder)
        self.feed(machine.RevealSeen(bidder, bid, SALT, price, bidder + bid, self.now))
        if not TERMS.price_least <= price <= TERMS.price_limit or len(bid) > BID_MAX_BYTES:
            assert self.auction.reveals.get(bidder) == known

    @rule(node=nodes)
    def declines(self, node: NodeId) -> None:
        self.feed(machine.DeclineSeen(node, self.now))

    @rule(committee=st.permutations(NODES))
    def seats(self, committee: list[NodeId]) -> None:
        self.feed(machine.CommitteeSeated(tuple(committee[:3]), self.now))

    @rule(member=nodes)
    def tallies(self, member: NodeId) -> None:
        self.feed(machine.TallyReceived(member, b"tally" + member, self.now))

    @rule(member=nodes, round_=st.integers(0, ROUNDS_MAX))
    def votes(self, member: NodeId, round_: int) -> None:
        self.feed(machine.VoteReceived(member, round_, b"vote" + member, self.now))

    @rule(leader=nodes, round_=st.integers(0, ROUNDS_MAX - 1), digest=st.sampled_from([b"d", b"e"]), mine=st.booleans())
    def proposes(self, leader: NodeId, round_: int, digest: bytes, mine: bool) -> None:
        listed = self.auction.own_tally if mine else (b"n" * 32,)
        candidate = Candidate(b"c" * 32, NODES[-1], BID, 10, 0)
        award = Award(round_, (candidate,), 5, digest, {ME: Tally(job=JOB, bids=listed, nonce_commitment=bytes(32))})
        self.auction, vote = machine.judge_proposal(self.auction, leader, award)
        if isinstance(vote, machine.VoteCast):
            assert leader == self.auction.leader(round_)
            assert listed == self.auction.own_tally
            assert self.votes_cast.setdefault(vote.round, vote.digest) == vote.digest

    @rule()
    def certified(self) -> None:
        self.feed(machine.Certified())

    @rule(after=steps)
    def time(self, after: int) -> None:
        self.now += after
        self.feed(machine.TimePassed(self.now))

    @rule()
    def wakes(self) -> None:
        wake_ms = machine.next_wake_ms(self.auction)
        if wake_ms is not None:
            self.now = max(self.now, wake_ms)
            before = self.auction
            self.feed(machine.TimePassed(self.now))
            later = machine.next_wake_ms(self.auction)
            certified = before.phase is Phase.ROUNDS and len(before.votes) >= TERMS.m
            assert certified or self.auction != before or later is None or later > self.now

    @invariant()
    def nothing_late_or_void_counts(self) -> None:
        if not hasattr(self, "auction"):
            return
        assert not self.late & self.auction.commits.keys()
        assert len(self.auction.commits) <= COMMITS_MAX
        assert self.auction.reveals.keys() <= self.auction.commits.keys()
        assert not self.auction.reveals.keys() & set(self.auction.committee)


Auctions.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAuctions = Auctions.TestCase
