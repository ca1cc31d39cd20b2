"""Hand-overs (DESIGN 5): who works on a job after its winner, at what price, and what proves that members said so.

A hand-over follows from the award and a rank alone, so all members that find a worker lost sign the same bytes. Ranks
do not share a slot of quorum signatures, and the digest is equal in all rounds of one rank: an honest member cannot
contradict itself. The latest rank counts; whoever missed an earlier hand-over needs it for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from .award import Award, CertifiedAward, JobTerms
from .errors import RemoteError
from .hashing import QuorumKind, handover_digest, quorum_message
from .identity import verify
from .limits import HANDOVER_ROUNDS_MAX, HANDOVERS_MAX
from .messages import HandoverCertificate, JobAnnounce
from .scoring import award_price
from .units import NodeId

FROM_LEAF = 0
"""Where a successor begins: anew."""


@dataclass(frozen=True, slots=True)
class Successor:
    """Who works on a job at a rank; 0 is the award's winner. `estimated_ms` is what its bid says."""

    rank: int
    node: NodeId
    price: int
    estimated_ms: int


def ladder(announce: JobAnnounce, award: Award) -> tuple[Successor, ...]:
    """The winner and, in their order, all who may take over."""
    ranking = list(award.ranking[: HANDOVERS_MAX + 1])
    return tuple(
        Successor(rank, NodeId(one.bidder), price_at(announce, award, rank), one.bid.estimated_ms)
        for rank, one in enumerate(ranking)
    )


def price_at(announce: JobAnnounce, award: Award, rank: int) -> int:
    """What the node at a rank is paid: what the award would give it, had those before it not bid. At most the limit of
    all bids, at least its own bid."""
    return award_price(announce, list(award.ranking[rank:]))


def digest_of(terms: JobTerms, award: Award, successor: Successor) -> bytes:
    """What is signed for a hand-over, in every round."""
    return handover_digest(terms.job, award.digest, successor.rank, FROM_LEAF, successor.node, successor.price)


def slot(rank: int, round_: int) -> int:
    """The round of the quorum signatures for a hand-over to `rank` in its own `round_`."""
    return rank * HANDOVER_ROUNDS_MAX + round_


def handover_message(terms: JobTerms, rank: int, round_: int, digest: bytes) -> bytes:
    """The 40 bytes that a member signs; no settlement comes before a hand-over in this version."""
    return quorum_message(QuorumKind.HANDOVER, 0, slot(rank, round_), terms.context, digest)


def certified_digest(terms: JobTerms, certificate: HandoverCertificate) -> bytes:
    """What the signatures of a certificate cover, by its own fields."""
    return handover_digest(
        terms.job,
        certificate.award,
        certificate.rank,
        certificate.from_leaf,
        certificate.successor,
        certificate.price,
    )


def handover_signers(terms: JobTerms, certificate: HandoverCertificate) -> dict[NodeId, bytes]:
    """The members whose signatures in a certificate hold, with those."""
    message = handover_message(terms, certificate.rank, certificate.round, certified_digest(terms, certificate))
    return {
        NodeId(node): signature
        for node, signature in certificate.signatures
        if node in terms.committee and verify(node, message, signature)
    }


def check_handover(terms: JobTerms, award: Award, certificate: HandoverCertificate) -> Successor:
    """The successor that a certificate entitles under an award; RemoteError names the part that fails."""
    if certificate.job != terms.job or certificate.award != award.digest:
        raise RemoteError("hand-over is of another job or award")
    if certificate.from_leaf != FROM_LEAF:
        raise RemoteError(f"hand-over is from leaf {certificate.from_leaf} on: this version knows none but whole ones")
    steps = ladder(terms.announce, award)
    if certificate.rank >= len(steps):
        raise RemoteError(f"hand-over to rank {certificate.rank} of {len(steps)}")
    successor = steps[certificate.rank]
    if (successor.node, successor.price) != (certificate.successor, certificate.price):
        raise RemoteError("hand-over names another successor or price than the award's ranking")
    agreed = handover_signers(terms, certificate)
    if len(agreed) < terms.m:
        raise RemoteError(f"hand-over has {len(agreed)} valid signatures, {terms.m} are needed")
    return successor


def succeeded(certified: CertifiedAward, successor: Successor) -> CertifiedAward:
    """The award as it stands after a hand-over: its worker and price are the successor's."""
    return CertifiedAward(certified.award, successor.node, successor.price, certified.nonce_commitments)
