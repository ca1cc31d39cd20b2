"""The award as a pure function of evidence (DESIGN 5): anyone can recompute it.

A Proposal carries signed tallies and signed reveals. A bid counts if m of the tallies list it; the ranking and the
price follow from the announce. A certificate adds m votes over the digest of all that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from . import codec
from .envelope import Opener, Signed, open_any, open_as
from .errors import RemoteError
from .hashing import QuorumKind, award_digest, bid_digest, quorum_context, quorum_message
from .identity import verify
from .limits import GOSSIP_MESSAGE_MAX_BYTES, QUORUMS
from .messages import AwardCertificate, AwardVote, Bid, BidReveal, JobAnnounce, Proposal, Tally
from .scoring import Candidate, award_price, rank
from .units import JobId, NodeId


@dataclass(frozen=True, slots=True)
class Award:
    """What a proposal amounts to. `ranking` is best first and empty when no bid counted."""

    round: int
    ranking: tuple[Candidate, ...]
    price: int
    digest: bytes
    tallies: dict[NodeId, Tally]

    @property
    def winner(self) -> NodeId | None:
        return NodeId(self.ranking[0].bidder) if self.ranking else None


@dataclass(frozen=True, slots=True)
class JobTerms:
    """What the evidence of one job is judged against; `opener` opens the envelopes in it."""

    genesis: bytes
    announce: JobAnnounce
    open_slot: int
    committee: tuple[NodeId, ...]
    opener: Opener = field(default=open_any, compare=False)

    @property
    def job(self) -> JobId:
        return JobId(self.announce.job)

    @property
    def m(self) -> int:
        return QUORUMS[self.announce.k]

    @property
    def context(self) -> bytes:
        return quorum_context(self.genesis, self.announce.program, self.job, self.open_slot)

    def member(self, node: bytes) -> NodeId:
        """`node` as a member; RemoteError when it has no seat."""
        if node not in self.committee:
            raise RemoteError("not a member of the committee", peer=node)
        return NodeId(node)


def decode_bid(reveal: BidReveal) -> Bid:
    """The bid inside a reveal."""
    return codec.decode(reveal.bid, Bid, max_bytes=4096)


def recompute(terms: JobTerms, encoded: bytes) -> Award:
    """Derive the award from an encoded Proposal; RemoteError names what is wrong with the evidence."""
    proposal = codec.decode(encoded, Proposal, max_bytes=GOSSIP_MESSAGE_MAX_BYTES)
    if proposal.job != terms.job:
        raise RemoteError("proposal is for another job")
    tallies = _open_tallies(terms, proposal)
    counts = Counter(digest for tally in tallies.values() for digest in set(tally.bids))
    records = {record.node: record for record in proposal.records}
    candidates: list[Candidate] = []
    for raw in proposal.reveals:
        signed = open_as(raw, terms.genesis, BidReveal, max_bytes=8192, opener=terms.opener)
        digest = bid_digest(terms.job, signed.sender, signed.message.bid)
        bid = decode_bid(signed.message)
        if signed.message.job != terms.job or counts[digest] < terms.m or signed.sender in terms.committee:
            raise RemoteError("proposal holds a bid that does not count", peer=signed.sender)
        if not terms.announce.price_least <= bid.price <= terms.announce.price_limit or signed.sender not in records:
            raise RemoteError("proposal holds a bid beyond the limits or without a record", peer=signed.sender)
        record = records[signed.sender]
        candidates.append(Candidate(digest, signed.sender, bid, record.stake, record.reputation_ppm))
    present = {candidate.digest for candidate in candidates}
    missing = [digest for digest, count in counts.items() if count >= terms.m and digest not in present]
    bidders = {candidate.bidder for candidate in candidates}
    if missing or len(bidders) != len(proposal.reveals):
        raise RemoteError("proposal leaves out a bid that counts, or holds a bidder twice")
    ranking = rank(terms.announce, candidates)
    price = award_price(terms.announce, ranking) if ranking else 0
    digest = award_digest(terms.job, encoded, [one.digest for one in ranking], price)
    return Award(proposal.round, tuple(ranking), price, digest, tallies)


def _open_tallies(terms: JobTerms, proposal: Proposal) -> dict[NodeId, Tally]:
    tallies: dict[NodeId, Tally] = {}
    for raw in proposal.tallies:
        signed = open_as(raw, terms.genesis, Tally, max_bytes=8192, opener=terms.opener)
        member = terms.member(signed.sender)
        if signed.message.job != terms.job or member in tallies:
            raise RemoteError("tally is for another job, or there twice", peer=member)
        tallies[member] = signed.message
    if len(tallies) < terms.m:
        raise RemoteError(f"proposal has {len(tallies)} tallies, {terms.m} are needed")
    return tallies


def award_message(terms: JobTerms, round_: int, digest: bytes) -> bytes:
    """The 40 bytes that a member signs for an award."""
    return quorum_message(QuorumKind.AWARD, 0, round_, terms.context, digest)


def check_vote(terms: JobTerms, signed: Signed[AwardVote], award: Award) -> NodeId:
    """The member that voted for exactly this award; RemoteError otherwise."""
    member, vote = terms.member(signed.sender), signed.message
    if (vote.job, vote.round, vote.digest) != (terms.job, award.round, award.digest):
        raise RemoteError("vote is for another award", peer=member)
    if not verify(member, award_message(terms, award.round, award.digest), vote.signature):
        raise RemoteError("vote has a wrong quorum signature", peer=member)
    return member


@dataclass(frozen=True, slots=True)
class CertifiedAward:
    """A checked certificate, with the promised sampling nonce of each member that tallied or voted."""

    award: Award
    winner: NodeId
    price: int
    nonce_commitments: dict[NodeId, bytes]

    def rank_of(self, node: bytes) -> int:
        """A node's place in the ranking, from 0; -1 when it made no bid that counted."""
        return next((rank for rank, one in enumerate(self.award.ranking) if one.bidder == node), -1)


def check_certificate(terms: JobTerms, certificate: AwardCertificate) -> CertifiedAward:
    """Verify a certificate from first principles; RemoteError names the part that fails."""
    award = recompute(terms, certificate.proposal)
    if award.winner is None or certificate.winner != award.winner or certificate.price != award.price:
        raise RemoteError("certificate names another winner or price than its evidence")
    votes: dict[NodeId, bytes] = {}
    for raw in certificate.votes:
        signed = open_as(raw, terms.genesis, AwardVote, max_bytes=2048, opener=terms.opener)
        votes[check_vote(terms, signed, award)] = signed.message.nonce_commitment
    if len(votes) < terms.m:
        raise RemoteError(f"certificate has {len(votes)} votes, {terms.m} are needed")
    promises = {member: tally.nonce_commitment for member, tally in award.tallies.items()}
    return CertifiedAward(award, award.winner, award.price, {**votes, **promises})
