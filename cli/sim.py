"""`cyxnode sim`: the real node, many times, in virtual time.

Each world plays in a process of its own with fixed string hashing: there a seed decides everything. Results go to
standard output, progress and troubles to standard error.
"""

from __future__ import annotations

import functools
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..protocol.errors import LocalError
from ..simulation.plan import PROFILES, Plan

INVARIANT_VIOLATED, INTERRUPTED = 8, 130
REAL_DEFAULTS = {"peers": 8, "minutes": 2.0, "jobs": 4, "requesters": 2, "haste": 5.0}
"""Real time is dear: a few nodes, two minutes, and trouble five times as often."""
PEERS_MAX = 5_000
SEEDS_MAX = 1_000_000
SEED_MAX = 2**53
Command = Callable[..., Any]


class Share(click.ParamType):  # type: ignore[type-arg]
    """A share of a whole: 20% or 0.2."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number from 0 to 1."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share: write 20% or 0.2", param, ctx)
        return share


PLAN_OPTIONS = (
    click.option("--peers", default=20, show_default=True, type=click.IntRange(1, PEERS_MAX), help="Nodes."),
    click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0.1, 1440), help="Virtual ones."),
    click.option("--jobs", default=10, show_default=True, type=click.IntRange(0, 100_000), help="Jobs that arrive."),
    click.option("--requesters", default=4, show_default=True, type=click.IntRange(1, 1_000), help="Who order them."),
    click.option("--classes", default=1, show_default=True, type=click.IntRange(1, 100), help="Execution classes."),
    click.option("--k", default="3", show_default=True, type=click.Choice(["3", "5", "7"]), help="Committee seats."),
    click.option("--faults", default="none", show_default=True, type=click.Choice(sorted(PROFILES)), help="Trouble."),
    click.option("--haste", default=1.0, show_default=True, type=click.FloatRange(0, 1_000), help="Times the trouble."),
    click.option("--prompts", default="0%", show_default=True, type=Share(), help="Share of jobs that are inferences."),
    click.option("--cheaters", default="0%", show_default=True, type=Share(), help="Share of peers that cheat."),
    click.option("--cheat", "cheats", multiple=True, help="Only this kind of cheat; may be given several times."),
)


def plan_options(command: Command) -> Command:
    """The options that make a Plan, given to the command as `plan_of(seed)`."""

    @functools.wraps(command)
    def with_plan(*args: Any, k: str, cheats: tuple[str, ...], **options: Any) -> Any:
        names = ("peers", "minutes", "jobs", "requesters", "classes", "faults", "haste", "prompts", "cheaters")
        fields = {name: options.pop(name) for name in names}
        check_cheats(cheats)

        def plan_of(seed: int, drop: tuple[int, ...] = ()) -> Plan:
            return Plan(seed=seed, k=int(k), cheats=cheats, drop=drop, **fields)

        return command(*args, plan_of=plan_of, **options)

    decorated: Command = with_plan
    for option in reversed(PLAN_OPTIONS):
        decorated = option(decorated)
    return decorated


def check_cheats(names: tuple[str, ...]) -> None:
    """LocalError for a cheat that nobody knows."""
    from ..simulation.cheaters import CHEATS

    for name in names:
        if name not in CHEATS:
            raise LocalError(f"no cheat is called {name!r}", field="cheat", fix=f"one of {', '.join(CHEATS)}")


def _interruptible() -> None:
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))


class Progress:
    """One line on standard error: on a terminal rewritten each second, else a new one every ten."""

    def __init__(self, total_s: float, kind: str = "virtual ") -> None:
        self._total_s, self._kind, self._last, self._open = total_s, kind, time.monotonic(), False
        self._every_s = 1.0 if sys.stderr.isatty() else 10.0

    def tell(self, text: str) -> None:
        """Say how far it is."""
        if time.monotonic() - self._last < self._every_s:
            return
        self._last, self._open = time.monotonic(), sys.stderr.isatty()
        click.echo(f"\r{text:70}" if self._open else text, err=True, nl=not self._open)

    def world(self, virtual_s: float, jobs: int) -> None:
        """How far one world is."""
        self.tell(f"{virtual_s:8.1f} of about {self._total_s:.0f} {self._kind}s   {jobs} jobs ended")

    def end(self) -> None:
        """Leave the line."""
        if self._open:
            click.echo("\r" + " " * 70 + "\r", err=True, nl=False)


@click.group()
def sim() -> None:
    """Play a market of real nodes in virtual time."""


@sim.command("run")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, SEED_MAX), help="Decides everything.")
@plan_options
@click.option("--drop", multiple=True, type=click.IntRange(0, 1_000_000), help="Leave a happening out, by its number.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a report with plots.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@click.option("--real", is_flag=True, help="With processes over libp2p, in real time; see docs/simulation.md.")
@click.option("--torch", is_flag=True, help="With --real: nodes train with torch, instead of pretending to.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="With --real: leave logs and journals there."
)
def run_world(
    seed: int,
    plan_of: Callable[..., Plan],
    drop: tuple[int, ...],
    html: Path | None,
    as_json: bool,
    real: bool,
    torch: bool,
    keep: Path | None,
) -> int:
    """Play one world; the same seed and code give the same trace. Exit code 8: an invariant was violated."""
    from rich.console import Console

    from ..simulation.html_report import html_of
    from ..simulation.report import brief
    from ..simulation.terminal import show_report, show_violations

    if html is not None and not html.absolute().parent.is_dir():
        raise LocalError(f"{html.parent} is no folder", field="html", fix="make it, or choose another")
    if (torch or keep is not None) and not real:
        raise LocalError("is of real worlds alone", field="torch" if torch else "keep", fix="give --real, too")
    plan = plan_of(seed, drop)
    report = _real(plan, torch, keep) if real else _virtual(plan)
    if report is None:
        return INTERRUPTED
    if html is not None and "details" in report:
        html.write_text(html_of(report), encoding="utf-8")
        click.echo(f"wrote {html}", err=True)
    violated = bool(report["invariants_violated"])
    if as_json:
        click.echo(json.dumps(brief(report)))
        if violated:
            show_violations(Console(stderr=True), report)
    else:
        show_report(Console(), report)
    return INVARIANT_VIOLATED if violated else 0


def _virtual(plan: Plan) -> dict[str, Any]:
    from ..simulation.process import Worlds

    _interruptible()
    progress = Progress(plan.minutes * 60)
    with Worlds() as worlds:
        report = worlds.play(plan, progress.world)
    progress.end()
    return report


def _real(plan: Plan, torch: bool, keep: Path | None) -> dict[str, Any] | None:
    """None when it was interrupted. Logs and journals stay where they are wanted, and where something went wrong."""
    from ..simulation.real_report import real_report
    from .sim_real import check_real, open_home, play_real

    plan = as_real(plan)
    check_real(plan, torch=torch)
    progress = Progress(plan.minutes * 60, "")
    with open_home(keep) as home:
        code, run = play_real(plan, home.path, torch=torch, tell=progress.world)
        progress.end()
        home.keep |= bool(run.violations)
        run.kept = str(home.path) if home.keep else ""
    return None if code == INTERRUPTED else real_report(run)


def as_real(plan: Plan) -> Plan:
    """A plan whose fields that nobody chose are those of real worlds."""
    given = click.get_current_context().get_parameter_source
    changes = {name: value for name, value in REAL_DEFAULTS.items() if given(name) is ParameterSource.DEFAULT}
    return replace(plan, **changes)  # type: ignore[arg-type]


@sim.command("sweep")
@click.option("--seeds", default=100, show_default=True, type=click.IntRange(1, SEEDS_MAX), help="How many.")
@click.option("--from", "first", default=0, show_default=True, type=click.IntRange(0, SEED_MAX), help="The first seed.")
@plan_options
@click.option("--shrink", "trials", default=100, show_default=True, type=click.IntRange(0), help="Worlds to shrink by.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
def sweep_seeds(seeds: int, first: int, plan_of: Callable[..., Plan], trials: int, as_json: bool) -> int:
    """Play many seeds on all cores; shrink the first that fails. Exit code 8: one did."""
    from rich.console import Console

    from ..simulation.process import Worlds
    from ..simulation.sweep import sweep, totals
    from ..simulation.terminal import show_sweep

    _interruptible()
    progress, played = Progress(0.0), 0

    def observe(plan: Plan, report: dict[str, Any]) -> None:
        nonlocal played
        played += 1
        verdict = "violates" if report["invariants_violated"] else "holds"
        what = f"seed {plan.seed}" if played <= seeds else f"shrinking: {len(plan.drop)} happenings left out"
        progress.tell(f"{played} worlds played   {what} {verdict}")

    with Worlds(quiet=True) as worlds:
        result = sweep(worlds, map(plan_of, range(first, first + seeds)), observe, trials_max=trials)
    progress.end()
    if as_json:
        click.echo(json.dumps(totals(result)))
    else:
        show_sweep(Console(), totals(result))
    return INVARIANT_VIOLATED if result.failed is not None else 0


@sim.command("compare")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1, SEEDS_MAX), help="How many.")
@click.option("--from", "first", default=0, show_default=True, type=click.IntRange(0, SEED_MAX), help="The first seed.")
@plan_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array on standard output.")
def compare_matchers(seeds: int, first: int, plan_of: Callable[..., Plan], as_json: bool) -> None:
    """Put the real network beside models of other matchers, on the same seeds."""
    from rich.console import Console

    from ..simulation.compare import compare
    from ..simulation.process import Worlds
    from ..simulation.terminal import show_comparison

    _interruptible()
    progress, played = Progress(0.0), 0

    def observe(plan: Plan, report: dict[str, Any]) -> None:
        nonlocal played
        played += 1
        progress.tell(f"{played} of {seeds} seeds played")
        if report["invariants_violated"]:
            click.echo(f"seed {plan.seed} violates an invariant: {report['command']}", err=True)

    with Worlds(quiet=True) as worlds:
        rows = compare(worlds, map(plan_of, range(first, first + seeds)), observe)
    progress.end()
    if as_json:
        click.echo(json.dumps(rows))
    else:
        show_comparison(Console(), rows)
