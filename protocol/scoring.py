"""The integer score of a bid, and the price that the winner is paid (DESIGN 5).

Every factor is an integer from 0 to 10^6, every weight a number of parts per million, so two machines never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from .chain import NodeAccount
from .limits import MICRO
from .messages import Bid, JobAnnounce

REPUTATION_HALF_MICRO_CYX = 10 * MICRO
"""Treasury fees really paid at which trust reaches one half."""
STAKE_HALF_MICRO_CYX = 1_000 * MICRO
"""Stake at which the stake factor reaches one half."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bid with the record of its bidder, as the score sees it."""

    digest: bytes
    bidder: bytes
    bid: Bid
    stake: int
    reputation_ppm: int


def reputation_ppm(account: NodeAccount) -> int:
    """0 to 10^6 from the chain account alone: fees really paid, times the share of jobs that ended well.

    It grows with treasury fees, so it cannot be farmed with dust; a newcomer has 0.
    """
    fees = account.fees_generated
    trust = MICRO * fees // (fees + REPUTATION_HALF_MICRO_CYX)
    return trust * (account.jobs_ok + 1) // (account.jobs_ok + account.failures + 1)


def _factors(announce: JobAnnounce, candidate: Candidate) -> dict[str, int]:
    """All weighted factors but the price, with scale 10^12."""
    bid, weights = candidate.bid, announce.weights
    device = MICRO if announce.device in ("any", bid.device) else 0
    needed = max(1, announce.memory_mb)
    memory = MICRO * min(bid.memory_mb, 2 * needed) // (2 * needed)
    held = sum(1 for cid in announce.datasets if cid in bid.datasets)
    near = MICRO if announce.region in ("", bid.region) else 0
    local = MICRO * held // len(announce.datasets) if announce.datasets else MICRO
    return {
        "reputation": weights.reputation_ppm * candidate.reputation_ppm,
        "stake": weights.stake_ppm * (MICRO * candidate.stake // (candidate.stake + STAKE_HALF_MICRO_CYX)),
        "device": weights.device_ppm * device,
        "locality": weights.locality_ppm * ((near + local) // 2),
        "memory": weights.memory_ppm * memory,
        "queue": weights.queue_ppm * (MICRO // (1 + bid.queue_length)),
    }


def _price_part(announce: JobAnnounce, price: int) -> int:
    limit = max(1, announce.price_limit)
    return announce.weights.price_ppm * (MICRO * (limit - price) // limit)


def score_parts(announce: JobAnnounce, candidate: Candidate) -> dict[str, int]:
    """What each factor adds to the score, with scale 10^12."""
    return {"price": _price_part(announce, candidate.bid.price), **_factors(announce, candidate)}


def score(announce: JobAnnounce, candidate: Candidate) -> int:
    """Score with scale 10^12; higher is better; never rises with the price."""
    return sum(score_parts(announce, candidate).values())


def rank(announce: JobAnnounce, candidates: list[Candidate]) -> list[Candidate]:
    """Best first; equal scores are ordered by digest."""
    return sorted(candidates, key=lambda one: (-score(announce, one), one.digest))


def award_price(announce: JobAnnounce, ranking: list[Candidate]) -> int:
    """What the winner gets: the highest price at which it would still have won, at most reserve and budget."""
    winner, limit = ranking[0], announce.price_limit
    if len(ranking) == 1:
        return limit
    rest, second = sum(_factors(announce, winner).values()), ranking[1]
    mark = score(announce, second)
    ties_won = winner.digest < second.digest

    def wins(price: int) -> bool:
        mine = _price_part(announce, price) + rest
        return mine > mark or (mine == mark and ties_won)

    low, high = winner.bid.price, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if wins(middle) else (low, middle - 1)
    return low
