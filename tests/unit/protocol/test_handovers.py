"""A hand-over follows from the award and its rank; everything else in its certificate is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.protocol.award import Award, CertifiedAward
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.handover import (
    Successor,
    certified_digest,
    check_handover,
    digest_of,
    handover_message,
    handover_signers,
    ladder,
    price_at,
    slot,
    succeeded,
)
from cyxnode.protocol.hashing import QuorumKind, quorum_message
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import HANDOVER_ROUNDS_MAX, HANDOVERS_MAX
from cyxnode.protocol.messages import HandoverCertificate
from cyxnode.protocol.scoring import Candidate, award_price, rank
from sample_job import MEMBERS, TERMS
from sample_messages import BID, run

BIDDERS = [KeyPair(bytes([i]) * 32) for i in range(11, 17)]
STRANGER = KeyPair(b"s" * 32)


def award_of(*prices: int, digest: bytes = run(12)) -> Award:
    """An award to the bidders in the order of their keys, who differ in nothing but their prices."""
    bids = [(key, msgspec.structs.replace(BID, price=price)) for key, price in zip(BIDDERS, prices, strict=False)]
    candidates = [Candidate(run(i), key.node_id, bid, 10**9, 0) for i, (key, bid) in enumerate(bids)]
    ranking = tuple(rank(TERMS.announce, candidates))
    return Award(0, ranking, award_price(TERMS.announce, list(ranking)), digest, {})


AWARD = award_of(1_000_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000)
FIRST, SECOND = ladder(TERMS.announce, AWARD)[1:3]


def certificate(
    to: Successor = FIRST, signed_by: list[KeyPair] = MEMBERS[:2], *, round_: int = 0, **changes: Any
) -> HandoverCertificate:
    """What members signed, and what was changed after that."""
    digest = digest_of(TERMS, AWARD, to)
    message = handover_message(TERMS, to.rank, round_, digest)
    honest = HandoverCertificate(
        job=TERMS.job,
        award=AWARD.digest,
        rank=to.rank,
        from_leaf=0,
        successor=to.node,
        price=to.price,
        round=round_,
        signatures=tuple((key.node_id, key.sign(message)) for key in signed_by),
        reason="the worker did not start",
    )
    return msgspec.structs.replace(honest, **changes)


def refused(forged: HandoverCertificate, why: str) -> None:
    with pytest.raises(RemoteError, match=why):
        check_handover(TERMS, AWARD, forged)


def test_m_members_entitle_the_next_at_the_price_of_an_award_without_those_before() -> None:
    assert check_handover(TERMS, AWARD, certificate()) == FIRST
    assert (FIRST.rank, FIRST.node) == (1, AWARD.ranking[1].bidder)
    assert FIRST.price == award_price(TERMS.announce, list(AWARD.ranking[1:]))
    assert 1_500_000 <= FIRST.price < SECOND.price
    certified = succeeded(CertifiedAward(AWARD, AWARD.winner or BIDDERS[0].node_id, AWARD.price, {}), FIRST)
    assert (certified.winner, certified.price, certified.award) == (FIRST.node, FIRST.price, AWARD)


def test_the_last_one_of_a_ranking_gets_what_a_lone_bidder_gets() -> None:
    assert ladder(TERMS.announce, award_of(1_000_000, 1_500_000))[1].price == TERMS.announce.price_limit


def test_a_job_goes_on_at_most_so_often() -> None:
    many = award_of(*(1_000_000 + number for number in range(6)))
    assert [one.rank for one in ladder(TERMS.announce, many)] == list(range(HANDOVERS_MAX + 1))


def test_all_rounds_of_a_rank_sign_one_digest_and_no_two_ranks_share_a_slot() -> None:
    for round_ in (0, HANDOVER_ROUNDS_MAX - 1):
        assert check_handover(TERMS, AWARD, certificate(round_=round_)) == FIRST
        assert certified_digest(TERMS, certificate(round_=round_)) == digest_of(TERMS, AWARD, FIRST)
    slots = [slot(rank, r) for rank in range(1, HANDOVERS_MAX + 1) for r in range(HANDOVER_ROUNDS_MAX)]
    assert len(set(slots)) == len(slots)
    assert max(slots) < 2**16


def test_the_signature_is_one_that_the_escrow_program_convicts_by() -> None:
    digest = digest_of(TERMS, AWARD, FIRST)
    expected = quorum_message(QuorumKind.HANDOVER, 0, HANDOVER_ROUNDS_MAX + 3, TERMS.context, digest)
    assert handover_message(TERMS, 1, 3, digest) == expected


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"job": run(99)}, "another job or award"),
        ({"award": run(99)}, "another job or award"),
        ({"from_leaf": 1}, "from leaf 1"),
        ({"rank": 2}, "another successor or price"),
        ({"successor": STRANGER.node_id}, "another successor or price"),
        ({"price": FIRST.price + 1}, "another successor or price"),
        ({"round": 1}, "0 valid signatures, 2 are needed"),
        ({"signatures": ()}, "0 valid signatures, 2 are needed"),
    ],
)
def test_what_was_changed_afterwards_is_refused(changes: dict[str, Any], why: str) -> None:
    refused(certificate(**changes), why)


@pytest.mark.parametrize(
    "signed_by", [MEMBERS[:1], [MEMBERS[0], MEMBERS[0]], [MEMBERS[0], STRANGER], [MEMBERS[0], BIDDERS[0]]]
)
def test_fewer_than_m_members_hand_nothing_over(signed_by: list[KeyPair]) -> None:
    refused(certificate(signed_by=signed_by), "1 valid signatures, 2 are needed")


def test_a_rank_without_a_bidder() -> None:
    alone = award_of(1_000_000)
    forged = certificate(award=alone.digest)
    with pytest.raises(RemoteError, match="rank 1 of 1"):
        check_handover(TERMS, alone, forged)


def test_a_signature_under_another_successor_is_told_apart() -> None:
    """What the members signed for one is worth nothing for another."""
    mixed = certificate(SECOND)
    assert set(handover_signers(TERMS, mixed)) == {key.node_id for key in MEMBERS[:2]}
    stolen = msgspec.structs.replace(certificate(signed_by=[]), signatures=mixed.signatures)
    assert handover_signers(TERMS, stolen) == {}


@given(st.lists(st.integers(1, TERMS.announce.price_limit), min_size=1, max_size=6))
def test_a_successor_gets_at_least_its_bid_and_at_most_the_limit(prices: list[int]) -> None:
    award = award_of(*prices)
    steps = ladder(TERMS.announce, award)
    assert steps == ladder(TERMS.announce, replace(award, tallies={})), "the same for everyone"
    assert steps[0].price == award.price
    for one, candidate in zip(steps, award.ranking, strict=False):
        assert candidate.bid.price <= one.price <= TERMS.announce.price_limit
        assert one.price == price_at(TERMS.announce, award, one.rank)
        assert one.estimated_ms == candidate.bid.estimated_ms
