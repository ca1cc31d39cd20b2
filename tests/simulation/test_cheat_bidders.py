"""Bidders that come late, hold back, or are many: the auction is decided without them, at the price of the others."""

from __future__ import annotations

import pytest

from cheat_worlds import phases, play

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["late-bid", "withheld-reveal"])
def test_who_breaks_the_order_of_the_auction_wins_nothing(kind: str) -> None:
    run, score = play(kind)
    assert score.paid == 0
    assert score.caught == score.tried
    assert phases(run) == ["settled"] * 3


def test_many_bids_of_one_owner_raise_no_price() -> None:
    run, score = play("sybil")
    assert score.paid == 0
    assert score.caught >= 1
    assert phases(run) == ["settled"] * 3
