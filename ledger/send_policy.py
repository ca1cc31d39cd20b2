"""How firmly a transaction has to stand before it counts, and what may be paid for haste."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ..protocol.limits import PRIORITY_FEE_MAX_LAMPORTS

Level = Literal["processed", "confirmed", "finalized"]
LEVELS: Final[tuple[Level, ...]] = ("processed", "confirmed", "finalized")
"""Solana's commitment levels, each including those before it. What is only processed can be undone."""
WaitedFor = Literal["confirmed", "finalized"]


@dataclass(frozen=True, slots=True)
class SendPolicy:
    """Part of an `Rpc`. `priority_fee_max_lamports` bounds what one transaction offers beside its base fee."""

    commitment: WaitedFor = "confirmed"
    priority_fee_max_lamports: int = PRIORITY_FEE_MAX_LAMPORTS

    def reached(self, level: Level) -> bool:
        """Whether a transaction at `level` may be relied on."""
        return LEVELS.index(level) >= LEVELS.index(self.commitment)
