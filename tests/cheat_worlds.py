"""Small worlds with one kind of cheater, played to the end."""

from __future__ import annotations

from typing import Any

from cyxnode.simulation.cheaters import Score
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.run import Run, run_plan

SEEDS_MAX = 5
"""Worlds that are tried until the cheater has its chance: who is drawn for a committee is up to the seed."""


def play(kind: str, *, seed: int = 1, **changes: Any) -> tuple[Run, Score]:
    """A world of nine peers, a third of which cheat in one way, from `seed` on; no invariant may break in any."""
    wished: dict[str, Any] = {"peers": 9, "minutes": 1.0, "jobs": 3, "requesters": 2, "cheaters": 0.34, **changes}
    for number in range(seed, seed + SEEDS_MAX):
        run = run_plan(Plan(seed=number, cheats=(kind,), **wished))
        assert run.violations == [], run.plan.command()
        score = run.cheating[kind]
        assert score.caught + score.paid <= score.tried
        if score.caught + score.paid:
            return run, score
    raise AssertionError(f"no {kind} had its chance in {SEEDS_MAX} worlds: {run.plan.command()}")


def phases(run: Run) -> list[str]:
    """How the jobs ended, in the order of their arrival."""
    return [job.result.phase.value if job.result is not None else "error" for job in run.jobs]
