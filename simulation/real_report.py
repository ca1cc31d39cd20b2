"""What came of a real world, in the shape of a virtual one's report: what cannot be measured from outside is null.

`checks` says of each law how it was looked at, or that it was not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from .desk import JobRecord
from .judge import Violation
from .plan import Plan
from .report import Report, report_of
from .run import NodeFacts, Run
from .trace import Trace

UNMEASURED = (
    *("trace_hash", "virtual_seconds", "work_s", "messages", "bytes", "messages_per_node", "bytes_per_node"),
    *("messages_per_node_and_job", "topics"),
)
TROUBLES = ("down", "pause", "split")
NOT_CHECKED = "not checked: "


@dataclass(slots=True)
class RealRun:
    """A real world as it ended. `checks` is by number of the law; `kept` is where its logs and journals are."""

    plan: Plan
    torch: bool = False
    jobs: list[JobRecord] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    nodes: list[NodeFacts] = field(default_factory=list)
    earned_micro_cyx: dict[str, int] = field(default_factory=dict)
    events: list[tuple[float, str, str]] = field(default_factory=list)
    checks: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    kept: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def real_report(run: RealRun) -> Report:
    """All of a run."""
    trace = Trace(events=run.events)
    same = Run(
        plan=run.plan,
        trace=trace,
        jobs=run.jobs,
        violations=run.violations,
        nodes=run.nodes,
        earned_micro_cyx=run.earned_micro_cyx,
        cpu_seconds=run.cpu_seconds,
        facts=run.facts,
    )
    report = report_of(same)
    return {
        **report,
        **dict.fromkeys(UNMEASURED),
        "mode": "real",
        "seconds": round(run.seconds, 1),
        "troubles": dict(sorted(Counter(kind for _, kind, _ in run.events if kind in TROUBLES).items())),
        "checks": {str(number): text for number, text in sorted(run.checks.items())},
        "command": real_command(run.plan, torch=run.torch),
        "virtual_command": run.plan.command(),
        "kept": run.kept or None,
    }


def real_command(plan: Plan, *, torch: bool) -> str:
    """The one command that plays the schedule again; what the machine does with it is new every time."""
    return f"{plan.command()} --real{' --torch' if torch else ''}"
