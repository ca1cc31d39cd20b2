"""Who fits, which escrow agrees, which bid is covered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from cyxnode.protocol import codec
from cyxnode.protocol.chain import JobAccount, JobState, NodeAccount
from cyxnode.protocol.envelope import Signed
from cyxnode.protocol.messages import BidCommit, BidReveal, Capability, Decline, DeclineReason
from cyxnode.protocol.units import JobId, MicroCyx, NodeId
from cyxnode.scheduler.auction import CommitSeen, DeclineSeen, RevealSeen
from cyxnode.scheduler.auction_bidding import stimulus_of
from cyxnode.scheduler.auction_escrow import disagreement
from cyxnode.scheduler.requirements import HINTS, Requirements, explain
from sample_messages import ANNOUNCE, BID, MESSAGES

OFFER = next(message for message in MESSAGES if isinstance(message, Capability))
WISHES = Requirements("cuda", 1024, "eu", False)
SENDER = NodeId(b"s" * 32)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, ""),
        ({"device": "cpu"}, "are of another device"),
        ({"memory_mb": 1023}, "have too little memory"),
        ({"region": "us"}, "are in another region"),
        ({"sandbox": "none"}, "have no sandbox"),
    ],
)
def test_every_misfit_has_its_cause_and_its_hint(changes: dict[str, Any], cause: str) -> None:
    offer = msgspec.structs.replace(OFFER, **changes)
    assert WISHES.misfit(offer) == cause
    assert WISHES.may_sit(offer) is not bool(cause)
    assert not cause or cause in HINTS
    assert not WISHES.may_sit(msgspec.structs.replace(OFFER, verifier=False))


def test_causes_are_counted_most_frequent_first() -> None:
    text = explain(["are in another region", "have no sandbox", "have no sandbox"])
    assert text == "2 have no sandbox: allow it with unsandboxed_ok; 1 are in another region: ask for no region"


ESCROW = JobAccount(
    job=JobId(ANNOUNCE.job), requester=SENDER, budget=MicroCyx(ANNOUNCE.budget), spec_hash=ANNOUNCE.spec_hash,
    execution_class=ANNOUNCE.execution_class, fee_bps=1000, verifier_share_bps=2000, k=ANNOUNCE.k, m=2, open_slot=1,
    committee=(), work_deadline_s=ANNOUNCE.work_deadline_s, refund_at_s=ANNOUNCE.work_deadline_s + 61,
    units_total=ANNOUNCE.segments, units_paid=0, settlements=0, state=JobState.OPEN, verdict=None, worker=None,
    paid=MicroCyx(0), result_hash=bytes(32), fee_mask=0, shares=(), slashed=MicroCyx(0),
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"requester": NodeId(bytes(32))},
        {"budget": MicroCyx(1)},
        {"spec_hash": bytes(32)},
        {"execution_class": bytes(32)},
        {"k": 7},
        {"units_total": 1},
        {"work_deadline_s": 1},
        {"state": JobState.SETTLED},
    ],
)
def test_an_announce_that_contradicts_its_escrow_is_not_followed(changes: dict[str, Any]) -> None:
    signed = Signed(SENDER, ANNOUNCE, b"")
    assert disagreement(signed, ESCROW, ANNOUNCE.program) == ""
    assert disagreement(signed, replace(ESCROW, **changes), ANNOUNCE.program)
    assert disagreement(signed, ESCROW, bytes(32))


def bidder(*, stake: int = BID.price, unbonding: int = 0) -> NodeAccount:
    return NodeAccount(
        node=SENDER, execution_class=ANNOUNCE.execution_class, active_since_slot=1, payout=SENDER,
        stake=MicroCyx(stake), earned=MicroCyx(0), fees_generated=MicroCyx(0), jobs_ok=0, failures=0,
        slashed=MicroCyx(0), unbonding_at_s=unbonding,
    )  # fmt: skip


def test_the_free_stake_must_cover_a_bid() -> None:
    reveal: Signed[Any] = Signed(SENDER, BidReveal(job=ANNOUNCE.job, bid=codec.encode(BID), salt=bytes(32)), b"raw")
    seen = stimulus_of(reveal, bidder(), 0, 7)
    assert isinstance(seen, RevealSeen)
    assert (seen.price, seen.now_ms) == (BID.price, 7)
    assert isinstance(stimulus_of(reveal, bidder(stake=BID.price - 1), 0, 7), str)
    assert isinstance(stimulus_of(reveal, bidder(), 1, 7), str)


def test_an_unbonding_node_may_decline_and_not_bid() -> None:
    commit: Signed[Any] = Signed(SENDER, BidCommit(job=ANNOUNCE.job, commitment=bytes(32)), b"")
    assert isinstance(stimulus_of(commit, bidder(), 0, 7), CommitSeen)
    assert isinstance(stimulus_of(commit, bidder(unbonding=9), 0, 7), str)
    decline: Signed[Any] = Signed(SENDER, Decline(job=ANNOUNCE.job, reason=DeclineReason.BUSY, hint=""), b"")
    assert stimulus_of(decline, bidder(unbonding=9), 0, 7) == DeclineSeen(SENDER, 7)
