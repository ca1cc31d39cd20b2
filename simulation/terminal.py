"""A run on a terminal: what came of the jobs, how long it took, what it cost in messages, and what went wrong."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .judge import LAWS
from .report import Report


def show_report(console: Console, report: Report) -> None:
    """The summary of one run."""
    if "messages" in report:
        _show_market(console, report)
        _show_times(console, report)
        if report["cheats"]:
            _show_cheats(console, report)
        if report["mode"] == "virtual":
            _show_costs(console, report)
        else:
            console.print(f"Gini of earnings {report['gini']:.2f}", highlight=False)
            _show_checks(console, report)
    show_violations(console, report)


def show_violations(console: Console, report: Report) -> None:
    """A line for each broken invariant, and the command that shows them again."""
    _list_violations(console, report["invariants_violated"])
    if report["invariants_violated"]:
        console.print("replay with", highlight=False)
        console.print(f"  {report['command']}", highlight=False, soft_wrap=True, markup=False)
        if report.get("virtual_command"):
            console.print("the same schedule in virtual time", highlight=False)
            console.print(f"  {report['virtual_command']}", highlight=False, soft_wrap=True, markup=False)
    else:
        real = report.get("mode") == "real"
        console.print(f"[green]ok[/]  every invariant {'that was checked ' if real else ''}held", highlight=False)
    if report.get("kept"):
        console.print(f"logs and journals are in {escape(report['kept'])}", highlight=False, soft_wrap=True)


def show_sweep(console: Console, totals: Report) -> None:
    """The summary of many seeds, as `sweep.totals` has them."""
    console.print(
        f"{totals['seeds']} seeds: {totals['jobs']} jobs, {totals['paid']} paid, {totals['refunded']} refunded;"
        f" {totals['cpu_seconds']:.0f} CPU s",
        highlight=False,
    )
    if totals["cheats_tried"]:
        tried, caught, paid = (totals[f"cheats_{name}"] for name in ("tried", "caught", "paid"))
        console.print(f"cheats {tried} tried, {caught} caught, {paid} paid", highlight=False)
    if totals["failed_seed"] is None:
        console.print("[green]ok[/]  every invariant held in every seed", highlight=False)
        return
    console.print(f"seed {totals['failed_seed']} fails:", highlight=False)
    _list_violations(console, totals["invariants_violated"])
    console.print(f"made small in {totals['shrink_trials']} worlds, it still shows:", highlight=False)
    _list_violations(console, totals["shrunk_violations"])
    console.print("replay with", highlight=False)
    console.print(f"  {totals['shrunk_command']}", highlight=False, soft_wrap=True, markup=False)


def _list_violations(console: Console, violations: list[dict[str, Any]]) -> None:
    for violation in violations:
        number, at_s = violation["number"], violation["at_s"]
        when = "" if at_s is None else f" at {at_s:.3f} s"
        law = LAWS.get(number, "")
        console.print(
            f"[red]violated[/]  {number}: {law}{when}: {escape(violation['text'])}", highlight=False, soft_wrap=True
        )


def _grid(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    return table


def _show_market(console: Console, report: Report) -> None:
    phases = ", ".join(f"{count} {phase}" for phase, count in report["phases"].items()) or "none"
    where = (
        f"trace {report['trace_hash'][:16]}  {report['virtual_seconds']:g} virtual s"
        if report["mode"] == "virtual"
        else f"real processes  {report['seconds']:g} s"
    )
    console.print(f"seed {report['seed']}  {where} in {report['cpu_seconds']:.1f} CPU s", highlight=False)
    console.print(
        f"jobs {report['jobs']}: {report['paid']} paid, {report['refunded']} refunded{_unfinished(report)}  ({phases})",
        highlight=False,
    )


def _show_checks(console: Console, report: Report) -> None:
    """How each law was looked at from outside, and which was not."""
    events = ", ".join(f"{count} {kind}" for kind, count in report["troubles"].items()) or "none"
    console.print(f"troubles: {events}", highlight=False)
    for number, how in report["checks"].items():
        console.print(f"[dim]law {number}[/]  {escape(how)}", highlight=False, soft_wrap=True)


def _unfinished(report: Report) -> str:
    return f", {report['unfinished']} unfinished" if report["unfinished"] else ""


def _show_times(console: Console, report: Report) -> None:
    kind = "virtual ms" if report["mode"] == "virtual" else "ms"
    table = _grid(f"time from submission ({kind})", "", "jobs", "p50", "p90", "p99")
    for name, field in (("award", "time_to_award_ms"), ("claim", "time_to_claim_ms"), ("paid", "time_to_paid_ms")):
        marks = report[field]
        table.add_row(name, str(marks["count"]), *(_number(marks[at]) for at in ("p50", "p90", "p99")))
    console.print(table)


def _show_cheats(console: Console, report: Report) -> None:
    table = _grid("cheats", "", "tried", "caught", "paid")
    for kind, counts in report["cheats"].items():
        table.add_row(kind, *(str(counts[name]) for name in ("tried", "caught", "paid")))
    console.print(table)


def _show_costs(console: Console, report: Report) -> None:
    work, nodes, volume = report["work_s"], report["messages_per_node"], report["bytes_per_node"]
    table = _grid("per node", "", "p50", "p90", "p99")
    table.add_row("messages received", *(_number(nodes[at]) for at in ("p50", "p90", "p99")))
    table.add_row("kB received", *(_number(None if volume[at] is None else volume[at] / 1000) for at in _MARKS))
    console.print(table)
    topics = ", ".join(f"{name} {count:,}" for name, count in report["topics"].items())
    console.print(
        f"messages {report['messages']:,} to peers, {report['bytes'] / 1e6:.1f} MB  (sent in all: {topics})",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"work {work['trained']:.1f} s trained, of which {work['wasted']:.1f} s unpaid;"
        f" {work['replayed']:.1f} s replayed by verifiers; nodes trained {100 * work['utilisation']:.2f} % of the time",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"Gini of earnings {report['gini']:.2f}", highlight=False)


def show_comparison(console: Console, rows: list[dict[str, Any]]) -> None:
    """The rows of `compare.compare`, ours first."""
    headings = (
        "jobs done",
        "award p50",
        "award p99",
        "work done p50",
        "complete p50",
        "CYX a job",
        "used",
        "wasted",
        "lost",
    )
    table = _grid("times in virtual ms from submission", "", *headings)
    for row in rows:
        cost = "-" if row["cost_micro_cyx"] is None else f"{row['cost_micro_cyx'] / 1e6:.3f}"
        times = (_number(row[f"{name}_ms"]) for name in ("award_p50", "award_p99", "done_p50", "complete_p50"))
        shares = (_percent(row["utilisation"]), _percent(row["waste"]))
        table.add_row(
            row["name"], f"{row['completed']}/{row['jobs']}", *times, cost, *shares, str(row["lost_to_matcher"])
        )
    console.print(table)
    console.print(
        "[dim]complete: ours is verified and paid, theirs is delivered; used: share of all nodes' time in training;"
        " lost: jobs that a crash of the matcher took away[/]",
        highlight=False,
        soft_wrap=True,
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


_MARKS = ("p50", "p90", "p99")


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,.0f}"
