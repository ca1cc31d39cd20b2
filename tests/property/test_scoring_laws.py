"""Laws of the score and of the price: integers only, no gain from bidding high, and a critical price that is one."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cyxnode.protocol.chain import NodeAccount
from cyxnode.protocol.limits import AMOUNT_MAX, MICRO
from cyxnode.protocol.messages import JobAnnounce, ScoreWeights
from cyxnode.protocol.scoring import Candidate, award_price, rank, reputation_ppm, score
from cyxnode.protocol.units import MicroCyx, NodeId
from sample_messages import ANNOUNCE, BID, CID

AMOUNTS = st.integers(0, AMOUNT_MAX)


@st.composite
def weights(draw: st.DrawFn) -> ScoreWeights:
    """Any weights that the protocol admits."""
    claimed = [draw(st.integers(0, 25_000)) for _ in range(4)]
    price = draw(st.integers(0, MICRO - sum(claimed)))
    reputation = draw(st.integers(0, MICRO - sum(claimed) - price))
    rest = MICRO - sum(claimed) - price - reputation
    return ScoreWeights(
        price_ppm=price, reputation_ppm=reputation, stake_ppm=rest, device_ppm=claimed[0], locality_ppm=claimed[1],
        memory_ppm=claimed[2], queue_ppm=claimed[3],
    )  # fmt: skip


@st.composite
def announces(draw: st.DrawFn, amounts: st.SearchStrategy[int] = AMOUNTS) -> JobAnnounce:
    return msgspec.structs.replace(
        ANNOUNCE,
        budget=draw(amounts),
        reserve=draw(amounts),
        device=draw(st.sampled_from(["any", "cpu", "cuda"])),
        memory_mb=draw(st.integers(0, 100_000)),
        region=draw(st.sampled_from(["", "eu", "us"])),
        datasets=draw(st.sampled_from([(), (CID,)])),
        weights=draw(weights() | st.just(ScoreWeights())),
    )


@st.composite
def candidates(draw: st.DrawFn, limit: int, count: int) -> list[Candidate]:
    """`count` distinct bidders with admissible bids."""
    return [
        Candidate(
            digest=sha256(bytes([number, draw(st.integers(0, 255))])).digest(),
            bidder=bytes([number]) * 32,
            bid=msgspec.structs.replace(
                BID,
                price=draw(st.integers(0, limit)),
                device=draw(st.sampled_from(["cpu", "cuda"])),
                memory_mb=draw(st.integers(0, 200_000)),
                queue_length=draw(st.integers(0, 100)),
                region=draw(st.sampled_from(["", "eu", "us"])),
                datasets=draw(st.sampled_from([(), (CID,)])),
            ),
            stake=draw(st.sampled_from([0, 10**9]) | st.integers(0, AMOUNT_MAX)),
            reputation_ppm=draw(st.sampled_from([0, 500_000]) | st.integers(0, MICRO)),
        )
        for number in range(count)
    ]


@st.composite
def auctions(draw: st.DrawFn) -> tuple[JobAnnounce, list[Candidate]]:
    announce = draw(announces(st.integers(0, 5_000) | AMOUNTS))
    return announce, draw(candidates(announce.price_limit, draw(st.integers(1, 6))))


def at_price(candidate: Candidate, price: int) -> Candidate:
    return replace(candidate, bid=msgspec.structs.replace(candidate.bid, price=price))


def winner_if(announce: JobAnnounce, bids: list[Candidate], bidder: bytes, price: int) -> bytes:
    return rank(announce, [at_price(c, price) if c.bidder == bidder else c for c in bids])[0].bidder


@given(auctions())
def test_a_score_is_an_integer_between_nothing_and_all(auction: tuple[JobAnnounce, list[Candidate]]) -> None:
    announce, bids = auction
    for bid in bids:
        value = score(announce, bid)
        assert type(value) is int
        assert 0 <= value <= MICRO * MICRO


@given(auctions(), st.data())
def test_a_higher_price_never_scores_more(auction: tuple[JobAnnounce, list[Candidate]], data: st.DataObject) -> None:
    announce, bids = auction
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, announce.price_limit)] * 2)))
    assert score(announce, at_price(bids[0], low)) >= score(announce, at_price(bids[0], high))


@given(auctions(), st.data())
def test_the_ranking_does_not_depend_on_the_order_of_arrival(
    auction: tuple[JobAnnounce, list[Candidate]], data: st.DataObject
) -> None:
    announce, bids = auction
    assert rank(announce, data.draw(st.permutations(bids))) == rank(announce, bids)


@given(announces(), st.integers(2, 6))
def test_equal_scores_are_ordered_by_digest(announce: JobAnnounce, count: int) -> None:
    bids = [Candidate(sha256(bytes([i])).digest(), bytes([i]) * 32, BID, 10**9, 0) for i in range(count)]
    assert [bid.digest for bid in rank(announce, bids)] == sorted(bid.digest for bid in bids)


@given(auctions())
def test_the_price_lies_between_the_bid_and_the_limit(auction: tuple[JobAnnounce, list[Candidate]]) -> None:
    announce, bids = auction
    ranking = rank(announce, bids)
    assert ranking[0].bid.price <= award_price(announce, ranking) <= min(announce.budget, announce.reserve)


@given(auctions())
def test_the_critical_price_wins_and_one_more_loses(auction: tuple[JobAnnounce, list[Candidate]]) -> None:
    announce, bids = auction
    ranking = rank(announce, bids)
    winner, price = ranking[0].bidder, award_price(announce, ranking)
    assert winner_if(announce, bids, winner, price) == winner
    if price < announce.price_limit:
        assert winner_if(announce, bids, winner, price + 1) != winner


@given(auctions(), st.data())
def test_every_price_below_the_critical_one_wins_and_every_one_above_loses(
    auction: tuple[JobAnnounce, list[Candidate]], data: st.DataObject
) -> None:
    announce, bids = auction
    ranking = rank(announce, bids)
    winner, critical = ranking[0].bidder, award_price(announce, ranking)
    tried = data.draw(st.integers(0, announce.price_limit))
    assert (winner_if(announce, bids, winner, tried) == winner) == (tried <= critical)


@given(auctions(), st.data())
def test_what_a_winner_is_paid_does_not_depend_on_its_bid(
    auction: tuple[JobAnnounce, list[Candidate]], data: st.DataObject
) -> None:
    announce, bids = auction
    ranking = rank(announce, bids)
    winner, paid = ranking[0].bidder, award_price(announce, ranking)
    other = data.draw(st.integers(0, paid))
    again = rank(announce, [at_price(c, other) if c.bidder == winner else c for c in bids])
    assert award_price(announce, again) == paid


@given(announces())
def test_a_lone_bidder_gets_the_reserve(announce: JobAnnounce) -> None:
    lone = [Candidate(bytes(32), bytes(32), msgspec.structs.replace(BID, price=0), 0, 0)]
    assert award_price(announce, lone) == min(announce.reserve, announce.budget)


def account(**changes: int) -> NodeAccount:
    whole = NodeAccount(
        node=NodeId(bytes(32)), execution_class=bytes(32), active_since_slot=1, payout=bytes(32), stake=MicroCyx(10**9),
        earned=MicroCyx(0), fees_generated=MicroCyx(0), jobs_ok=0, failures=0, slashed=MicroCyx(0), unbonding_at_s=0,
    )  # fmt: skip
    return replace(whole, **changes)


counts = st.integers(0, 2**32)


@given(counts, counts, counts)
def test_reputation_is_a_share(fees: int, ok: int, failures: int) -> None:
    value = reputation_ppm(account(fees_generated=fees, jobs_ok=ok, failures=failures))
    assert type(value) is int
    assert 0 <= value <= MICRO


@given(counts, counts, counts, counts)
def test_reputation_grows_with_fees_and_falls_with_failures(fees: int, more: int, ok: int, failures: int) -> None:
    base = reputation_ppm(account(fees_generated=fees, jobs_ok=ok, failures=failures))
    assert reputation_ppm(account(fees_generated=fees + more, jobs_ok=ok, failures=failures)) >= base
    assert reputation_ppm(account(fees_generated=fees, jobs_ok=ok, failures=failures + more)) <= base


@given(counts)
def test_jobs_that_paid_no_fees_earn_no_reputation(ok: int) -> None:
    assert reputation_ppm(account(jobs_ok=ok)) == 0


@given(auctions())
def test_a_better_record_never_ranks_lower(auction: tuple[JobAnnounce, list[Candidate]]) -> None:
    announce, bids = auction
    assume(len(bids) > 1)
    better = [replace(bids[0], stake=AMOUNT_MAX, reputation_ppm=MICRO), *bids[1:]]
    place = [bid.bidder for bid in rank(announce, bids)].index(bids[0].bidder)
    assert [bid.bidder for bid in rank(announce, better)].index(bids[0].bidder) <= place


@pytest.mark.parametrize(("wins_ties", "paid"), [(True, 600), (False, 599)])
def test_a_tie_counts_for_the_price_as_it_counts_for_the_ranking(wins_ties: bool, paid: int) -> None:
    announce = msgspec.structs.replace(ANNOUNCE, budget=1_000, reserve=1_000)
    low, high = bytes(32), b"\xff" * 32
    winner = Candidate(low if wins_ties else high, b"w" * 32, msgspec.structs.replace(BID, price=100), 10**9, 0)
    second = Candidate(high if wins_ties else low, b"s" * 32, msgspec.structs.replace(BID, price=600), 10**9, 0)
    assert award_price(announce, rank(announce, [second, winner])) == paid
