"""Bidders that want to know more than the others before they bid, hold the auction up, or are many."""

from __future__ import annotations

from typing import ClassVar

import trio

from ...protocol import codec
from ...protocol.award import decode_bid, recompute
from ...protocol.chain import Verdict
from ...protocol.errors import RemoteError
from ...protocol.hashing import bid_commitment
from ...protocol.messages import AwardCertificate, Bid, BidCommit, BidReveal
from ...protocol.ports import GossipMessage
from ...protocol.scoring import award_price
from ...protocol.units import JobId
from .cheat import Ending, Fate
from .meddling import Meddler

CLOSE_S = 2.1
"""A little longer than the commit window of the simulated market."""


def won_fate(cheat: Meddler, key: bytes, ending: Ending) -> Fate:
    """Paid when the cheater got the job and its money; caught when the job ended without it."""
    account = ending.settled(key)
    if account is None or account.verdict is Verdict.UNSOLD:
        return Fate.NEITHER
    return Fate.PAID if account.worker == cheat.me and account.verdict is Verdict.OK else Fate.CAUGHT


class LateBid(Meddler):
    """Keeps its commit until somebody else reveals, then commits and reveals a little less than the lowest price."""

    name: ClassVar[str] = "late-bid"
    role = "bidder"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lowest: dict[bytes, int] = {}
        self.heard = trio.Event()

    def hears(self, message: GossipMessage) -> None:
        """Follows the prices of others."""
        opened = self.opened(message)
        if isinstance(opened, BidReveal):
            try:
                price = decode_bid(opened).price
            except RemoteError:
                return
            self.lowest[opened.job] = min(price, self.lowest.get(opened.job, price))
            self.heard.set()
            self.heard = trio.Event()

    def opened(self, message: GossipMessage) -> object:
        """The message inside gossip of the market; None of anything else."""
        if "/market/" not in message.topic:
            return None
        try:
            return self.open(message.data).message
        except RemoteError:
            return None

    async def publishes(self, topic: str, data: bytes) -> bytes | None:
        """Nothing in time, everything late."""
        message = self.open(data).message
        if isinstance(message, BidReveal):
            return None
        if not isinstance(message, BidCommit):
            return data
        with trio.move_on_after(CLOSE_S):
            while message.job not in self.lowest:
                await self.heard.wait()
        price, salt = max(1, self.lowest.get(message.job, 10_000) - 1), self.rng.randbytes(32)
        bid = codec.encode(
            Bid(price=price, estimated_ms=1000, device="cpu", memory_mb=0, queue_length=0, region="", datasets=())
        )
        self.tried(message.job)
        commitment = bid_commitment(JobId(message.job), self.me, salt, bid)
        await self.gossips(topic, self.seal(BidCommit(job=message.job, commitment=commitment)))
        return self.seal(BidReveal(job=message.job, bid=bid, salt=salt))

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By who was paid."""
        return won_fate(self, key, ending)


class WithheldReveal(Meddler):
    """Commits and never reveals: the others wait for it to the end of the window."""

    name: ClassVar[str] = "withheld-reveal"
    role = "bidder"

    async def publishes(self, topic: str, data: bytes) -> bytes | None:
        """All but the reveal."""
        message = self.open(data).message
        if isinstance(message, BidCommit):
            self.tried(message.job, 1.0)
        return None if isinstance(message, BidReveal) else data

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By who was paid."""
        return won_fate(self, key, ending)


class Sybil(Meddler):
    """One of many cheap bidders of one owner, which hopes that its own bids raise what its winner gets.

    A try is a job on which more than one of them bid. It is paid when the winner is one of them and the price is
    higher than it would have been without the bids of the others; honest work at an honest price is no cheat.
    """

    name: ClassVar[str] = "sybil"
    role = "bidder"
    cheap = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bids: dict[bytes, set[bytes]] = {}
        self.certificates: dict[bytes, AwardCertificate] = {}

    @property
    def owner(self) -> Sybil:
        """The first of the gang keeps the books."""
        first = self.gang[0] if self.gang else self
        assert isinstance(first, Sybil)
        return first

    async def publishes(self, topic: str, data: bytes) -> bytes | None:
        """Counts the gang's bids."""
        message = self.open(data).message
        if isinstance(message, BidReveal):
            bids = self.owner.bids.setdefault(message.job, set())
            bids.add(self.me)
            if len(bids) > 1:
                self.owner.tried(message.job, 1.0)
        return data

    def hears(self, message: GossipMessage) -> None:
        """Keeps the certificates, to be judged by them."""
        if "/market/" in message.topic:
            try:
                opened = self.open(message.data).message
            except RemoteError:
                return
            if isinstance(opened, AwardCertificate):
                self.owner.certificates.setdefault(opened.job, opened)

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By what the gang's own bids did to the price."""
        account, certificate = ending.settled(key), self.certificates.get(key)
        gang = {one.me for one in self.gang}
        if account is None or account.verdict is Verdict.UNSOLD:
            return Fate.NEITHER
        if account.worker not in gang or account.verdict is not Verdict.OK or certificate is None:
            return Fate.CAUGHT
        rooms = [one.peer.node.market.rooms.get(key) for one in self.gang if one.peer.node is not None]
        terms = next((room.auction.terms for room in rooms if room is not None and room.auction.terms), None)
        if terms is None:
            return Fate.NEITHER
        ranking = recompute(terms, certificate.proposal).ranking
        alone = [one for one in ranking if one.bidder == account.worker or one.bidder not in gang]
        return Fate.PAID if certificate.price > award_price(terms.announce, alone) else Fate.CAUGHT
