"""One sealed-bid auction as a node of the class sees it: bidder, and committee member once seated (DESIGN 5).

Rule 1: commits count until the commit window ends, or until every live node known to match committed or declined.
Rule 2: a reveal counts if it opens a commit that was seen in time; a committee member's own bid is void. Gossip keeps
no order: a reveal that overtook its commit waits for it.
Rule 3: when reveals are complete, or their window ends, a member sends its tally to the round's leader, the member
with rank `round mod k`; the leader proposes, members vote once per round, m votes are the certificate.
Where more bid than a certificate holds, all tally the TALLIED_MAX cheapest: first come would be others at each member.
Rule 4: after ROUNDS_MAX rounds without a certificate the job is unsold.
Pure: time and randomness are arguments; a useless or late stimulus changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from ..protocol.award import Award
from ..protocol.hashing import bid_commitment, bid_digest
from ..protocol.limits import BID_MAX_BYTES, BIDS_MAX, COMMITS_MAX, COMMITTEE_MAX, ROUNDS_MAX, TALLIED_MAX
from ..protocol.units import JobId, NodeId
from .auction_events import Certified as Certified
from .auction_events import CommitSeen as CommitSeen
from .auction_events import CommitteeSeated as CommitteeSeated
from .auction_events import DeclareUnsold as DeclareUnsold
from .auction_events import DeclineSeen as DeclineSeen
from .auction_events import Effect as Effect
from .auction_events import Propose as Propose
from .auction_events import PublishCertificate as PublishCertificate
from .auction_events import PublishCommit as PublishCommit
from .auction_events import PublishReveal as PublishReveal
from .auction_events import Reveal as Reveal
from .auction_events import RevealSeen as RevealSeen
from .auction_events import SendTally as SendTally
from .auction_events import Stimulus as Stimulus
from .auction_events import TallyReceived as TallyReceived
from .auction_events import TimePassed as TimePassed
from .auction_events import VoteReceived as VoteReceived

VOTE_GRACE_MS = 100
"""The least that a leader with m votes waits for the rest: who has no vote in the certificate promised no nonce there,
and its verdict will not count."""


class Phase(Enum):
    """Where an auction stands."""

    COMMITTING = auto()
    REVEALING = auto()
    TALLYING = auto()
    ROUNDS = auto()
    AWARDED = auto()
    UNSOLD = auto()


@dataclass(frozen=True, slots=True)
class SealedBid:
    """Our own bid: encoded, with its salt."""

    bid: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class AuctionTerms:
    """What the announce fixes, and who we are. Durations in milliseconds."""

    job: JobId
    me: NodeId
    m: int
    price_least: int
    price_limit: int
    commit_ms: int
    reveal_ms: int
    round_ms: int

    @property
    def vote_grace_ms(self) -> int:
        """A quarter of the round, which is made for the distances between the members."""
        return max(VOTE_GRACE_MS, self.round_ms // 4)


@dataclass(frozen=True, slots=True)
class Auction:
    """State. `expected` are the live nodes, other than us, that match the class."""

    terms: AuctionTerms
    opened_at_ms: int
    expected: frozenset[NodeId]
    own: SealedBid | None
    phase: Phase = Phase.COMMITTING
    reveal_until_ms: int = 0
    committee: tuple[NodeId, ...] = ()
    commits: Mapping[NodeId, bytes] = field(default_factory=dict)
    declined: frozenset[NodeId] = frozenset()
    reveals: Mapping[NodeId, Reveal] = field(default_factory=dict)
    outbid: frozenset[NodeId] = frozenset()
    """Whose reveals were seen, and are too dear to be tallied."""
    early_reveals: Mapping[NodeId, RevealSeen] = field(default_factory=dict)
    tallies: Mapping[NodeId, bytes] = field(default_factory=dict)
    own_tally: tuple[bytes, ...] = ()
    round: int = 0
    round_started_ms: int = 0
    proposed_at_ms: int | None = None
    voted: Mapping[int, bytes] = field(default_factory=dict)
    votes: Mapping[NodeId, bytes] = field(default_factory=dict)

    def leader(self, round_: int) -> NodeId:
        """The member that leads a round."""
        return self.committee[round_ % len(self.committee)]

    @property
    def seated(self) -> bool:
        return self.terms.me in self.committee


Step = tuple[Auction, list[Effect]]


def open_auction(terms: AuctionTerms, now_ms: int, expected: frozenset[NodeId], own: SealedBid | None) -> Step:
    """Begin at the receipt of an announce."""
    auction = Auction(terms, now_ms, expected - {terms.me}, own)
    if own is None:
        return _close_commits_if_complete(auction, now_ms)
    commitment = bid_commitment(terms.job, terms.me, own.salt, own.bid)
    auction, more = _close_commits_if_complete(auction, now_ms)
    return auction, [PublishCommit(commitment), *more]


def step(auction: Auction, stimulus: Stimulus) -> Step:
    """Apply one stimulus."""
    if auction.phase in (Phase.AWARDED, Phase.UNSOLD):
        return auction, []
    match stimulus:
        case CommitSeen(bidder, commitment, now_ms):
            return _on_commit(auction, bidder, commitment, now_ms)
        case DeclineSeen(node, now_ms):
            if auction.phase is not Phase.COMMITTING or node in auction.commits or node not in auction.expected:
                return auction, []
            return _close_commits_if_complete(replace(auction, declined=auction.declined | {node}), now_ms)
        case RevealSeen():
            return _on_reveal(auction, stimulus)
        case CommitteeSeated(committee, now_ms):
            if auction.committee:
                return auction, []
            reveals = {b: r for b, r in auction.reveals.items() if b not in committee}
            auction = replace(auction, committee=committee, reveals=reveals)
            if auction.phase is Phase.REVEALING:
                return _close_reveals_if_complete(auction, now_ms)
            return _start_rounds(auction, now_ms) if auction.phase is Phase.TALLYING else (auction, [])
        case TallyReceived(member, raw, now_ms):
            if member not in auction.committee or member in auction.tallies:
                return auction, []
            return _propose_if_ready(replace(auction, tallies={**auction.tallies, member: raw}), now_ms)
        case VoteReceived(member, round_, raw, now_ms):
            if round_ != auction.round or member not in auction.committee or auction.proposed_at_ms is None:
                return auction, []
            return _certify_if_ready(replace(auction, votes={**auction.votes, member: raw}), now_ms)
        case Certified():
            return replace(auction, phase=Phase.AWARDED), []
        case TimePassed(now_ms):
            return _on_time(auction, now_ms)


def next_wake_ms(auction: Auction) -> int | None:
    """When TimePassed will next change something."""
    match auction.phase:
        case Phase.COMMITTING:
            return auction.opened_at_ms + auction.terms.commit_ms
        case Phase.REVEALING:
            return auction.reveal_until_ms
        case Phase.ROUNDS:
            end = auction.round_started_ms + auction.terms.round_ms
            if auction.proposed_at_ms is not None and len(auction.votes) >= auction.terms.m:
                return min(end, auction.proposed_at_ms + auction.terms.vote_grace_ms)
            if auction.proposed_at_ms is None and _leading(auction) and len(auction.tallies) >= auction.terms.m:
                return min(end, auction.round_started_ms + auction.terms.round_ms // 3)
            return end
        case _:
            return None


@dataclass(frozen=True, slots=True)
class VoteCast:
    """Judgement: sign this award."""

    round: int
    digest: bytes


def judge_proposal(auction: Auction, leader: NodeId, award: Award) -> tuple[Auction, VoteCast | str]:
    """Whether to sign a recomputed proposal: our vote, or the reason why not."""
    if auction.phase is not Phase.ROUNDS:
        return auction, f"not in a voting round but {auction.phase.name}"
    if award.round < auction.round or leader != auction.leader(award.round):
        return auction, f"round {award.round} is over, or is not led by the proposer"
    mine = award.tallies.get(auction.terms.me)
    if mine is None or mine.bids != auction.own_tally:
        return auction, "our tally is not among the proposal's"
    if award.winner is None:
        return auction, "no bid counts"
    if auction.voted.get(award.round, award.digest) != award.digest:
        return auction, f"another award was signed in round {award.round}"
    voted = {**auction.voted, award.round: award.digest}
    return replace(auction, voted=voted), VoteCast(award.round, award.digest)


# transitions ------------------------------------------------------------------------------------------------------


def _on_commit(auction: Auction, bidder: NodeId, commitment: bytes, now_ms: int) -> Step:
    late = now_ms > auction.opened_at_ms + auction.terms.commit_ms
    if (
        auction.phase is not Phase.COMMITTING
        or late
        or bidder in auction.commits
        or len(auction.commits) >= COMMITS_MAX
    ):
        return auction, []
    auction = replace(auction, commits={**auction.commits, bidder: commitment})
    early = auction.early_reveals.get(bidder)
    if early is not None:
        auction, _ = _on_reveal(auction, early)
    return _close_commits_if_complete(auction, now_ms)


def _close_commits_if_complete(auction: Auction, now_ms: int) -> Step:
    heard = auction.commits.keys() | auction.declined
    if auction.expected and auction.expected <= heard:
        return _close_commits(auction, now_ms)
    return auction, []


def _close_commits(auction: Auction, now_ms: int) -> Step:
    auction = replace(auction, phase=Phase.REVEALING, reveal_until_ms=now_ms + auction.terms.reveal_ms)
    effects: list[Effect] = []
    if auction.own is not None and not auction.seated:
        effects.append(PublishReveal(auction.own.bid, auction.own.salt))
    auction, more = _close_reveals_if_complete(auction, now_ms)
    return auction, effects + more


def _on_reveal(auction: Auction, seen: RevealSeen) -> Step:
    terms = auction.terms
    if auction.phase not in (Phase.COMMITTING, Phase.REVEALING) or (
        seen.bidder in auction.reveals or seen.bidder in auction.outbid
    ):
        return auction, []
    if len(seen.bid) > BID_MAX_BYTES:
        return auction, []
    if seen.bidder not in auction.commits:
        if auction.phase is Phase.REVEALING or len(auction.early_reveals) >= BIDS_MAX:
            return auction, []
        return replace(auction, early_reveals={**auction.early_reveals, seen.bidder: seen}), []
    commitment = bid_commitment(terms.job, seen.bidder, seen.salt, seen.bid)
    if auction.commits.get(seen.bidder) != commitment or not terms.price_least <= seen.price <= terms.price_limit:
        return auction, []
    if seen.bidder in auction.committee:
        return auction, []
    reveal = Reveal(bid_digest(terms.job, seen.bidder, seen.bid), seen.raw, seen.price)
    auction = _without_the_dearest(replace(auction, reveals={**auction.reveals, seen.bidder: reveal}))
    return _close_reveals_if_complete(auction, seen.now_ms)


def _cheapest(reveals: Mapping[NodeId, Reveal]) -> list[NodeId]:
    """Bidders, the lowest price first: the same for all who saw the same bids, in whatever order they came."""
    return sorted(reveals, key=lambda bidder: (reveals[bidder].price, reveals[bidder].digest))


def _without_the_dearest(auction: Auction) -> Auction:
    """As many reveals as can be tallied; and one more for each seat, since a member's own bid is void."""
    if len(auction.reveals) <= TALLIED_MAX + COMMITTEE_MAX:
        return auction
    dearest = _cheapest(auction.reveals)[-1]
    kept = {bidder: reveal for bidder, reveal in auction.reveals.items() if bidder != dearest}
    return replace(auction, reveals=kept, outbid=auction.outbid | {dearest})


def _close_reveals_if_complete(auction: Auction, now_ms: int) -> Step:
    if auction.phase is not Phase.REVEALING or not auction.committee:
        return auction, []
    waiting = auction.commits.keys() - auction.reveals.keys() - auction.outbid - set(auction.committee)
    return (auction, []) if waiting else _close_reveals(auction, now_ms)


def _close_reveals(auction: Auction, now_ms: int) -> Step:
    auction = replace(auction, phase=Phase.TALLYING)
    return _start_rounds(auction, now_ms) if auction.committee else (auction, [])


def _start_rounds(auction: Auction, now_ms: int) -> Step:
    if not auction.seated:
        return auction, []
    tallied = _cheapest(auction.reveals)[:TALLIED_MAX]
    own_tally = tuple(sorted(auction.reveals[bidder].digest for bidder in tallied))
    auction = replace(auction, phase=Phase.ROUNDS, own_tally=own_tally, round=0, round_started_ms=now_ms)
    auction, more = _propose_if_ready(auction, now_ms)
    return auction, [SendTally(auction.leader(0), own_tally), *more]


def _leading(auction: Auction) -> bool:
    return bool(auction.committee) and auction.leader(auction.round) == auction.terms.me


def _propose_if_ready(auction: Auction, now_ms: int) -> Step:
    if auction.phase is not Phase.ROUNDS or not _leading(auction) or auction.proposed_at_ms is not None:
        return auction, []
    patient = now_ms < auction.round_started_ms + auction.terms.round_ms // 3
    enough = len(auction.committee) if patient else auction.terms.m
    if len(auction.tallies) < enough or auction.terms.me not in auction.tallies:
        return auction, []
    auction = replace(auction, proposed_at_ms=now_ms)
    return auction, [Propose(auction.round, tuple(auction.tallies.values()), auction.reveals)]


def _certify_if_ready(auction: Auction, now_ms: int) -> Step:
    proposed_at_ms = auction.proposed_at_ms
    if auction.phase is not Phase.ROUNDS or proposed_at_ms is None or len(auction.votes) < auction.terms.m:
        return auction, []
    if len(auction.votes) < len(auction.committee) and now_ms < proposed_at_ms + auction.terms.vote_grace_ms:
        return auction, []
    return auction, [PublishCertificate(auction.round, tuple(auction.votes.values()))]


def _on_time(auction: Auction, now_ms: int) -> Step:
    match auction.phase:
        case Phase.COMMITTING if now_ms >= auction.opened_at_ms + auction.terms.commit_ms:
            return _close_commits(auction, now_ms)
        case Phase.REVEALING if now_ms >= auction.reveal_until_ms:
            return _close_reveals(auction, now_ms)
        case Phase.ROUNDS if now_ms >= auction.round_started_ms + auction.terms.round_ms:
            return _next_round(auction, now_ms)
        case Phase.ROUNDS:
            auction, proposed = _propose_if_ready(auction, now_ms)
            auction, certified = _certify_if_ready(auction, now_ms)
            return auction, proposed + certified
        case _:
            return auction, []


def _next_round(auction: Auction, now_ms: int) -> Step:
    round_ = auction.round + 1
    if round_ >= ROUNDS_MAX:
        why = "no bid was revealed" if not auction.own_tally else f"no award found {auction.terms.m} votes"
        return replace(auction, phase=Phase.UNSOLD), [DeclareUnsold(f"{why} in {ROUNDS_MAX} rounds")]
    auction = replace(auction, round=round_, round_started_ms=now_ms, proposed_at_ms=None, votes={})
    auction, more = _propose_if_ready(auction, now_ms)
    return auction, [SendTally(auction.leader(round_), auction.own_tally), *more]
