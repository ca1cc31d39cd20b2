"""Quotes and estimates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import msgspec
import pytest

from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.inference import InferTask
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.messages import Bid, Capability, DeclineReason, least_price
from cyxnode.protocol.units import MicroCyx
from cyxnode.scheduler.orders import InferOrder
from cyxnode.scheduler.pricing import (
    Declined,
    Offer,
    estimated_seconds,
    price_of,
    price_of_tokens,
    quote,
    reserve_price,
    seconds_of_tokens,
)
from sample_messages import ANNOUNCE, INFERENCE, MESSAGES, OFFERED

OFFER = Offer(
    device="cpu", memory_mb=1024, sandboxed=True, rate_micro_per_s=20_000, mflop_per_s=5_000, region="", datasets=(),
    capacity=1,
)  # fmt: skip


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


@pytest.mark.parametrize("k", [3, 5, 7])
def test_a_bid_is_never_so_low_that_verifiers_get_nothing(k: int) -> None:
    bid = asked(changed(rate_micro_per_s=1), k=k)
    assert isinstance(bid, Bid) and bid.price == least_price(k)
    declined = asked(changed(rate_micro_per_s=1), k=k, reserve=least_price(k) - 1)
    assert isinstance(declined, Declined) and declined.reason is DeclineReason.PRICE


@pytest.mark.parametrize("k", [3, 5, 7])
def test_a_budget_that_pays_no_verifier_is_refused_with_field_and_fix(k: Literal[3, 5, 7]) -> None:
    task = InferTask(prompts=("?",), num_predict=1)
    order = InferOrder(model="tiny", task=task, k=k, budget=MicroCyx(least_price(k)))
    with pytest.raises(LocalError) as caught:
        replace(order, budget=MicroCyx(least_price(k) - 1))
    assert (caught.value.field, caught.value.fix) == ("budget", f"offer 0.000{least_price(k)} CYX or more")
    assert replace(order, budget=MicroCyx(0)).prices([]) == [], "left to the market"


def test_an_order_expects_no_lower_price_than_may_be_bid() -> None:
    offer = next(one for one in MESSAGES if isinstance(one, Capability))
    cheap = msgspec.structs.replace(offer, models=(msgspec.structs.replace(OFFERED, prompt_rate=0, generated_rate=0),))
    order = InferOrder(model=OFFERED.name, task=InferTask(prompts=("?",)), budget=MicroCyx(0), k=5)
    assert order.price_at(cheap) == 1
    assert order.prices([cheap]) == [least_price(5)]


@pytest.mark.parametrize(("count", "rank"), [(0, -1), (1, 0), (2, 1), (10, 8), (11, 9)])
def test_the_reserve_is_the_ninetieth_percentile(count: int, rank: int) -> None:
    assert reserve_price(list(range(count, 0, -1))) == rank + 1


def test_tokens_are_priced_by_the_thousand_and_rounded_up() -> None:
    assert price_of_tokens(1_000, 2_000, OFFERED) == 500 + 2 * 2_000
    assert price_of_tokens(1, 0, OFFERED) == 1
    assert price_of_tokens(0, 0, OFFERED) == 1, "nothing costs nothing"


def test_a_model_that_is_not_measured_is_taken_to_be_slow() -> None:
    assert seconds_of_tokens(2_600, OFFERED) == 10
    assert seconds_of_tokens(100, msgspec.structs.replace(OFFERED, tokens_per_s_micro=0)) == 20


def test_a_bid_for_an_inference_is_for_all_tokens_that_there_can_be() -> None:
    serving, terms = changed(models=(OFFERED,)), INFERENCE.inference
    assert terms is not None
    bid = quote(INFERENCE, serving, running=0, free_stake=10**9, seconds_left=60)
    assert isinstance(bid, Bid)
    assert bid.price == price_of_tokens(terms.prompt_tokens, terms.generated_tokens, OFFERED)


@pytest.mark.parametrize("other", [{"model": bytes(32)}, {"backend": bytes(32)}])
def test_another_model_or_backend_is_not_bid_for(other: dict[str, Any]) -> None:
    serving = changed(models=(msgspec.structs.replace(OFFERED, **other),))
    declined = quote(INFERENCE, serving, running=0, free_stake=10**9, seconds_left=60)
    assert isinstance(declined, Declined)
    assert declined.reason is DeclineReason.MODEL
