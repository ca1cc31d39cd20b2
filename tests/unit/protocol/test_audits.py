"""An award told to a reader: the ranking with the parts of each score, the price, and who signed."""

from __future__ import annotations

import msgspec
import pytest

from cyxnode.protocol import codec
from cyxnode.protocol.audit import audit
from cyxnode.protocol.award import JobTerms, award_message, recompute
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.hashing import bid_digest
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import AwardCertificate, AwardVote, BidderRecord, BidReveal, Proposal, Tally
from sample_job import AWARDED, JOB, MEMBERS, OPENING, TERMS, WORKER
from sample_messages import BID, GENESIS, run

ROUTINE = seal(MEMBERS[0], GENESIS, AWARDED)
RIVAL = KeyPair(b"v" * 32)


def certificate(prices: dict[KeyPair, int], voters: list[KeyPair]) -> tuple[JobTerms, bytes]:
    """An award between bidders of equal record."""
    bids = {key: codec.encode(msgspec.structs.replace(BID, price=price)) for key, price in prices.items()}
    listed = tuple(sorted(bid_digest(JOB, key.node_id, bid) for key, bid in bids.items()))
    proposal = codec.encode(
        Proposal(
            job=JOB,
            round=1,
            tallies=tuple(seal(m, GENESIS, Tally(job=JOB, bids=listed, nonce_commitment=run(9))) for m in MEMBERS[:2]),
            reveals=tuple(seal(key, GENESIS, BidReveal(job=JOB, bid=bid, salt=run(8))) for key, bid in bids.items()),
            records=tuple(BidderRecord(node=key.node_id, stake=10**9, reputation_ppm=0) for key in bids),
        )
    )
    award = recompute(TERMS, proposal)
    votes = tuple(
        seal(
            member,
            GENESIS,
            AwardVote(
                job=JOB,
                round=1,
                digest=award.digest,
                signature=member.sign(award_message(TERMS, 1, award.digest)),
                nonce_commitment=run(9),
            ),
        )
        for member in voters
    )
    assert award.winner is not None
    whole = AwardCertificate(job=JOB, proposal=proposal, winner=award.winner, price=award.price, votes=votes)
    return TERMS, seal(MEMBERS[0], GENESIS, whole)


def test_a_lone_bidder_gets_the_limit() -> None:
    one = audit(TERMS, ROUTINE)
    assert one.winner == WORKER.node_id and len(one.ranking) == 1
    assert one.capped and one.price == one.limit == OPENING.price_limit
    assert one.voted == one.tallied == tuple(sorted(key.node_id for key in MEMBERS))


def test_the_second_decides_the_price_and_parts_add_up_to_the_score() -> None:
    terms, raw = certificate({WORKER: BID.price, RIVAL: BID.price + 1_000}, MEMBERS[1:])
    one = audit(terms, raw)
    first, second = one.ranking
    assert (first.bidder, second.bidder) == (WORKER.node_id, RIVAL.node_id)
    assert first.score > second.score
    assert first.parts["price"] > second.parts["price"]
    assert {name: part for name, part in first.parts.items() if name != "price"} == {
        name: part for name, part in second.parts.items() if name != "price"
    }
    assert BID.price <= one.price <= BID.price + 1_000 and not one.capped
    assert one.round == 1
    assert one.voted == tuple(sorted(key.node_id for key in MEMBERS[1:]))
    assert one.tallied == tuple(sorted(key.node_id for key in MEMBERS[:2]))


def test_what_does_not_hold_is_named() -> None:
    terms, raw = certificate({WORKER: BID.price}, MEMBERS[:1])
    with pytest.raises(RemoteError, match="1 votes, 2 are needed"):
        audit(terms, raw)
    with pytest.raises(RemoteError):
        audit(terms, raw[:-1])
    with pytest.raises(RemoteError, match="expected AwardCertificate"):
        audit(terms, seal(MEMBERS[0], GENESIS, OPENING))
