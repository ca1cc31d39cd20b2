"""How a job looks on a terminal: stages as they come, one live bar while it trains or the answer as it grows, then
waterfall and receipt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..protocol.messages import Progress as ProgressMessage
from ..protocol.messages import Tokens
from ..protocol.units import format_cyx
from ..scheduler.requester_service import JobResult, News, Stage
from .answer_stream import AnswerStream
from .text import plain, unmarked

WATERFALL = (
    ("fund escrow", "submitted", "funded"),
    ("announce", "funded", "announced"),
    ("seat committee", "announced", "seated"),
    ("auction", "announced", "awarded"),
    ("set up", "awarded", "training"),
    ("train", "training", "claimed"),
    ("first token", "awarded", "answering"),
    ("answer", "answering", "claimed"),
    ("verify and settle", "claimed", "settled"),
    ("close", "settled", "closed"),
    ("fetch", "settled", "fetched"),
)


REMIND_S = 10.0
WAITS = {
    "": "the network",
    "queued": "enough fitting nodes; nothing is funded yet",
    "funded": "the announce",
    "announced": "nodes to answer the announce",
    "announced again": "nodes to answer the announce",
    "declined": "a bid",
    "seated": "the committee's award",
    "awarded": "the winner to start",
    "started": "the worker's first progress",
    "training": "the worker's result",
    "answering": "the next token",
    "handed over": "the next worker to start",
    "claimed": "the committee's verdict",
    "settled": "the result",
}
"""What a job waits for after each stage. A job that nobody settles is refunded when its refund time has come."""
COLOURS = {
    "trouble": "red",
    "declined": "dim",
    "queued": "yellow",
    "answering": "yellow",
    "handed over": "yellow",
}
UNVERIFIED = "not verified yet: what follows is what the worker says; the committee checks it at the end"


class JobView:
    """Shows the news of one job. Everything goes to `console`, so results on standard output stay clean; an answer goes
    to `answers` while it grows, unless there is none."""

    def __init__(self, console: Console, answers: AnswerStream | None = None) -> None:
        self.console, self.answers = console, answers
        self._bar: Progress | None = None
        self._task: Any = None
        self._began_ms: int | None = None
        self._last, self._heard_s = "", 0.0

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """While the context is open, silence is explained every REMIND_S."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._remind)
            try:
                yield
            finally:
                self.stop()
            nursery.cancel_scope.cancel()

    async def _remind(self) -> None:
        began_s = self._heard_s = trio.current_time()
        while True:
            await trio.sleep_until(self._heard_s + REMIND_S)
            now_s = trio.current_time()
            if now_s >= self._heard_s + REMIND_S:
                self._heard_s = now_s
                text = f"for {WAITS.get(self._last, 'the end')} ({now_s - began_s:.0f} s so far)"
                self._line(f"[dim]{'':9}[/]  [yellow]{'waiting':12}[/] {text}")

    def observe(self, news: News) -> None:
        """One piece of news."""
        self._heard_s = trio.current_time()
        match news:
            case Stage():
                self._stage(news)
            case ProgressMessage():
                self._progress(news)
            case Tokens():
                if self.answers is not None:
                    self.answers.add(news)

    def _line(self, text: str) -> None:
        if self.answers is not None and self.answers.breaks_line():
            self.console.print()
        self.console.print(text, highlight=False, soft_wrap=True)

    def _stage(self, stage: Stage) -> None:
        self._began_ms = stage.at_ms if self._began_ms is None else self._began_ms
        if stage.name in ("claimed", "handed over", "settled", "completed", "expired"):
            self.stop()
        if stage.name == "handed over" and self.answers is not None:
            self.answers.restart()
        self._last = stage.name if stage.name in WAITS else self._last
        seconds = (stage.at_ms - self._began_ms) / 1000
        colour = COLOURS.get(stage.name, "cyan")
        detail = UNVERIFIED if stage.name == "answering" and self.answers is not None else unmarked(stage.detail)
        self._line(f"[dim]{seconds:7.2f} s[/]  [{colour}]{stage.name:12}[/] {detail}")

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
    """(stage, start, duration) in milliseconds, for the stages that happened in this order: a quick answer may be there
    before its first piece."""
    rows = []
    for name, start, end in WATERFALL:
        if start in timeline_ms and end in timeline_ms and timeline_ms[start] <= timeline_ms[end]:
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
        f"job id        {result.name}",
        f"status        {result.phase.value}" + (f": {plain(result.reason)}" if result.reason else ""),
        f"result        {uri}",
        f"receipt       {receipt_path or '-'}",
        f"completed in  {receipt.get('completed_in_ms', 0) / 1000:.2f} s",
        f"cost          {format_cyx(cost)} CYX",
    ]
    if verified:
        lines.append(f"verified by   {', '.join(verified)}")
    return lines
