"""An award follows from its evidence alone; every way of bending the evidence is refused by name."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from cyxnode.protocol import codec
from cyxnode.protocol.award import (
    JobTerms,
    award_message,
    check_certificate,
    check_vote,
    recompute,
)
from cyxnode.protocol.envelope import Signed, open_as, seal
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.hashing import bid_digest, nonce_commitment
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import AwardCertificate, AwardVote, Bid, BidderRecord, BidReveal, Proposal, Tally
from cyxnode.protocol.units import JobId
from sample_messages import ANNOUNCE, BID, GENESIS

MEMBERS = [KeyPair(bytes([i]) * 32) for i in (1, 2, 3)]
BIDDERS = [KeyPair(bytes([i]) * 32) for i in (11, 12, 13)]
STRANGER = KeyPair(b"s" * 32)
TERMS = JobTerms(GENESIS, ANNOUNCE, open_slot=77, committee=tuple(key.node_id for key in MEMBERS))
JOB = JobId(ANNOUNCE.job)
SALT = b"salt" * 8


def bid(price: int) -> Bid:
    return msgspec.structs.replace(BID, price=price)


def reveal(key: KeyPair, price: int, job: bytes = JOB, genesis: bytes = GENESIS) -> bytes:
    return seal(key, genesis, BidReveal(job=job, bid=codec.encode(bid(price)), salt=SALT))


def digest(key: KeyPair, price: int) -> bytes:
    return bid_digest(JOB, key.node_id, codec.encode(bid(price)))


def tally(member: KeyPair, bids: Sequence[bytes], job: bytes = JOB, genesis: bytes = GENESIS) -> bytes:
    return seal(
        member,
        genesis,
        Tally(job=job, bids=tuple(sorted(bids)), nonce_commitment=nonce_commitment(JOB, member.node_id, SALT)),
    )


def record(key: KeyPair) -> BidderRecord:
    return BidderRecord(node=key.node_id, stake=10**9, reputation_ppm=0)


OFFERS = list(zip(BIDDERS, (2_000_000, 1_000_000, 3_000_000), strict=True))
ALL = [digest(key, price) for key, price in OFFERS]
FAIR = Proposal(
    job=JOB,
    round=1,
    tallies=tuple(tally(member, ALL) for member in MEMBERS),
    reveals=tuple(reveal(key, price) for key, price in OFFERS),
    records=tuple(record(key) for key in BIDDERS),
)


def bent(**changes: object) -> bytes:
    return codec.encode(msgspec.structs.replace(FAIR, **changes))


AWARD = recompute(TERMS, bent())


def vote(member: KeyPair, **changes: object) -> bytes:
    honest = AwardVote(
        job=JOB,
        round=1,
        digest=AWARD.digest,
        signature=member.sign(award_message(TERMS, 1, AWARD.digest)),
        nonce_commitment=nonce_commitment(JOB, member.node_id, SALT),
    )
    return seal(member, GENESIS, msgspec.structs.replace(honest, **changes))


def certificate(votes: Sequence[bytes], **changes: object) -> AwardCertificate:
    assert AWARD.winner is not None
    honest = AwardCertificate(job=JOB, proposal=bent(), winner=AWARD.winner, price=AWARD.price, votes=tuple(votes))
    return msgspec.structs.replace(honest, **changes)


def refused(encoded: bytes, why: str) -> None:
    with pytest.raises(RemoteError, match=why):
        recompute(TERMS, encoded)


def test_equal_bidders_are_ranked_by_price_and_the_winner_is_paid_up_to_the_second() -> None:
    assert [one.bidder for one in AWARD.ranking] == [BIDDERS[i].node_id for i in (1, 0, 2)]
    assert AWARD.winner == BIDDERS[1].node_id
    assert 1_000_000 < AWARD.price <= 2_000_000 + 3
    assert AWARD.round == 1


def test_all_who_recompute_agree() -> None:
    assert recompute(TERMS, bent()) == AWARD


def test_the_digest_covers_the_evidence_itself() -> None:
    assert recompute(TERMS, bent(tallies=FAIR.tallies[::-1])).digest != AWARD.digest
    assert recompute(TERMS, bent(round=0)).digest != AWARD.digest


def test_two_of_three_tallies_are_enough() -> None:
    assert recompute(TERMS, bent(tallies=FAIR.tallies[:2])).winner == AWARD.winner
    refused(bent(tallies=FAIR.tallies[:1]), "1 tallies, 2 are needed")


def test_a_bid_that_one_member_alone_saw_does_not_count() -> None:
    tallies = (tally(MEMBERS[0], ALL), *(tally(member, ALL[:1]) for member in MEMBERS[1:]))
    refused(bent(tallies=tallies), "does not count")
    award = recompute(TERMS, bent(tallies=tallies, reveals=FAIR.reveals[:1]))
    assert award.winner == BIDDERS[0].node_id
    assert award.price == ANNOUNCE.price_limit


def test_a_bid_named_twice_by_one_member_counts_once() -> None:
    twice = (tally(MEMBERS[0], [ALL[0], ALL[0]]), tally(MEMBERS[1], []))
    refused(bent(tallies=twice, reveals=FAIR.reveals[:1]), "does not count")


def test_no_bids_make_no_winner() -> None:
    award = recompute(TERMS, bent(tallies=tuple(tally(m, []) for m in MEMBERS), reveals=(), records=()))
    assert (award.winner, award.price, award.ranking) == (None, 0, ())


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_leader_cannot_leave_out_a_bid_that_counts(left_out: int) -> None:
    reveals = FAIR.reveals[:left_out] + FAIR.reveals[left_out + 1 :]
    refused(bent(reveals=reveals), "leaves out a bid")


def test_a_bid_given_twice() -> None:
    refused(bent(reveals=(*FAIR.reveals, FAIR.reveals[0])), "a bidder twice")


def test_one_bidder_with_two_bids() -> None:
    second = digest(BIDDERS[0], 5_000)
    tallies = tuple(tally(member, [*ALL, second]) for member in MEMBERS)
    refused(bent(tallies=tallies, reveals=(*FAIR.reveals, reveal(BIDDERS[0], 5_000))), "a bidder twice")


def test_another_bid_than_the_sealed_one() -> None:
    refused(bent(reveals=(reveal(BIDDERS[0], 1), *FAIR.reveals[1:])), "does not count")


def test_another_bidders_bid_under_ones_own_name() -> None:
    refused(bent(reveals=(*FAIR.reveals, reveal(STRANGER, 1_000_000))), "does not count")


def test_a_seated_node_cannot_bid() -> None:
    own = digest(MEMBERS[0], 1)
    tallies = tuple(tally(member, [*ALL, own]) for member in MEMBERS)
    refused(bent(tallies=tallies, reveals=(*FAIR.reveals, reveal(MEMBERS[0], 1))), "does not count")


def test_a_bid_above_the_limit() -> None:
    high = ANNOUNCE.price_limit + 1
    tallies = tuple(tally(member, [digest(BIDDERS[0], high)]) for member in MEMBERS)
    refused(bent(tallies=tallies, reveals=(reveal(BIDDERS[0], high),)), "beyond the limits")


def test_a_bid_that_pays_no_verifier() -> None:
    low = ANNOUNCE.price_least - 1
    tallies = tuple(tally(member, [digest(BIDDERS[0], low)]) for member in MEMBERS)
    refused(bent(tallies=tallies, reveals=(reveal(BIDDERS[0], low),)), "beyond the limits")


def test_a_bidder_without_a_chain_record() -> None:
    refused(bent(records=FAIR.records[1:]), "without a record")


@pytest.mark.parametrize(
    ("tallies", "why"),
    [
        ((*FAIR.tallies[:2], tally(STRANGER, ALL)), "not a member"),
        ((*FAIR.tallies[:2], FAIR.tallies[0]), "there twice"),
        ((*FAIR.tallies[:2], tally(MEMBERS[0], [])), "there twice"),
        ((*FAIR.tallies[:2], tally(MEMBERS[2], ALL, job=bytes(32))), "for another job"),
        ((*FAIR.tallies[:2], tally(MEMBERS[2], ALL, genesis=bytes(32))), "another network"),
        ((*FAIR.tallies[:2], FAIR.reveals[0]), "expected Tally"),
        ((*FAIR.tallies[:2], b"junk"), "Envelope"),
    ],
)
def test_tallies_that_are_no_tallies_of_this_job(tallies: tuple[bytes, ...], why: str) -> None:
    refused(bent(tallies=tallies), why)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (reveal(BIDDERS[0], 2_000_000, job=bytes(32)), "does not count"),
        (reveal(BIDDERS[0], 2_000_000, genesis=bytes(32)), "another network"),
        (seal(BIDDERS[0], GENESIS, BidReveal(job=JOB, bid=b"junk", salt=SALT)), "Bid: "),
        (FAIR.tallies[0], "expected BidReveal"),
    ],
)
def test_reveals_that_are_no_reveals_of_this_job(bad: bytes, why: str) -> None:
    refused(bent(reveals=(bad, *FAIR.reveals[1:])), why)


def test_a_proposal_for_another_job() -> None:
    refused(bent(job=bytes(32)), "another job")


def test_junk_is_no_proposal() -> None:
    refused(b"junk", "Proposal")
    refused(bent() + b"\0", "Proposal")


@pytest.mark.parametrize("voters", [(0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_any_quorum_certifies(voters: tuple[int, ...]) -> None:
    checked = check_certificate(TERMS, certificate([vote(MEMBERS[i]) for i in voters]))
    assert (checked.winner, checked.price) == (AWARD.winner, AWARD.price)
    promises = {member.node_id: nonce_commitment(JOB, member.node_id, SALT) for member in MEMBERS}
    assert checked.nonce_commitments == promises, "a tally is a promise too, also of a member whose vote came late"


@pytest.mark.parametrize(
    ("votes", "why"),
    [
        ([], "0 votes, 2 are needed"),
        ([vote(MEMBERS[0])], "1 votes, 2 are needed"),
        ([vote(MEMBERS[0])] * 2, "1 votes, 2 are needed"),
        ([vote(MEMBERS[0]), vote(STRANGER)], "not a member"),
        ([vote(MEMBERS[0]), vote(BIDDERS[1])], "not a member"),
        ([vote(MEMBERS[0]), vote(MEMBERS[1], digest=bytes(32))], "another award"),
        ([vote(MEMBERS[0]), vote(MEMBERS[1], round=0)], "another award"),
        ([vote(MEMBERS[0]), vote(MEMBERS[1], job=bytes(32))], "another award"),
        ([vote(MEMBERS[0]), vote(MEMBERS[1], signature=bytes(64))], "wrong quorum signature"),
        (
            [vote(MEMBERS[0]), vote(MEMBERS[1], signature=MEMBERS[0].sign(award_message(TERMS, 1, AWARD.digest)))],
            "wrong quorum signature",
        ),
        (
            [vote(MEMBERS[0]), vote(MEMBERS[1], signature=MEMBERS[1].sign(award_message(TERMS, 0, AWARD.digest)))],
            "wrong quorum signature",
        ),
    ],
)
def test_less_than_a_quorum_certifies_nothing(votes: list[bytes], why: str) -> None:
    with pytest.raises(RemoteError, match=why):
        check_certificate(TERMS, certificate(votes))


@pytest.mark.parametrize(
    "change", [{"winner": BIDDERS[0].node_id}, {"price": AWARD.price + 1}, {"price": AWARD.price - 1}]
)
def test_a_certificate_that_says_more_than_its_evidence(change: dict[str, object]) -> None:
    with pytest.raises(RemoteError, match="another winner or price"):
        check_certificate(TERMS, certificate([vote(member) for member in MEMBERS], **change))


def test_a_vote_does_not_carry_over_to_a_job_opened_in_another_slot() -> None:
    later = JobTerms(GENESIS, ANNOUNCE, open_slot=78, committee=TERMS.committee)
    with pytest.raises(RemoteError, match="wrong quorum signature"):
        check_certificate(later, certificate([vote(member) for member in MEMBERS]))


def test_a_checked_vote_names_its_member() -> None:
    signed: Signed[AwardVote] = open_as(vote(MEMBERS[2]), GENESIS, AwardVote)
    assert check_vote(TERMS, signed, AWARD) == MEMBERS[2].node_id
