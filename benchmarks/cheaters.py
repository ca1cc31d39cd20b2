"""Are cheaters caught as often as the protocol promises? Many small worlds, one kind of cheater at a time.

    PYTHONHASHSEED=0 python benchmarks/cheaters.py [--seeds 8] [--kinds lazy,forged-leaf] [--cpu-seconds 180]

For each kind: tries, catches, gains; for those whose detection is a matter of luck, the expected catches over the tries
that were decided, and by how many standard errors the count is off (it should be within 2). Prints JSON, and ends with
status 1 when an invariant broke, a count is off, or something was paid that is always seen.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from typing import Any

import structlog

from cyxnode.simulation.cheaters import CHEATS, Score
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.run import run_plan

STANDARD_ERRORS = 2.0
LUCKY = ("lazy", "forged-leaf")
"""Kinds that sampling may miss. All others must gain nothing."""


def measure(kind: str, seeds: int, until_s: float) -> dict[str, Any]:
    """Play `kind` over seeds until the CPU time is used up."""
    score, broken, slashed, worlds = Score(), [], 0, 0
    for seed in range(seeds):
        if worlds and time.process_time() > until_s:
            break
        # One cheater in twelve peers of the jobs' class: all members are honest, as the prediction assumes. One sybil
        # alone is none.
        share = 0.34 if kind == "sybil" else 0.1
        prompts = 1.0 if CHEATS[kind].infers else 0.0
        plan = Plan(
            seed=seed, peers=12, minutes=2.0, jobs=16, requesters=4, cheaters=share, cheats=(kind,), prompts=prompts
        )
        run = run_plan(plan)
        worlds += 1
        score.merge(run.cheating[kind])
        broken += [f"{plan.command()}: {one.number} {one.text}" for one in run.violations]
        slashed += sum(1 for one in run.violations if one.number == 4)
    off = (score.caught_with_odds - score.expected) / math.sqrt(score.variance) if score.variance > 0 else 0.0
    return {
        "kind": kind,
        "worlds": worlds,
        **score.counts(),
        "decided": score.decided,
        "expected": round(score.expected, 2),
        "standard_errors_off": round(off, 2),
        "honest_slashes": slashed,
        "violations": broken,
        "good": score.tried > 0 and not broken and (abs(off) <= STANDARD_ERRORS if kind in LUCKY else score.paid == 0),
    }


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--kinds", default=",".join(CHEATS))
    parser.add_argument("--cpu-seconds", type=float, default=180.0)
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    kinds, began = arguments.kinds.split(","), time.process_time()
    results = []
    for number, kind in enumerate(kinds, 1):
        results.append(measure(kind, arguments.seeds, began + arguments.cpu_seconds * number / len(kinds)))
        print(json.dumps(results[-1]), flush=True)
    return 0 if all(result["good"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
