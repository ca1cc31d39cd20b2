"""An award recomputed for a reader (DESIGN 5): who bid what, how the score of each came about, and who signed for it.

Everything follows from the signed bids, tallies and votes in the certificate; nothing in it is taken on trust but the
chain records of the bidders, on which m members of the committee agreed.
"""

from __future__ import annotations

from dataclasses import dataclass

from .award import JobTerms, check_certificate, check_vote
from .envelope import open_as
from .messages import AwardCertificate, AwardVote
from .scoring import score_parts
from .units import NodeId


@dataclass(frozen=True, slots=True)
class Ranked:
    """One bid. `parts` are what each factor adds to the score, with scale 10^12; `stake` in micro-CYX."""

    bidder: NodeId
    price: int
    estimated_ms: int
    stake: int
    reputation_ppm: int
    parts: dict[str, int]

    @property
    def score(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Audit:
    """The ranking, best first, and what follows from it. `price` is what the winner is paid for all of the work: the
    highest at which it would still have won, at most `limit`, which is the lesser of reserve and budget."""

    round: int
    ranking: tuple[Ranked, ...]
    price: int
    limit: int
    tallied: tuple[NodeId, ...]
    voted: tuple[NodeId, ...]

    @property
    def winner(self) -> NodeId:
        return self.ranking[0].bidder

    @property
    def capped(self) -> bool:
        """Whether nobody else's bid decided the price."""
        return self.price == self.limit


def audit(terms: JobTerms, certificate: bytes) -> Audit:
    """Recompute an award from its certificate envelope; RemoteError names the evidence that does not hold."""
    opened = open_as(certificate, terms.genesis, AwardCertificate, opener=terms.opener).message
    award = check_certificate(terms, opened).award
    votes = (open_as(raw, terms.genesis, AwardVote, max_bytes=2048, opener=terms.opener) for raw in opened.votes)
    return Audit(
        round=award.round,
        ranking=tuple(
            Ranked(
                bidder=NodeId(one.bidder),
                price=one.bid.price,
                estimated_ms=one.bid.estimated_ms,
                stake=one.stake,
                reputation_ppm=one.reputation_ppm,
                parts=score_parts(terms.announce, one),
            )
            for one in award.ranking
        ),
        price=award.price,
        limit=terms.announce.price_limit,
        tallied=tuple(sorted(award.tallies)),
        voted=tuple(sorted({check_vote(terms, vote, award) for vote in votes})),
    )
