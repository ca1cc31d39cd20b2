"""What came of a run, as plain data: the JSON of `cyxnode sim run` and the source of its plots.

Everything is counted, nothing is estimated. `messages` and `bytes` are those that peers received, gossip and streams
together; times are virtual milliseconds; work is in virtual seconds. `details` holds what only the plots need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..protocol.units import base58
from ..scheduler.job import JobPhase
from .desk import JobRecord
from .plan import SECONDS_PER_STEP, Plan, is_inference, job_steps
from .run import Run

EVENTS_MAX = 50_000
"""Events of the timeline that a report keeps."""
CRASHED = 0
"""The number under which a world that broke down is reported among the violations."""
Report = dict[str, Any]


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -(-len(ordered) * round(share * 1000) // 1000) - 1))]


def spread(values: Sequence[float]) -> dict[str, float | int | None]:
    """How many, and the percentiles that a report shows."""
    marks = {f"p{round(share * 100)}": percentile(values, share) for share in (0.5, 0.9, 0.99)}
    return {"count": len(values), **{name: None if at is None else round(at, 1) for name, at in marks.items()}}


def gini(amounts: Sequence[float]) -> float:
    """Inequality from 0 (all equal) to nearly 1 (one has all); losses count as nothing earned."""
    ordered = sorted(max(0.0, amount) for amount in amounts)
    total, count = sum(ordered), len(ordered)
    if total <= 0:
        return 0.0
    weighted = sum(rank * amount for rank, amount in enumerate(ordered, 1))
    return round(2 * weighted / (count * total) - (count + 1) / count, 4)


def report_of(run: Run) -> Report:
    """All of a run."""
    jobs = [_job(run, record) for record in sorted(run.jobs, key=lambda one: one.number)]
    cheats = _cheats(run)
    messages = sum(node.messages for node in run.nodes)
    volume = sum(node.volume for node in run.nodes)
    return {
        "mode": "virtual",
        "seed": run.plan.seed,
        "trace_hash": run.trace.digest(),
        "jobs": len(jobs),
        "paid": sum(job["paid"] for job in jobs),
        "refunded": sum(job["refunded"] for job in jobs),
        "unfinished": sum(not job["phase"] for job in jobs),
        "cheats_tried": sum(kind["tried"] for kind in cheats.values()),
        "cheats_caught": sum(kind["caught"] for kind in cheats.values()),
        "cheats_paid": sum(kind["paid"] for kind in cheats.values()),
        "cheats": cheats,
        "invariants_violated": [asdict(violation) for violation in run.violations],
        "cpu_seconds": round(run.cpu_seconds, 2),
        "virtual_seconds": round(run.virtual_s, 1),
        "time_to_award_ms": spread([job["award_ms"] for job in jobs if job["award_ms"] is not None]),
        "time_to_claim_ms": spread([job["claim_ms"] for job in jobs if job["claim_ms"] is not None]),
        "time_to_paid_ms": spread([job["paid_ms"] for job in jobs if job["paid"] and job["paid_ms"] is not None]),
        "work_s": _work(run, jobs),
        "messages": messages,
        "bytes": volume,
        "messages_per_node": spread([node.messages for node in run.nodes]),
        "bytes_per_node": spread([node.volume for node in run.nodes]),
        "messages_per_node_and_job": round(messages / len(run.nodes) / len(jobs), 1) if jobs and run.nodes else None,
        "topics": dict(sorted(run.trace.by_topic.items())),
        "phases": dict(sorted(Counter(job["phase"] or "unfinished" for job in jobs).items())),
        "gini": gini(list(run.earned_micro_cyx.values())),
        "command": run.plan.command(),
        "facts": run.facts,
        "details": {"plan": asdict(run.plan), "jobs": jobs, "nodes": _nodes(run), **_events(run)},
    }


def crashed(seed: int, command: str, error: str) -> Report:
    """The report of a world that broke down with an error of our own code: it violates invariant CRASHED."""
    violation = {"number": CRASHED, "at_s": None, "text": error}
    return {"seed": seed, "trace_hash": "", "jobs": 0, "invariants_violated": [violation], "command": command}


def brief(report: Report) -> Report:
    """Without what only the plots need."""
    return {name: value for name, value in report.items() if name != "details"}


def _job(run: Run, record: JobRecord) -> dict[str, Any]:
    result = record.result
    receipt = (result.receipt if result is not None else None) or {}
    paid = result is not None and result.phase is JobPhase.SETTLED
    return {
        "number": record.number,
        "id": base58(result.job)[:8] if result is not None else "",
        "requester": record.requester,
        "at_s": round(record.at_s, 3),
        "phase": result.phase.value if result is not None else ("refused" if record.error else ""),
        "reason": result.reason if result is not None else record.error,
        "stages": {name: round(at_s, 3) for name, at_s in record.stages.items()},
        "award_ms": record.between_ms("submitted", "awarded"),
        "claim_ms": record.between_ms("submitted", "claimed"),
        "paid_ms": record.between_ms("submitted", "settled"),
        "kind": "infer" if is_inference(run.plan, record.number) else "train",
        "work_s": _work_s(run.plan, record.number),
        "price_micro_cyx": int(receipt.get("paid", {}).get("amount", 0)),
        "paid": paid,
        "refunded": result is not None and not paid and "funded" in record.stages,
    }


def _work_s(plan: Plan, number: int) -> float:
    """Virtual seconds of training that a job is; an inference trains nothing."""
    return 0.0 if is_inference(plan, number) else job_steps(plan, number) * SECONDS_PER_STEP


def _cheats(run: Run) -> dict[str, dict[str, int]]:
    """Counts by kind, as the cheaters themselves and the chain tell them."""
    counted = run.facts.get("cheats", {})
    return {
        kind: {name: int(counts.get(name, 0)) for name in ("tried", "caught", "paid")}
        for kind, counts in sorted(counted.items())
    }


def _work(run: Run, jobs: list[dict[str, Any]]) -> dict[str, float]:
    """Trained, of that in paid jobs, the rest, replayed by verifiers, and the share of all nodes' time in training."""
    trained = sum(run.work.trained_s.values())
    paid = min(trained, sum(job["work_s"] for job in jobs if job["paid"]))
    offered = len(run.nodes) * run.virtual_s
    return {
        "trained": round(trained, 3),
        "paid": round(paid, 3),
        "wasted": round(trained - paid, 3),
        "replayed": round(sum(run.work.replayed_s.values()), 3),
        "utilisation": round(trained / offered, 6) if offered else 0.0,
    }


def _nodes(run: Run) -> list[dict[str, Any]]:
    return [
        {**asdict(node), "trained_s": round(node.trained_s, 3), "replayed_s": round(node.replayed_s, 3)}
        | {"earned_micro_cyx": run.earned_micro_cyx.get(node.name, 0)}
        for node in run.nodes
    ]


def _events(run: Run) -> dict[str, Any]:
    told: list[list[Any]] = [
        [round(at_s, 3), kind, detail] for at_s, kind, detail in run.trace.events if kind not in ("transaction", "job")
    ]
    stages: list[list[Any]] = [
        [round(at_s, 3), kind, detail] for at_s, kind, detail in run.trace.events if kind == "job"
    ]
    events = sorted([*told, *stages[: EVENTS_MAX - len(told)]], key=lambda event: event[0])[:EVENTS_MAX]
    return {"events": events, "events_left_out": len(told) + len(stages) - len(events)}
