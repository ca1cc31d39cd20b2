"""How a node stands with its stake, and how moments and spans read."""

from __future__ import annotations

from typing import Any

import pytest

from cyxnode.protocol.chain import ChainConfig, NodeAccount
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.standing import Standing, span_text, standing, until_text, utc_text
from cyxnode.protocol.units import MicroCyx, NodeId

NOW_S = 1_800_000_000
CONFIG = ChainConfig(
    admin=bytes(32), genesis=bytes(32), mint=bytes(32), treasury=bytes(32), fee_bps=1_000, verifier_share_bps=2_000,
    minimum_stake=MicroCyx(100 * MICRO), unbonding_s=86_400, grace_s=60,
)  # fmt: skip


def node(**changes: Any) -> NodeAccount:
    facts = {
        "node": NodeId(bytes(32)), "execution_class": bytes(32), "active_since_slot": 1, "payout": bytes(32),
        "stake": MicroCyx(100 * MICRO), "earned": MicroCyx(0), "fees_generated": MicroCyx(0), "jobs_ok": 0,
        "failures": 0, "slashed": MicroCyx(0), "unbonding_at_s": 0,
    }  # fmt: skip
    return NodeAccount(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, Standing.ACTIVE),
        ({"stake": 100 * MICRO - 1}, Standing.BELOW_MINIMUM),
        ({"unbonding_at_s": NOW_S + 1}, Standing.UNBONDING),
        ({"unbonding_at_s": NOW_S}, Standing.WITHDRAWABLE),
        ({"stake": 0}, Standing.WITHDRAWN),
        ({"stake": 0, "retired": True}, Standing.RETIRED),
        ({"unbonding_at_s": NOW_S + 1, "retired": True}, Standing.RETIRED),
    ],
)
def test_a_node_stands_as_its_account_says(changes: dict[str, Any], found: Standing) -> None:
    assert standing(node(**changes), CONFIG, NOW_S) is found


def test_a_moment_is_written_in_utc_with_its_distance() -> None:
    assert until_text(NOW_S + 90_061, NOW_S) == "2027-01-16 09:01:01 UTC (in 1 d 1 h)"
    assert until_text(NOW_S, NOW_S) == "2027-01-15 08:00:00 UTC (now)"
    assert utc_text(1 << 63) == "9999-12-31 23:59:59 UTC"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (9, "9 s"), (61, "1 min 1 s"), (3_600, "1 h"), (86_400 + 59, "1 d 59 s"), (31 * 86_400, "31 d")],
)
def test_a_span_has_its_two_largest_units(seconds: int, text: str) -> None:
    assert span_text(seconds) == text
