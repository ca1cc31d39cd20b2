"""Quotes and estimates."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.messages import Bid, Capability, DeclineReason
from cyxnode.scheduler.pricing import Declined, Offer, estimated_seconds, price_of, price_range, quote, reserve_price
from sample_messages import ANNOUNCE, MESSAGES

OFFER = Offer(
    device="cpu", memory_mb=1024, sandboxed=True, rate_micro_per_s=20_000, mflop_per_s=5_000, region="", datasets=(),
    capacity=1,
)  # fmt: skip
RECORD = next(message for message in MESSAGES if isinstance(message, Capability))


def asked(
    offer: Offer = OFFER, *, running: int = 0, stake: int = 100 * MICRO, left_s: int = 600, **changes: Any
) -> Bid | Declined:
    announce = msgspec.structs.replace(ANNOUNCE, **changes)
    return quote(announce, offer, running=running, free_stake=stake, seconds_left=left_s)


def changed(**changes: Any) -> Offer:
    return Offer(**{name: getattr(OFFER, name) for name in OFFER.__slots__} | changes)


def test_a_bid_names_the_price_of_the_estimated_time() -> None:
    bid = asked(running=0)
    assert isinstance(bid, Bid)
    assert bid.estimated_ms == 25_000
    assert bid.price == 25 * 20_000


@pytest.mark.parametrize(
    ("offer", "arguments", "reason"),
    [
        (changed(draining=True), {}, DeclineReason.DRAINING),
        (OFFER, {"running": 1}, DeclineReason.BUSY),
        (changed(capacity=0), {}, DeclineReason.BUSY),
        (OFFER, {"device": "cuda"}, DeclineReason.DEVICE),
        (OFFER, {"memory_mb": 2048}, DeclineReason.MEMORY),
        (OFFER, {"region": "eu"}, DeclineReason.REGION),
        (changed(sandboxed=False), {}, DeclineReason.SANDBOX),
        (OFFER, {"reserve": 499_999}, DeclineReason.PRICE),
        (OFFER, {"stake": 499_999}, DeclineReason.STAKE),
        (OFFER, {"left_s": 24}, DeclineReason.DEADLINE),
    ],
)
def test_every_reason_against_a_bid(offer: Offer, arguments: dict[str, Any], reason: DeclineReason) -> None:
    declined = asked(offer, **arguments)
    assert isinstance(declined, Declined)
    assert declined.reason is reason
    assert 0 < len(declined.hint) <= 120


def test_an_unsandboxed_node_bids_where_the_requester_accepts_it() -> None:
    assert isinstance(asked(changed(sandboxed=False), unsandboxed_ok=True), Bid)


def test_nothing_takes_less_than_a_second_or_costs_nothing() -> None:
    assert estimated_seconds(0, 0) == 1
    assert price_of(1, 10**9, 0) == 1


@pytest.mark.parametrize(("count", "rank"), [(1, 0), (2, 1), (10, 8), (11, 9)])
def test_the_reserve_is_the_ninetieth_percentile(count: int, rank: int) -> None:
    records = [msgspec.structs.replace(RECORD, rate_micro_per_s=rate) for rate in range(1, count + 1)]
    assert reserve_price(records, 1, 1) == rank + 1
    assert price_range(records, 1, 1) == (1, count)


def test_an_empty_class_has_no_price() -> None:
    assert reserve_price([], 1, 1) == 0
    assert price_range([], 1, 1) == (0, 0)
