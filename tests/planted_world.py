"""A world with a bug on purpose: a crash of any node before a job is over counts as a broken invariant.

`python -m planted_world` plays plans like cyxnode.simulation.process, with this bug in the auditor.
"""

from __future__ import annotations

from cyxnode.simulation import process
from cyxnode.simulation.desk import JobRecord
from cyxnode.simulation.invariants import Auditor

PLANTED = 6
_honest = Auditor.final


def _final(self: Auditor, jobs: list[JobRecord]) -> None:
    _honest(self, jobs)
    crashes = [detail for _, kind, detail in self.world.trace.events if kind == "down"]
    if crashes:
        self.judge.broken(PLANTED, f"planted: {crashes[0]} went down")


if __name__ == "__main__":
    Auditor.final = _final  # type: ignore[method-assign]
    process.main()
