"""The auction machine: windows, counting, leaders, votes."""

from __future__ import annotations

from cyxnode.protocol.award import Award
from cyxnode.protocol.hashing import bid_commitment, bid_digest
from cyxnode.protocol.limits import BID_MAX_BYTES, BIDS_MAX, COMMITS_MAX, COMMITTEE_MAX, ROUNDS_MAX, TALLIED_MAX
from cyxnode.protocol.messages import Tally
from cyxnode.protocol.scoring import Candidate
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.scheduler import auction as machine
from cyxnode.scheduler.auction import Phase
from sample_messages import BID

JOB = JobId(b"j" * 32)
ME, A, B, C, D, STRANGER = (NodeId(bytes([n]) * 32) for n in range(1, 7))
SALT = b"s" * 32
TERMS = machine.AuctionTerms(JOB, ME, m=2, price_least=2, price_limit=100, commit_ms=250, reveal_ms=250, round_ms=500)


def opened(own: bool = True, terms: machine.AuctionTerms = TERMS) -> tuple[machine.Auction, list[machine.Effect]]:
    return machine.open_auction(terms, 0, frozenset({A, B, C}), machine.SealedBid(b"own", SALT) if own else None)


def feed(auction: machine.Auction, *stimuli: machine.Stimulus) -> tuple[machine.Auction, list[machine.Effect]]:
    effects: list[machine.Effect] = []
    for stimulus in stimuli:
        auction, more = machine.step(auction, stimulus)
        effects += more
    return auction, effects


def commit(bidder: NodeId, now_ms: int = 10, bid: bytes = b"bid") -> machine.CommitSeen:
    return machine.CommitSeen(bidder, bid_commitment(JOB, bidder, SALT, bid), now_ms)


def reveal(bidder: NodeId, now_ms: int = 20, bid: bytes = b"bid", price: int = 5) -> machine.RevealSeen:
    return machine.RevealSeen(bidder, bid, SALT, price, b"raw", now_ms)


def in_rounds(leader: NodeId = ME) -> machine.Auction:
    """A was revealed; we are seated, and lead round 0 if `leader` is us."""
    committee = (leader, *(node for node in (ME, B, C) if node != leader))
    auction, _ = opened()
    auction, _ = feed(auction, machine.CommitteeSeated(committee, 5), commit(A), commit(B), commit(C), reveal(A))
    assert auction.phase is Phase.ROUNDS
    return auction


def award(auction: machine.Auction, round_: int = 0, digest: bytes = b"d" * 32, mine: bool = True) -> Award:
    bids = auction.own_tally if mine else ()
    candidate = Candidate(b"c" * 32, A, BID, 10, 0)
    return Award(round_, (candidate,), 5, digest, {ME: Tally(job=JOB, bids=bids, nonce_commitment=bytes(32))})


def test_the_window_closes_early_once_every_expected_node_has_spoken() -> None:
    auction, effects = opened()
    assert [type(effect) for effect in effects] == [machine.PublishCommit]
    auction, effects = feed(auction, commit(A), machine.DeclineSeen(B, 11), commit(C))
    assert auction.phase is Phase.REVEALING
    assert effects == [machine.PublishReveal(b"own", SALT)]


def test_declines_of_strangers_close_no_window() -> None:
    auction, _ = opened()
    strangers = [NodeId(bytes([n]) * 32) for n in range(10, 99)]
    auction, _ = feed(auction, commit(A), commit(B), *(machine.DeclineSeen(node, 11) for node in strangers))
    assert auction.phase is Phase.COMMITTING
    assert not auction.declined


def test_a_late_commit_never_counts() -> None:
    auction, _ = feed(opened()[0], commit(A, 251))
    assert not auction.commits
    auction, _ = feed(auction, machine.TimePassed(250), commit(A, 249))
    assert not auction.commits


def test_the_first_commit_of_a_bidder_stands() -> None:
    auction, _ = feed(opened()[0], commit(A), commit(A, 11, b"other"), commit(B), commit(C), reveal(A, bid=b"other"))
    assert not auction.reveals
    auction, _ = feed(auction, reveal(A))
    assert set(auction.reveals) == {A}


def test_commits_are_bounded() -> None:
    auction, _ = feed(
        opened()[0], *(commit(NodeId(n.to_bytes(32, "big"))) for n in range(1000, 1000 + 2 * COMMITS_MAX))
    )
    assert len(auction.commits) == COMMITS_MAX


def test_members_that_hear_many_bids_in_any_order_tally_the_same_cheapest() -> None:
    bidders = [NodeId(n.to_bytes(32, "big")) for n in range(1000, 1000 + 2 * BIDS_MAX)]
    prices = {bidder: 5 + number % 60 for number, bidder in enumerate(bidders)}
    members = []
    for order in (bidders, bidders[::-1], bidders[BIDS_MAX:] + bidders[:BIDS_MAX]):
        auction, _ = feed(opened(own=False)[0], *map(commit, order), machine.TimePassed(250))
        auction, _ = feed(auction, *(reveal(bidder, 260, price=prices[bidder]) for bidder in order))
        assert len(auction.reveals) <= TALLIED_MAX + COMMITTEE_MAX
        auction, _ = feed(auction, machine.CommitteeSeated((ME, bidders[0], D), 270))
        assert auction.phase is Phase.ROUNDS, "it waited for a bid that it had dropped"
        members.append(auction.own_tally)
    assert members[0] == members[1] == members[2]
    counted = sorted(bidders[1:], key=lambda one: (prices[one], bid_digest(JOB, one, b"bid")))[:TALLIED_MAX]
    assert members[0] == tuple(sorted(bid_digest(JOB, one, b"bid") for one in counted))


def test_reveals_that_do_not_count() -> None:
    big = b"x" * (BID_MAX_BYTES + 1)
    auction, _ = feed(opened()[0], commit(A), commit(B, bid=big), commit(C), machine.CommitteeSeated((C, D, ME), 12))
    auction, effects = feed(
        auction,
        reveal(A, price=101),
        reveal(B, bid=big),
        reveal(C),
        reveal(D),
        reveal(STRANGER),
        reveal(A, bid=b"no"),
    )
    assert not auction.reveals
    assert not effects


def test_a_seat_voids_the_own_bid_and_an_earlier_reveal_of_a_member() -> None:
    auction, _ = feed(opened()[0], commit(A), commit(B), commit(C), reveal(A))
    auction, _ = feed(auction, machine.CommitteeSeated((A, ME, D), 30))
    assert not auction.reveals
    seated, effects = feed(opened()[0], machine.CommitteeSeated((A, ME, D), 1), commit(A), commit(B), commit(C))
    assert machine.PublishReveal(b"own", SALT) not in effects
    assert seated.phase is Phase.REVEALING


def test_whoever_has_no_seat_waits_for_the_certificate() -> None:
    auction, _ = feed(opened()[0], commit(A), commit(B), commit(C), machine.CommitteeSeated((A, B, D), 30), reveal(C))
    assert auction.phase is Phase.TALLYING
    assert machine.next_wake_ms(auction) is None
    assert feed(auction, machine.Certified())[0].phase is Phase.AWARDED


def test_a_leader_waits_for_all_tallies_a_third_of_the_round_and_then_for_m() -> None:
    auction = in_rounds()
    auction, effects = feed(auction, machine.TallyReceived(ME, b"1", 30), machine.TallyReceived(B, b"2", 31))
    assert not effects
    assert machine.next_wake_ms(auction) == auction.round_started_ms + 166
    early, effects = feed(auction, machine.TallyReceived(C, b"3", 40))
    assert [type(effect) for effect in effects] == [machine.Propose]
    assert early.proposed_at_ms == 40
    _, effects = feed(auction, machine.TimePassed(auction.round_started_ms + 166))
    assert [type(effect) for effect in effects] == [machine.Propose]


def test_a_follower_sends_its_tally_to_the_leader_of_each_round() -> None:
    auction = in_rounds(leader=B)
    auction, effects = feed(auction, machine.TimePassed(auction.round_started_ms + 500))
    assert machine.SendTally(ME, auction.own_tally) in effects
    assert auction.round == 1


def test_no_certificate_from_fewer_than_m_votes() -> None:
    auction, _ = feed(in_rounds(), *(machine.TallyReceived(n, b"t", 30) for n in (ME, B, C)))
    auction, effects = feed(auction, machine.VoteReceived(B, 0, b"b", 40), machine.TimePassed(450))
    assert not effects
    auction, effects = feed(auction, machine.VoteReceived(STRANGER, 0, b"x", 41), machine.VoteReceived(B, 0, b"b", 41))
    assert not effects
    _, effects = feed(auction, machine.VoteReceived(ME, 0, b"m", 460))
    assert effects == [machine.PublishCertificate(0, (b"b", b"m"))]


def test_unsold_after_the_last_round_and_then_nothing_more() -> None:
    auction = in_rounds(leader=B)
    effects: list[machine.Effect] = []
    for _ in range(ROUNDS_MAX):
        auction, effects = feed(auction, machine.TimePassed(auction.round_started_ms + 500))
    assert auction.phase is Phase.UNSOLD
    assert [type(effect) for effect in effects] == [machine.DeclareUnsold]
    assert feed(auction, machine.Certified(), commit(A), machine.TimePassed(10**9)) == (auction, [])


def test_a_vote_is_cast_once_a_round_for_the_leader_and_with_our_tally() -> None:
    auction = in_rounds(leader=B)
    voted, vote = machine.judge_proposal(auction, B, award(auction))
    assert vote == machine.VoteCast(0, b"d" * 32)
    assert machine.judge_proposal(voted, B, award(auction))[1] == vote
    for leader, proposal in (
        (B, award(auction, digest=b"e" * 32)),
        (C, award(auction)),
        (B, award(auction, mine=False)),
        (B, award(auction, round_=1)),
    ):
        state, refused = machine.judge_proposal(voted, leader, proposal)
        assert isinstance(refused, str)
        assert state == voted


def test_a_reveal_that_overtook_its_commit_waits_for_it() -> None:
    auction, _ = feed(opened()[0], machine.CommitteeSeated((B, C, D), 5), reveal(A), commit(B), commit(C), commit(A))
    assert set(auction.reveals) == {A}
    auction, _ = feed(opened()[0], reveal(A), commit(B), commit(C), machine.DeclineSeen(A, 12), reveal(A))
    assert auction.phase is Phase.REVEALING
    assert not auction.reveals


def test_early_reveals_are_bounded() -> None:
    many = [NodeId(n.to_bytes(32, "big")) for n in range(100, 100 + 2 * BIDS_MAX)]
    auction, _ = feed(opened()[0], *(reveal(node) for node in many))
    assert len(auction.early_reveals) == BIDS_MAX


def test_the_wait_for_late_votes_grows_with_the_round() -> None:
    assert TERMS.vote_grace_ms == 125
    assert machine.AuctionTerms(JOB, ME, 2, 1, 100, 2_000, 2_000, 2_000).vote_grace_ms == 500
    assert machine.AuctionTerms(JOB, ME, 2, 1, 100, 50, 50, 50).vote_grace_ms == machine.VOTE_GRACE_MS
