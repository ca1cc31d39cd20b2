"""Where a registered node stands with its stake: what it may do now, and when it can have its money back.

A pure function of the Node account, Config and the cluster's clock; the same rules as the escrow program's.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum

from .chain import ChainConfig, NodeAccount

_CALENDAR_END_S = 253_402_300_799


class Standing(Enum):
    """Only ACTIVE nodes are drawn for committees; the last four do not serve at all."""

    ACTIVE = "active"
    BELOW_MINIMUM = "below the minimum stake"
    """Slashed: it may still bid what its stake covers, but is not drawn."""
    UNBONDING = "unbonding"
    WITHDRAWABLE = "withdrawable"
    """The unbonding time is over, the stake is still there."""
    WITHDRAWN = "without stake"
    RETIRED = "retired"
    """Convicted of equivocation: this key is never a node again."""


def standing(account: NodeAccount, config: ChainConfig, unix_s: int) -> Standing:
    """How a node stands at `unix_s` of the cluster's clock."""
    if account.retired:
        return Standing.RETIRED
    if account.unbonding_at_s:
        return Standing.UNBONDING if unix_s < account.unbonding_at_s else Standing.WITHDRAWABLE
    if account.stake == 0:
        return Standing.WITHDRAWN
    return Standing.ACTIVE if account.stake >= config.minimum_stake else Standing.BELOW_MINIMUM


def until_text(at_s: int, unix_s: int) -> str:
    """A moment in UTC and how far away it is, e.g. '2026-12-27 16:12:53 UTC (in 30 d 23 h)'."""
    return f"{utc_text(at_s)} ({'in ' + span_text(at_s - unix_s) if at_s > unix_s else 'now'})"


def utc_text(unix_s: int) -> str:
    """Unix seconds as 'YYYY-MM-DD HH:MM:SS UTC'; later than the calendar's end reads as that."""
    moment = datetime.fromtimestamp(min(max(unix_s, 0), _CALENDAR_END_S), UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def span_text(seconds: int) -> str:
    """The two largest units of a time span: '30 d 23 h', '4 min 5 s', '9 s'."""
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])
