"""The models of other matchers: what they must do in any world, and in what they must differ."""

from __future__ import annotations

from statistics import mean, median

import pytest

from cyxnode.simulation.baselines import BASELINES, CENTRAL_INTERVAL_S, SOLVER_INTERVAL_S, play_baseline
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.scene import Scene

CALM = Plan(seed=11, peers=12, minutes=8, jobs=16)
STORMY = Plan(seed=11, peers=24, minutes=20, jobs=60, faults="harsh")


def awards_s(scene: Scene) -> list[float]:
    return [job.awarded_s - job.submitted_s for job in scene.jobs if job.awarded_s is not None]


@pytest.mark.parametrize("name", BASELINES)
def test_without_faults_every_job_is_done_and_nothing_is_wasted(name: str) -> None:
    scene = play_baseline(name, CALM)
    assert len(scene.jobs) == CALM.jobs
    assert all(job.done_s is not None and not job.lost and job.price > 0 for job in scene.jobs)
    assert scene.wasted_s == 0
    assert scene.trained_s == pytest.approx(sum(job.work_s for job in scene.jobs))
    assert all(job.done_s is not None and job.done_s - job.submitted_s > job.work_s for job in scene.jobs)


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_plan_gives_the_same_times(name: str) -> None:
    assert awards_s(play_baseline(name, STORMY)) == awards_s(play_baseline(name, STORMY))


@pytest.mark.parametrize("name", BASELINES)
def test_in_a_storm_every_job_ends_and_work_adds_up(name: str) -> None:
    scene = play_baseline(name, STORMY)
    done = [job for job in scene.jobs if job.done_s is not None]
    assert not [job for job in done if job.lost]
    assert len(done) + sum(job.lost for job in scene.jobs) == len(scene.jobs) == STORMY.jobs
    assert scene.trained_s == pytest.approx(sum(job.work_s for job in done) + scene.wasted_s)


def test_batches_wait_half_their_interval() -> None:
    for name, interval_s in (("central matcher, 5 s", CENTRAL_INTERVAL_S), ("solver, 10 s", SOLVER_INTERVAL_S)):
        waits = [wait for seed in range(12) for wait in awards_s(play_baseline(name, Plan(seed=seed, jobs=20)))]
        assert mean(waits) == pytest.approx(interval_s / 2, rel=0.35)
        assert max(waits) < interval_s + 2


def test_who_looks_at_prices_pays_less_and_who_does_not_is_faster() -> None:
    scenes = {name: play_baseline(name, CALM) for name in BASELINES}
    cost = {name: mean(job.price for job in scene.jobs) for name, scene in scenes.items()}
    wait = {name: median(awards_s(scene)) for name, scene in scenes.items()}
    for cheap in ("central matcher, 5 s", "solver, 10 s"):
        for fast in ("first poller wins", "FIFO queue per market"):
            assert cost[cheap] < cost[fast]
            assert wait[fast] < wait[cheap]


def test_only_a_matcher_can_lose_jobs() -> None:
    lost = {
        name: sum(job.lost for seed in range(8) for job in play_baseline(name, _with_seed(seed)).jobs)
        for name in BASELINES
    }
    assert lost["posted price, latency"] == 0
    assert lost["solver, 10 s"] > 0


def _with_seed(seed: int) -> Plan:
    return Plan(seed=seed, peers=40, minutes=30, jobs=300, requesters=20, faults="harsh")
