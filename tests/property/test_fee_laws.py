"""Laws of the fee: what is paid adds up, no verifier of a job that is paid in full checks for nothing, and the least
price is the lowest of which that is true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.ledger.genesis import FEE_BPS, VERIFIER_SHARE_BPS
from cyxnode.protocol.limits import AMOUNT_MAX, FEE_BPS_MAX, QUORUMS
from cyxnode.protocol.messages import least_price
from cyxnode.protocol.receipt import fee_split

SIZES = st.sampled_from(sorted(QUORUMS))


def each(price: int, members: int, units: int = 1, total: int = 1) -> int:
    """What every member whose verdict counts is owed on a new network."""
    return fee_split(price, units, total, FEE_BPS, VERIFIER_SHARE_BPS)["verifiers"] // members


@given(st.integers(0, AMOUNT_MAX), st.integers(0, FEE_BPS_MAX), st.integers(0, 10_000), st.data())
def test_what_is_paid_adds_up(price: int, fee_bps: int, share_bps: int, data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 2**32 - 1))
    split = fee_split(price, data.draw(st.integers(0, total)), total, fee_bps, share_bps)
    assert split["worker"] + split["treasury"] + split["verifiers"] == split["amount"] <= price
    assert min(split.values()) >= 0
    assert split["amount"] - split["worker"] <= split["amount"] * fee_bps // 10_000


@given(SIZES, st.integers(0, AMOUNT_MAX - 1_000), st.data())
def test_no_verifier_of_a_job_at_the_least_price_or_more_checks_for_nothing(
    k: int, above: int, data: st.DataObject
) -> None:
    members = data.draw(st.integers(QUORUMS[k], k))
    assert each(least_price(k) + above, members) >= 1


@pytest.mark.parametrize("k", sorted(QUORUMS))
def test_below_the_least_price_each_of_all_verifiers_gets_nothing(k: int) -> None:
    assert each(least_price(k) - 1, k) == 0


@given(SIZES, st.integers(1, 100_000), st.data())
def test_of_a_metered_job_each_gets_something_once_as_much_is_paid(k: int, total: int, data: st.DataObject) -> None:
    """The least price bounds the whole; what is paid for few tokens may be less (docs/inference.md, Metering)."""
    price, units = least_price(k) + data.draw(st.integers(0, 10_000)), data.draw(st.integers(1, total))
    paid = fee_split(price, units, total, FEE_BPS, VERIFIER_SHARE_BPS)["amount"]
    assert (each(price, k, units, total) >= 1) == (paid >= least_price(k))
