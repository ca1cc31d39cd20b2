"""Story: twenty worlds that nobody has seen before, and five that are played twice.

Each is a market of six nodes with everyday faults. A failure prints the one command that plays its world again. The
fresh seeds follow from the commit: every change of the code plays new worlds, and a run of one commit can be repeated.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyxnode.simulation.plan import Plan
from cyxnode.simulation.process import Worlds
from cyxnode.simulation.sweep import cores, play_all

FRESH = 20
FIXED = (1, 2, 3, 5, 8)


def first_fresh_seed() -> int:
    """From the name of the commit; from the time where there is no repository."""
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    name = head.stdout.strip()
    return 100 * (int(name[:8], 16) if name else time.time_ns() // 1_000_000 % 10**9)


def tiny(seed: int) -> Plan:
    return Plan(seed=seed, peers=6, minutes=1.5, jobs=2, faults="default")


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    with Worlds() as opened:
        yield opened


@pytest.mark.slow
def test_fresh_seeds_violate_nothing(worlds: Worlds) -> None:
    first = first_fresh_seed()
    plans = [tiny(first + number) for number in range(FRESH)]
    reports = [report for _, report in play_all(worlds, plans, cores())]
    failed = [f"{one['command']}\n  {one['invariants_violated']}" for one in reports if one["invariants_violated"]]
    assert not failed, "\n".join(["these worlds fail:", *failed])
    assert sum(report["jobs"] for report in reports) == 2 * FRESH
    assert sum(report["paid"] for report in reports) > FRESH, "most jobs of such worlds are paid"


@pytest.mark.slow
def test_a_seed_decides_everything(worlds: Worlds) -> None:
    plans = [tiny(seed) for seed in FIXED]
    first, second = ([report for _, report in play_all(worlds, plans, cores())] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one["trace_hash"] == other["trace_hash"], f"two runs differ: {one['command']}"
        assert not one["invariants_violated"], one["command"]
    assert len({report["trace_hash"] for report in first}) == len(FIXED)
