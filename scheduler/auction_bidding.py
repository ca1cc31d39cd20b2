"""Bids: our own for an announced job, sealed, or why there is none; and what those of others amount to (DESIGN 5)."""

from __future__ import annotations

from ..protocol import codec
from ..protocol.award import decode_bid
from ..protocol.chain import NodeAccount
from ..protocol.envelope import Signed
from ..protocol.messages import BidCommit, BidReveal, Decline, DeclineReason, JobAnnounce
from .auction import CommitSeen, DeclineSeen, RevealSeen, SealedBid
from .context import NodeContext
from .pricing import Declined, quote

Bidding = Signed[BidCommit | BidReveal | Decline]


def stimulus_of(
    signed: Bidding, account: NodeAccount, committed: int, now_ms: int
) -> CommitSeen | DeclineSeen | RevealSeen | str:
    """What a market message tells the machine, or why it does not count. RemoteError when a bid cannot be read.

    `account` is the sender's chain record; `committed` the price of its open awards, which its stake must cover too.
    """
    sender = signed.sender
    match signed.message:
        case Decline():
            return DeclineSeen(sender, now_ms)
        case BidCommit(commitment=commitment):
            return "the bidder is unbonding" if account.unbonding_at_s else CommitSeen(sender, commitment, now_ms)
        case BidReveal() as reveal:
            price = decode_bid(reveal).price
            if price > account.stake - committed:
                return "the free stake does not cover the price"
            return RevealSeen(sender, reveal.bid, reveal.salt, price, signed.raw, now_ms)


def sealed_bid(
    context: NodeContext, announce: JobAnnounce, account: NodeAccount | None, *, running: int, committed: int
) -> SealedBid | Decline | None:
    """`account` is our own chain record, `committed` the price of our open awards; None when we are no provider."""
    if not context.settings.provider:
        return None
    if account is None or account.unbonding_at_s:
        declined = Declined(DeclineReason.STAKE, "not registered, or unbonding")
    else:
        seconds_left = announce.work_deadline_s - context.wire.clock.unix_ms() // 1000
        bid = quote(
            announce,
            context.offer(),
            running=running,
            free_stake=account.stake - committed,
            seconds_left=seconds_left,
        )
        if not isinstance(bid, Declined):
            return SealedBid(codec.encode(bid), context.randomness.bytes(32))
        declined = bid
    return Decline(job=announce.job, reason=declined.reason, hint=declined.hint[:120])
