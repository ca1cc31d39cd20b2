"""How a job looks on a terminal: stages as they come, one live bar while it trains, then waterfall and receipt."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..protocol.messages import Progress as ProgressMessage
from ..protocol.units import format_cyx
from ..scheduler.requester_service import JobResult, News, Stage

WATERFALL = (
    ("fund escrow", "submitted", "funded"),
    ("announce", "funded", "announced"),
    ("seat committee", "announced", "seated"),
    ("auction", "announced", "awarded"),
    ("set up", "awarded", "training"),
    ("train", "training", "claimed"),
    ("verify and settle", "claimed", "settled"),
    ("close", "settled", "closed"),
    ("fetch", "settled", "fetched"),
)


class JobView:
    """Shows the news of one job. Everything goes to `console`, so results on standard output stay clean."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: Progress | None = None
        self._task: Any = None
        self._began_ms: int | None = None

    def observe(self, news: News) -> None:
        """One piece of news."""
        if isinstance(news, Stage):
            self._stage(news)
        else:
            self._progress(news)

    def _stage(self, stage: Stage) -> None:
        self._began_ms = stage.at_ms if self._began_ms is None else self._began_ms
        if stage.name in ("claimed", "settled", "completed", "expired"):
            self.stop()
        seconds = (stage.at_ms - self._began_ms) / 1000
        colour = {"trouble": "red", "declined": "dim", "queued": "yellow"}.get(stage.name, "cyan")
        self.console.print(f"[dim]{seconds:7.2f} s[/]  [{colour}]{stage.name:12}[/] {stage.detail}", highlight=False)

    def _progress(self, news: ProgressMessage) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("           training    "),
                BarColumn(bar_width=32),
                TextColumn("{task.percentage:5.1f} %  {task.fields[metrics]}"),
                TimeElapsedColumn(),
                console=self.console,
                transient=not self.console.is_terminal,
            )
            self._bar.start()
            self._task = self._bar.add_task("train", total=1_000_000, metrics="")
        text = f"loss {news.batch_loss_micro / 1e6:.4f}  accuracy {news.batch_accuracy_micro / 1e6:.3f}"
        if news.validation_accuracy_micro >= 0:
            text += f"  validation {news.validation_accuracy_micro / 1e6:.4f}"
        self._bar.update(self._task, completed=news.progress_ppm, metrics=text)

    def stop(self) -> None:
        """End the live bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def waterfall(timeline_ms: dict[str, int]) -> list[tuple[str, int, int]]:
    """(stage, start, duration) in milliseconds, for the stages that happened."""
    rows = []
    for name, start, end in WATERFALL:
        if start in timeline_ms and end in timeline_ms:
            rows.append((name, timeline_ms[start], timeline_ms[end] - timeline_ms[start]))
    return rows


def show_waterfall(console: Console, timeline_ms: dict[str, int]) -> None:
    """Each stage as a bar on one time axis."""
    rows = waterfall(timeline_ms)
    total = max((start + length for _, start, length in rows), default=1) or 1
    table = Table(title="waterfall", title_justify="left", box=None, padding=(0, 1), show_header=False)
    for name, start, length in rows:
        left, width = round(40 * start / total), max(1, round(40 * length / total))
        table.add_row(name, f"{length:>7} ms", " " * left + "█" * width)
    console.print(table)


def six_lines(result: JobResult, receipt_path: str) -> list[str]:
    """What every job ends with, and who verified it."""
    receipt = result.receipt or {}
    uri = receipt.get("result", {}).get("uri", "-") or "-"
    verified = receipt.get("verified_by", [])
    cost = receipt.get("paid", {}).get("amount", 0)
    lines = [
        f"job id        {receipt.get('job', '-')}",
        f"status        {result.phase.value}" + (f": {result.reason}" if result.reason else ""),
        f"result        {uri}",
        f"receipt       {receipt_path or '-'}",
        f"completed in  {receipt.get('completed_in_ms', 0) / 1000:.2f} s",
        f"cost          {format_cyx(cost)} CYX",
    ]
    if verified:
        lines.append(f"verified by   {', '.join(verified)}")
    return lines
