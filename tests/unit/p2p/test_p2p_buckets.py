"""Token buckets stay bounded, and forget nobody who has used something up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.p2p import buckets
from cyxnode.p2p.buckets import Buckets


def test_a_bucket_fills_again() -> None:
    tokens = Buckets[str]((2.0, 3))
    assert [tokens.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert tokens.take("a", 0.5) and not tokens.take("a", 0.5)
    assert tokens.take("b", 0.5)


def test_who_has_used_nothing_for_long_is_forgotten() -> None:
    tokens = Buckets[int]((1.0, 5))
    for number in range(10_000):
        assert tokens.take(number, number / 10)
    assert len(tokens._tokens) <= 20


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 2)), max_size=60))
def test_forgetting_gives_nobody_a_token(uses: list[tuple[int, float]]) -> None:
    """The same answers as buckets that forget nothing."""
    tokens, now_s, known = Buckets[int]((1.0, 3)), 0.0, dict[int, tuple[float, float]]()
    for key, pause_s in uses:
        now_s += pause_s
        left, at_s = known.get(key, (3.0, now_s))
        left = min(3.0, left + (now_s - at_s))
        known[key] = (left - 1, now_s) if left >= 1 else known.get(key, (left, now_s))
        assert tokens.take(key, now_s) == (left >= 1)


def test_of_too_many_the_longest_idle_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "PEERS_KNOWN_MAX", 3)
    tokens = Buckets[str]((0.001, 1))
    assert [tokens.take(key, 0.0) for key in "abcd"] == [True] * 4
    assert set(tokens._tokens) == {"b", "c", "d"}
