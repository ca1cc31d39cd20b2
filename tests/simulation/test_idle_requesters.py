"""Story: a requester that had nothing to order for a while finds its nodes at once when it does."""

from __future__ import annotations

import pytest

from cyxnode.simulation.plan import Plan
from cyxnode.simulation.run import run_plan

AWARD_MAX_MS = 6_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 7, 15, 18])
def test_who_was_idle_asks_those_that_it_is_connected_to(seed: int) -> None:
    """Nobody speaks to it unasked, so after 30 s it takes all for dead; its bootstrap node may know no more."""
    run = run_plan(Plan(seed=seed, peers=5, minutes=2, jobs=1, requesters=1))
    (job,) = run.jobs
    award_ms = job.between_ms("submitted", "awarded")
    assert job.at_s > 40 and run.violations == []
    assert award_ms is not None and award_ms < AWARD_MAX_MS
    assert "queued" not in job.stages
