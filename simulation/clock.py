"""Virtual clocks and seeded randomness: the two ports through which a simulated node could leave its seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

import trio

START_S = 1_800_000_000
"""Unix time at which every world begins."""


@dataclass(frozen=True, slots=True)
class VirtualClock:
    """Moves with trio's clock; wall time is off by `skew_ms`."""

    skew_ms: int = 0

    def unix_ms(self) -> int:
        """Wall time as this node's clock has it."""
        return START_S * 1000 + self.monotonic_ms() + self.skew_ms

    def monotonic_ms(self) -> int:
        """Virtual milliseconds since the start."""
        return round(trio.current_time() * 1000)


@dataclass(slots=True)
class SeededRandomness:
    """Secrets of a simulated node."""

    rng: random.Random

    def bytes(self, count: int) -> bytes:
        """`count` bytes that follow from the seed."""
        return self.rng.randbytes(count)
