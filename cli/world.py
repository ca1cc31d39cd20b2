"""The real clock and the real randomness: the only places where a node meets either."""

from __future__ import annotations

import os
import time


class SystemClock:
    """The machine's clocks."""

    def unix_ms(self) -> int:
        """Wall time in Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds that only grow."""
        return time.monotonic_ns() // 1_000_000


class SystemRandomness:
    """The operating system's random source."""

    def bytes(self, count: int) -> bytes:
        """`count` unpredictable bytes."""
        return os.urandom(count)
