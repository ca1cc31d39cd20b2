"""The real network beside five models of other matchers, on the same seeds: the rows of `cyxnode sim compare`.

Times are from submission. A job of ours is complete when its result was verified by a committee and paid for; the
models neither verify nor pay, so their jobs are complete when the result arrives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .baselines import BASELINES, play_baseline
from .plan import Plan
from .process import Worlds
from .report import Report, percentile
from .scene import Scene
from .sweep import Observe, cores, play_all

OURS = "cyxnode"


@dataclass(slots=True)
class Tally:
    """What one way of matching did over all seeds; times in ms, money in micro-CYX, work in virtual seconds."""

    name: str
    jobs: int = 0
    award_ms: list[float] = field(default_factory=list)
    done_ms: list[float] = field(default_factory=list)
    complete_ms: list[float] = field(default_factory=list)
    prices: list[int] = field(default_factory=list)
    trained_s: float = 0.0
    wasted_s: float = 0.0
    offered_s: float = 0.0
    lost: int = 0
    broken: int = 0
    """Worlds that broke down, and are in no other figure."""

    def add_report(self, report: Report) -> None:
        """A world of the real network."""
        jobs = report["details"]["jobs"]
        paid = [job for job in jobs if job["paid"]]
        self.jobs += len(jobs)
        self.award_ms += [job["award_ms"] for job in jobs if job["award_ms"] is not None]
        self.done_ms += [job["claim_ms"] for job in paid if job["claim_ms"] is not None]
        self.complete_ms += [job["paid_ms"] for job in paid if job["paid_ms"] is not None]
        self.prices += [job["price_micro_cyx"] for job in paid if job["price_micro_cyx"]]
        self.trained_s += report["work_s"]["trained"]
        self.wasted_s += report["work_s"]["wasted"]
        self.offered_s += 60 * report["details"]["plan"]["minutes"] * len(report["details"]["nodes"])

    def add_scene(self, scene: Scene) -> None:
        """A world of a model."""
        done = [job for job in scene.jobs if job.done_s is not None]
        times = [1000 * (job.done_s - job.submitted_s) for job in done if job.done_s is not None]
        self.jobs += len(scene.jobs)
        self.award_ms += [1000 * (job.awarded_s - job.submitted_s) for job in scene.jobs if job.awarded_s is not None]
        self.done_ms += times
        self.complete_ms += times
        self.prices += [job.price for job in done]
        self.trained_s += scene.trained_s
        self.wasted_s += scene.wasted_s
        self.offered_s += scene.plan.minutes * 60 * len(scene.nodes)
        self.lost += sum(job.lost for job in scene.jobs)

    def row(self) -> dict[str, Any]:
        """As JSON, None where nothing happened.

        `utilisation` is training time over all nodes' time in the plan's minutes, `waste` the unpaid share of training.
        """
        return {
            "name": self.name,
            "jobs": self.jobs,
            "completed": len(self.complete_ms),
            "award_p50_ms": _rounded(percentile(self.award_ms, 0.5)),
            "award_p99_ms": _rounded(percentile(self.award_ms, 0.99)),
            "done_p50_ms": _rounded(percentile(self.done_ms, 0.5)),
            "complete_p50_ms": _rounded(percentile(self.complete_ms, 0.5)),
            "cost_micro_cyx": round(sum(self.prices) / len(self.prices)) if self.prices else None,
            "utilisation": round(self.trained_s / self.offered_s, 6) if self.offered_s else None,
            "waste": round(self.wasted_s / self.trained_s, 4) if self.trained_s else None,
            "lost_to_matcher": self.lost,
            "broken_worlds": self.broken,
        }


def compare(worlds: Worlds, plans: Iterable[Plan], observe: Observe) -> list[dict[str, Any]]:
    """A row for ours and for each baseline, over all plans. `observe` hears of each real world."""
    ours, others = Tally(OURS), [Tally(name) for name in BASELINES]
    for plan, report in play_all(worlds, plans, cores()):
        observe(plan, report)
        if "details" in report:
            ours.add_report(report)
        else:
            ours.broken += 1
        for tally in others:
            tally.add_scene(play_baseline(tally.name, plan))
    return [tally.row() for tally in (ours, *others)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
