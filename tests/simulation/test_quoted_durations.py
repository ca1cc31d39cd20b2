"""A job of a simulated market lasts as long as it was quoted: prices are per second, and seconds are worked for."""

from __future__ import annotations

import pytest

from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.pricing import estimated_seconds
from cyxnode.simulation.plan import MFLOP_PER_S, MFLOP_PER_STEP, Plan, job_steps
from cyxnode.simulation.run import run_plan

pytestmark = pytest.mark.slow


def test_simulated_and_quoted_seconds_agree() -> None:
    run = run_plan(Plan(seed=3, peers=8, minutes=2.0, jobs=5))
    assert run.violations == []
    assert [job.result.phase for job in run.jobs if job.result] == [JobPhase.SETTLED] * 5
    quoted = [estimated_seconds(job_steps(run.plan, job.number) * MFLOP_PER_STEP, MFLOP_PER_S) for job in run.jobs]
    assert sum(run.work.trained_s.values()) == pytest.approx(sum(quoted), rel=0.05)
    for job, seconds in zip(run.jobs, quoted, strict=True):
        lasted_ms = job.between_ms("training", "claimed")
        assert lasted_ms == pytest.approx(1000 * seconds, rel=0.2), job
