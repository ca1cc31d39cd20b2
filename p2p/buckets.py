"""Token buckets: how often each of many may do something, and how often at once. Pure: `now_s` is the caller's."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from ..protocol.limits import PEERS_KNOWN_MAX

K = TypeVar("K", bound=Hashable)
Rate = tuple[float, int]
"""Tokens a second, and how many may be used at once."""


@dataclass(slots=True)
class Buckets(Generic[K]):
    """Tokens by peer, host or whoever. Who is forgotten begins with a full bucket: so those go whose bucket is full
    again, and of more than PEERS_KNOWN_MAX those that have not used any for longest."""

    rate: Rate
    _tokens: dict[K, tuple[float, float]] = field(default_factory=dict)

    def left(self, key: K, now_s: float) -> float:
        """Tokens of one of them."""
        per_s, burst = self.rate
        known = self._tokens.get(key)
        return burst if known is None else min(burst, known[0] + (now_s - known[1]) * per_s)

    def take(self, key: K, now_s: float, count: int = 1) -> bool:
        """Use tokens up; False when there are too few."""
        left = self.left(key, now_s)
        if left < count:
            return False
        self._tokens.pop(key, None)
        self._tokens[key] = (left - count, now_s)
        for oldest in list(islice(self._tokens, 2)):
            if len(self._tokens) > PEERS_KNOWN_MAX or self.left(oldest, now_s) >= self.rate[1]:
                del self._tokens[oldest]
        return True
