"""Whether to bid, and at what price. A pure function of the announce and of what this node offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..protocol.limits import MICRO, TOKENS_PER_S_ASSUMED
from ..protocol.messages import Bid, DeclineReason, InferTerms, JobAnnounce, ModelOffer


@dataclass(frozen=True, slots=True)
class Offer:
    """What this node sells. `mflop_per_s` turns the announced work into seconds; it is an estimate."""

    device: Literal["cpu", "cuda"]
    memory_mb: int
    sandboxed: bool
    rate_micro_per_s: int
    mflop_per_s: int
    region: str
    datasets: tuple[str, ...]
    capacity: int
    draining: bool = False
    models: tuple[ModelOffer, ...] = ()


@dataclass(frozen=True, slots=True)
class Declined:
    """Why not, with a hint for the requester."""

    reason: DeclineReason
    hint: str


def estimated_seconds(work_mflop: int, mflop_per_s: int) -> int:
    """At least one second: start-up is work too."""
    return max(1, -(-work_mflop // max(1, mflop_per_s)))


def price_of(work_mflop: int, mflop_per_s: int, rate_micro_per_s: int) -> int:
    """Price in micro-CYX of a whole job."""
    return max(1, estimated_seconds(work_mflop, mflop_per_s) * rate_micro_per_s)


def price_of_tokens(prompt_tokens: int, generated_tokens: int, model: ModelOffer) -> int:
    """Price in micro-CYX of so many tokens, rounded up."""
    return max(1, -(-(prompt_tokens * model.prompt_rate + generated_tokens * model.generated_rate) // 1_000))


def seconds_of_tokens(generated_tokens: int, model: ModelOffer) -> int:
    """How long so many tokens take, by what the node measured."""
    pace_micro = model.tokens_per_s_micro or TOKENS_PER_S_ASSUMED * MICRO
    return max(1, -(-generated_tokens * MICRO // pace_micro))


def _work(announce: JobAnnounce, offer: Offer) -> tuple[int, int] | None:
    """Seconds and price of a job here; None when its model is not served."""
    terms = announce.inference
    if terms is None:
        seconds = estimated_seconds(announce.work_mflop, offer.mflop_per_s)
        return seconds, price_of(announce.work_mflop, offer.mflop_per_s, offer.rate_micro_per_s)
    model = _served(offer.models, terms)
    if model is None:
        return None
    price = price_of_tokens(terms.prompt_tokens, terms.generated_tokens, model)
    return seconds_of_tokens(terms.generated_tokens, model), price


def _served(models: tuple[ModelOffer, ...], terms: InferTerms) -> ModelOffer | None:
    return next((one for one in models if (one.model, one.backend) == (terms.model, terms.backend)), None)


def quote(announce: JobAnnounce, offer: Offer, *, running: int, free_stake: int, seconds_left: int) -> Bid | Declined:
    """A bid, or the first reason against one. `free_stake` is the stake less the prices of our open awards."""
    work = _work(announce, offer)
    if offer.draining:
        return Declined(DeclineReason.DRAINING, "this node is shutting down")
    if running >= offer.capacity:
        return Declined(DeclineReason.BUSY, f"{running} jobs run here")
    if announce.device not in ("any", offer.device):
        return Declined(DeclineReason.DEVICE, f"this node has {offer.device}")
    if announce.memory_mb > offer.memory_mb:
        return Declined(DeclineReason.MEMORY, f"{offer.memory_mb} MB are here")
    if announce.region not in ("", offer.region):
        return Declined(DeclineReason.REGION, f"this node is in {offer.region or 'no named region'}")
    if not offer.sandboxed and not announce.unsandboxed_ok:
        return Declined(DeclineReason.SANDBOX, "no sandbox here; allow it with unsandboxed_ok")
    if work is None:
        return Declined(DeclineReason.MODEL, "this node does not serve the model")
    seconds, price = work[0], max(work[1], announce.price_least)
    if price > announce.price_limit:
        return Declined(DeclineReason.PRICE, f"from {price / MICRO:.6f} CYX here")
    if price > free_stake:
        return Declined(DeclineReason.STAKE, f"{free_stake / MICRO:.6f} CYX of stake are free")
    if seconds > seconds_left:
        return Declined(DeclineReason.DEADLINE, f"about {seconds} s are needed")
    return Bid(
        price=price,
        estimated_ms=seconds * 1000,
        device=offer.device,
        memory_mb=offer.memory_mb,
        queue_length=running,
        region=offer.region,
        datasets=offer.datasets,
    )


def reserve_price(prices: list[int]) -> int:
    """The 90th percentile of live prices of a class (DESIGN 5), in micro-CYX; 0 when nobody is there."""
    ordered = sorted(prices)
    return ordered[(len(ordered) * 9 - 1) // 10 if len(ordered) > 1 else 0] if ordered else 0
