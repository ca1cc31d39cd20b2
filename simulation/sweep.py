"""Many seeds on all cores, and the first one that fails made small.

Every world has its own process. Results come in the order of seeds whatever the cores do, so that a sweep of the same
seeds always reports the same failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from ..protocol.errors import ExecutionFailed
from .plan import Plan
from .process import Worlds
from .report import Report, crashed
from .shrink import TRIALS_MAX, shrink

COUNTED = ("jobs", "paid", "refunded", "cheats_tried", "cheats_caught", "cheats_paid", "cpu_seconds")
KEPT = ("seed", "trace_hash", *COUNTED)
"""What a sweep keeps of a world that holds: little, since there may be a million."""
Observe = Callable[[Plan, Report], None]


@dataclass(slots=True)
class Sweep:
    """What came of many seeds: KEPT of each report in their order, up to the first failing one; `shrunk` is that one,
    small."""

    reports: list[Report] = field(default_factory=list)
    failed: Report | None = None
    shrunk: Report | None = None
    trials: int = 0
    """Worlds played to shrink the failing one."""


def cores() -> int:
    """How many worlds run at once."""
    return os.cpu_count() or 1


def play_all(worlds: Worlds, plans: Iterable[Plan], width: int) -> Iterator[tuple[Plan, Report]]:
    """All plans, `width` at a time, in their order."""
    with ThreadPoolExecutor(max_workers=width) as pool:
        waiting: list[tuple[Plan, Future[Report]]] = []
        try:
            for plan in plans:
                waiting.append((plan, pool.submit(_play, worlds, plan)))
                if len(waiting) >= 2 * width:
                    first, future = waiting.pop(0)
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
            worlds.interrupt()


def _play(worlds: Worlds, plan: Plan) -> Report:
    try:
        return worlds.play(plan)
    except ExecutionFailed as error:  # killed, or out of memory: a find as well
        return crashed(plan.seed, plan.command(), str(error))


def broken_laws(report: Report) -> set[int]:
    """Numbers of the violated invariants."""
    return {violation["number"] for violation in report["invariants_violated"]}


def sweep(worlds: Worlds, plans: Iterable[Plan], observe: Observe, *, trials_max: int = TRIALS_MAX) -> Sweep:
    """Play plans until one violates an invariant, then shrink it as far as it violates the same one."""
    result = Sweep()
    failing: Plan | None = None
    for plan, report in play_all(worlds, plans, cores()):
        result.reports.append({name: report.get(name, 0) for name in KEPT})
        observe(plan, report)
        if report["invariants_violated"]:
            failing, result.failed = plan, report
            break
    if failing is None or result.failed is None:
        return result
    law = result.failed["invariants_violated"][0]["number"]
    result.shrunk = result.failed

    def fails(candidate: Plan) -> bool:
        result.trials += 1
        report = _play(worlds, candidate)
        observe(candidate, report)
        if law not in broken_laws(report):
            return False
        result.shrunk = report
        return True

    shrink(failing, fails, trials_max)
    return result


def totals(result: Sweep) -> Report:
    """A sweep as JSON: sums over its seeds, and the failure."""
    failed, shrunk = result.failed, result.shrunk
    return {
        "seeds": len(result.reports),
        **{name: round(sum(report[name] for report in result.reports), 2) for name in COUNTED},
        "trace_hashes": {str(report["seed"]): report["trace_hash"] for report in result.reports},
        "failed_seed": None if failed is None else failed["seed"],
        "invariants_violated": [] if failed is None else failed["invariants_violated"],
        "shrunk_violations": [] if shrunk is None else shrunk["invariants_violated"],
        "shrink_trials": result.trials,
        "command": "" if failed is None else failed["command"],
        "shrunk_command": "" if shrunk is None else shrunk["command"],
    }
