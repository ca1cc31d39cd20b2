"""Which nodes a restart may bring back, and what the others are told."""

from __future__ import annotations

from typing import Any

import pytest

from cyxnode.protocol.chain import ChainConfig, NodeAccount
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import MicroCyx, NodeId
from cyxnode.scheduler.node import may_serve

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


@pytest.mark.parametrize("changes", [{}, {"stake": MicroCyx(1)}])
def test_a_node_with_any_stake_serves(changes: dict[str, Any]) -> None:
    may_serve(node(**changes), CONFIG, NOW_S)


@pytest.mark.parametrize(
    ("changes", "field", "text", "fix"),
    [
        ({"unbonding_at_s": NOW_S + 61}, "stake", "(in 1 min 1 s)", "wallet stake 0 --reactivate"),
        ({"unbonding_at_s": NOW_S}, "stake", "waits to be withdrawn", "wallet withdraw"),
        ({"stake": MicroCyx(0)}, "stake", "no stake", "wallet stake 100.000000"),
        ({"stake": MicroCyx(0), "retired": True}, "key", "equivocation", "new key"),
    ],
)
def test_others_are_told_why_not_and_what_to_do(changes: dict[str, Any], field: str, text: str, fix: str) -> None:
    with pytest.raises(LocalError) as caught:
        may_serve(node(**changes), CONFIG, NOW_S)
    assert caught.value.field == field and text in str(caught.value) and fix in caught.value.fix
