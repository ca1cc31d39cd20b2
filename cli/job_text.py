"""How a requester's jobs look: as lines and tables for people, as JSON for programs. Peers' words lose their tricks."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ..protocol.audit import Audit
from ..protocol.standing import utc_text
from ..protocol.units import base58, format_cyx
from ..scheduler.chronicle import Chronicle
from ..scheduler.explanation import Explanation
from ..scheduler.job_summary import ID_SHOWN, JobSummary
from ..scheduler.timeline import Part, Stay
from .text import plain, unmarked

BAR_WIDTH = 40
WIDTH = 180
SCALE = 10**12
"""Of scores."""


def span(ms: int) -> str:
    """A duration, e.g. '4.20 s', '3 min 20 s', '2 h 5 min'."""
    seconds = abs(ms) // 1000
    if seconds < 60:
        return f"{abs(ms) / 1000:.2f} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def when(at_ms: int) -> str:
    """A point in time."""
    return utc_text(at_ms // 1000)


def from_now(at_ms: int, now_ms: int) -> str:
    """'2026-01-01 10:00:00 UTC, in 5.00 s' or ', 5.00 s ago'."""
    apart = span(at_ms - now_ms)
    return f"{when(at_ms)}, {'in ' + apart if at_ms >= now_ms else apart + ' ago'}"


def wide_console() -> Console:
    """Standard output: as wide as the terminal, and wide enough for tables where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def show_list(console: Console, jobs: list[JobSummary]) -> None:
    """One row a job."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("id", "kind", "state", "placed", "cost (CYX)", "what", "why"):
        table.add_column(heading, justify="right" if heading.startswith("cost") else "left", overflow="fold")
    for one in jobs:
        state = f"{one.state}, left" if one.left else one.state
        cells = (
            one.name[:ID_SHOWN],
            one.kind,
            state,
            when(one.placed_at_ms),
            format_cyx(one.cost),
            one.what,
            one.reason,
        )
        table.add_row(*(unmarked(cell) for cell in cells))
    console.print(table)


def status_lines(one: JobSummary, files: dict[str, str]) -> list[str]:
    """The six final lines, as far as they are settled, and what is known beyond them."""
    reason = f": {one.reason}" if one.reason else ""
    done = span(one.completed_in_ms) if one.completed_in_ms is not None else "-"
    unpaid = not one.cost and one.completed_at_ms is None
    cost = f"{format_cyx(one.cost)} CYX" + (f" so far, at most {format_cyx(one.budget)} CYX" if unpaid else "")
    lines = [
        f"job id        {one.name}",
        f"status        {one.state}{reason}",
        f"result        {one.result_uri or '-'}",
        f"receipt       {files.get('receipt', '-')}",
        f"completed in  {done}",
        f"cost          {cost}",
    ]
    if one.verified_by:
        lines.append(f"verified by   {', '.join(one.verified_by)}")
    lines.append(f"order         {one.what}, placed {when(one.placed_at_ms)}")
    if one.worker and one.price is not None:
        lines.append(f"worker        {one.worker} for at most {format_cyx(one.price)} CYX")
    lines += [f"{name:13} {files[name]}" for name in ("weights", "answers") if name in files]
    if one.progress:
        lines.append(f"progress      {_progress(one.progress)}")
    lines += [f"{name:13} {signature}" for name, signature in one.transactions.items()]
    return [plain(line) for line in [*lines, *(f"note          {note}" for note in one.notes)]]


def _progress(facts: dict[str, int]) -> str:
    if "characters" in facts:
        return f"{facts['characters']} characters of answers, not verified yet"
    return (
        f"{facts['progress_ppm'] / 10_000:.1f} %, epoch {facts['current_epoch']}, "
        f"loss {facts['batch_loss_micro'] / 1e6:.4f}, accuracy {facts['batch_accuracy_micro'] / 1e6:.3f}"
    )


def explanation_lines(name: str, one: Explanation, now_ms: int) -> list[str]:
    """Why, what for, until when, and what to do."""
    lines = [f"job id     {name}", f"state      {one.state}", f"since      {from_now(one.since_ms, now_ms)}"]
    lines.append(f"why        {one.why}")
    if one.waits_for:
        lines.append(f"waits for  {one.waits_for}")
    if one.until_ms is not None:
        lines.append(f"until      {from_now(one.until_ms, now_ms)}, at most")
    if one.then:
        lines.append(f"then       {one.then}")
    for cause in one.causes:
        said = f" (one says: {cause.said})" if cause.said else ""
        lines.append(f"nodes      {cause.count} {cause.reason}{said}: {cause.advice}")
    lines += [f"you can    {text}" for text in one.advice]
    lines += [f"note       {text}" for text in one.notes]
    return [plain(line) for line in lines]


def explanation_json(name: str, one: Explanation) -> dict[str, Any]:
    """The same for a program."""
    return {
        "job_id": name,
        "status": one.state,
        "since_ms": one.since_ms,
        "why": one.why,
        "waits_for": one.waits_for,
        "until_ms": one.until_ms,
        "then": one.then,
        "nodes": [
            {"count": cause.count, "reason": cause.reason, "said": cause.said, "advice": cause.advice}
            for cause in one.causes
        ],
        "advice": list(one.advice),
        "notes": list(one.notes),
    }


def show_trace(console: Console, told: Chronicle, steps: list[Stay], way: list[Part]) -> None:
    """Each state as a bar on one time axis, then the parts of the way."""
    ends = [part.ended_ms for part in way]
    total_ms = max(1, max([step.at_ms + (step.lasted_ms or 0) for step in steps] + ends) - told.placed_at_ms)

    def bar(began_ms: int, lasted_ms: int) -> str:
        left = min(BAR_WIDTH - 1, BAR_WIDTH * max(0, began_ms - told.placed_at_ms) // total_ms)
        return " " * left + "█" * max(1, min(BAR_WIDTH - left, round(BAR_WIDTH * lasted_ms / total_ms)))

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for step in steps:
        lasted = f"{step.lasted_ms} ms" if step.lasted_ms is not None else ""
        at = f"{(step.at_ms - told.placed_at_ms) / 1000:.2f} s"
        drawn = bar(step.at_ms, step.lasted_ms or 0)
        table.add_row(step.id, at, step.state, f"{lasted:>10}", drawn, unmarked(step.cause))
    console.print(table)
    totals = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for part in way:
        totals.add_row(part.name, f"{part.lasted_ms:>7} ms", bar(part.began_ms, part.lasted_ms))
    console.print(totals)


def trace_json(told: Chronicle, steps: list[Stay], way: list[Part]) -> dict[str, Any]:
    """The same for a program, with every stage and transaction."""
    return {
        "job_id": told.name,
        "submitted_at_ms": told.placed_at_ms,
        "transitions": [
            {
                "id": step.id,
                "at_ms": step.at_ms,
                "offset_ms": step.at_ms - told.placed_at_ms,
                "state": step.state,
                "cause": step.cause,
                "lasted_ms": step.lasted_ms,
            }
            for step in steps
        ],
        "stages_ms": {name: at_ms - told.placed_at_ms for name, at_ms in told.stages.items()},
        "parts_ms": {part.name: part.lasted_ms for part in way},
        "transactions": dict(told.transactions),
        "damaged_records": told.damaged,
    }


def show_audit(console: Console, job: str, one: Audit) -> None:
    """The ranking with the parts of each score, the price, and the signatures."""
    names = list(one.ranking[0].parts)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("bidder", "bid (CYX)", "score", *names):
        table.add_column(heading, justify="left" if heading == "bidder" else "right")
    for bid in one.ranking:
        scores = (f"{score / SCALE:.6f}" for score in (bid.score, *bid.parts.values()))
        table.add_row(base58(bid.bidder)[:ID_SHOWN], format_cyx(bid.price), *scores)
    console.print(table)
    for line in audit_lines(job, one):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def audit_lines(job: str, one: Audit) -> list[str]:
    """What follows from the ranking."""
    bids, limit = len(one.ranking), format_cyx(one.limit)
    if not one.capped:
        why = "the highest price at which it would still have won"
    elif bids == 1:
        why = "nobody else bid: the lesser of reserve and budget"
    else:
        why = f"it would have won at any price up to {limit} CYX, the lesser of reserve and budget"
    return [
        f"job id       {job}",
        f"winner       {base58(one.winner)}: the best of {bids} bids that counted, in round {one.round}",
        f"bid          {format_cyx(one.ranking[0].price)} CYX",
        f"paid         {format_cyx(one.price)} CYX for all of the work: {why}",
        f"tallied by   {', '.join(base58(node) for node in one.tallied)}",
        f"signed by    {', '.join(base58(node) for node in one.voted)}",
        "ok  recomputed from the signed bids, tallies and votes: the same winner, the same price",
    ]


def audit_json(job: str, one: Audit) -> dict[str, Any]:
    """The same for a program; scores with scale 10^12."""
    return {
        "job_id": job,
        "round": one.round,
        "winner": base58(one.winner),
        "price_micro_cyx": one.price,
        "limit_micro_cyx": one.limit,
        "price_is_limit": one.capped,
        "ranking": [
            {
                "bidder": base58(bid.bidder),
                "price_micro_cyx": bid.price,
                "estimated_ms": bid.estimated_ms,
                "stake_micro_cyx": bid.stake,
                "reputation_ppm": bid.reputation_ppm,
                "score": bid.score,
                "parts": bid.parts,
            }
            for bid in one.ranking
        ],
        "tallied_by": [base58(node) for node in one.tallied],
        "signed_by": [base58(node) for node in one.voted],
    }
