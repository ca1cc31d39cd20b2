"""Which loaded models must go so that another one fits. Pure: times are the caller's.

Law: what is in use stays; of the rest the least recently used goes first, and no more of them than is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..protocol.errors import ExecutionFailed


@dataclass(frozen=True, slots=True)
class Held:
    """A loaded model, by its place among all. `users` are its open sessions; `used_s` is when it last had one, or was
    loaded."""

    place: int
    size: int
    users: int
    used_s: float


def fits_ever(size: int, budget: int) -> None:
    """Raises ExecutionFailed, with both numbers, for a model that does not fit even alone."""
    if size > budget:
        raise ExecutionFailed(f"it takes {mebibytes(size)} MiB, and models may have {mebibytes(budget)} MiB together")


def room_for(size: int, budget: int, held: Iterable[Held]) -> tuple[int, ...] | None:
    """What to unload, in this order, before `size` bytes are loaded; None while those in use leave no room."""
    loaded = tuple(held)
    excess = size + sum(one.size for one in loaded) - budget
    leaving = []
    for one in sorted(loaded, key=lambda one: one.used_s):
        if excess <= 0:
            break
        if not one.users and one.size:
            leaving.append(one.place)
            excess -= one.size
    return tuple(leaving) if excess <= 0 else None


def idle(held: Iterable[Held], now_s: float, patience_s: float) -> tuple[int, ...]:
    """Models that nobody has used for `patience_s`."""
    return tuple(one.place for one in held if not one.users and now_s - one.used_s >= patience_s)


def mebibytes(size: int) -> int:
    """Rounded up, so that nothing is said to take no room."""
    return -(-size // 1024**2)
