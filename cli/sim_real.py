"""`cyxnode sim run --real`: a plan's schedule among real processes, over libp2p on this machine.

This process orders the jobs, makes the troubles, reads the chain, and afterwards what the nodes left on disk.
"""

from __future__ import annotations

import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog
import trio

from ..protocol.errors import LocalError
from ..protocol.limits import SEGMENTS_MAX
from ..protocol.ports import Blobs
from ..protocol.spec import steps_per_segment
from ..scheduler.requester_service import TrainOrder
from ..simulation.chain_reader import ChainReader
from ..simulation.desk import WAN_WINDOW_MS, simulated_order
from ..simulation.faults import play
from ..simulation.invariants import DEATH_PATIENCE_S
from ..simulation.judge import Violation
from ..simulation.plan import REAL_MFLOP_PER_S, Plan, schedule
from ..simulation.postmortem import Found, check_journals, check_logs
from ..simulation.real_report import NOT_CHECKED, RealRun
from .demo import example_order
from .order import load_plan
from .processes import ChildFailed
from .real_nodes import Fleet
from .real_world import Order, RealWorld, open_real_world
from .serving import interruptible

WORK_SECONDS = 60
"""How long a worker may take; a job that hangs is refunded that long, and the chain's grace, after it was opened."""
END_PATIENCE_S = 600.0
"""How long after the last minute jobs may come to their end: those of one requester wait for one another."""
PULSE_INTERVAL_S = 1.0
REAL_PEERS_MAX = 64
REQUESTERS_LOG = "requesters.log"
Tell = Callable[[float, int], None]


@dataclass(slots=True)
class Home:
    """Where a real world keeps its files; they are removed at the end unless `keep` is set."""

    path: Path
    keep: bool


@contextmanager
def open_home(keep: Path | None) -> Iterator[Home]:
    """An empty folder: `keep`, or a temporary one."""
    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
            full = any(keep.iterdir())
        except OSError as error:
            raise LocalError(f"{keep}: {error.strerror}", field="keep", fix="choose a writable folder") from None
        if full:
            raise LocalError(f"{keep} is not empty", field="keep", fix="choose a new folder")
    home = Home(keep or Path(tempfile.mkdtemp(prefix="cyxnode-real-")), keep is not None)
    try:
        yield home
    finally:
        if not home.keep:
            shutil.rmtree(home.path, ignore_errors=True)


def check_real(plan: Plan, *, torch: bool) -> None:
    """LocalError for a plan that only virtual worlds can play."""
    if plan.cheaters:
        fix = "leave --real out: cheaters put their hands on ports that processes do not show"
        raise LocalError("real worlds have no cheaters", field="cheaters", fix=fix)
    if plan.prompts:
        raise LocalError("real worlds only train", field="prompts", fix="leave it out")
    if plan.peers > REAL_PEERS_MAX:
        fix = f"at most {REAL_PEERS_MAX}: each is a process on this machine"
        raise LocalError(f"{plan.peers} are too many for a real world", field="peers", fix=fix)
    if torch and plan.classes > 1:
        raise LocalError("one machine has one class", field="classes", fix="leave --torch or --classes out")


def play_real(plan: Plan, home: Path, *, torch: bool, tell: Tell) -> tuple[int, RealRun]:
    """Play `plan` with processes that keep their files in `home`, which is empty; code 130 when it was interrupted.

    Nodes train with `torch`, or else pretend to. `tell` hears of (seconds, jobs ended).
    """
    run = RealRun(plan, torch=torch)
    order = (
        trained_order(plan)
        if torch
        else partial(simulated_order, plan, work_seconds=WORK_SECONDS, mflop_per_s=REAL_MFLOP_PER_S)
    )
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    began_s, cpu_began_s = time.monotonic(), _cpu_seconds()
    with _logs_to(home / REQUESTERS_LOG):
        code = trio.run(interruptible, partial(_main, run, home, order, tell))
    run.seconds, run.cpu_seconds = time.monotonic() - began_s, _cpu_seconds() - cpu_began_s
    return code, run


def trained_order(plan: Plan) -> Order:
    """Jobs for torch: one epoch of the digits example."""
    example = load_plan(example_order(), unsandboxed_ok=True)
    fields, order = example.spec_fields, example.order_fields
    steps = fields["steps"] // fields["epochs"]
    terms = {"k": plan.k, "work_seconds": WORK_SECONDS, "work_mflop": order["work_mflop"] // fields["epochs"]}
    windows = dict.fromkeys(("commit_window_ms", "reveal_window_ms", "round_ms"), WAN_WINDOW_MS)
    short = {"epochs": 1, "steps": steps, "steps_per_segment": steps_per_segment(steps, SEGMENTS_MAX)}

    def make(number: int, blobs: Blobs) -> TrainOrder:
        seeded = {**fields, **short, "seed": plan.seed + number}
        return replace(example, spec_fields=seeded, order_fields={**order, **terms, **windows}).place(blobs)

    return make


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def _logs_to(path: Path) -> Iterator[None]:
    """What this process logs goes into a file like that of a node: its requesters are part of the world."""
    before = structlog.get_config()
    with path.open("w") as file:
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(20),
            logger_factory=structlog.PrintLoggerFactory(file),
        )
        try:
            yield
        finally:
            structlog.configure(**before)


async def _main(run: RealRun, home: Path, order: Order, tell: Tell) -> int:
    fleet = Fleet(home, run.plan, lambda kind, detail: run.events.append((_since(fleet), kind, detail)))
    world: RealWorld | None = None
    try:
        async with open_real_world(run, fleet, torch=run.torch) as world:
            await _market(world, order, tell)
    except* ChildFailed as failed:
        run.violations.append(Violation(0, _since(fleet), f"the world broke down: {_first(failed)}"))
    if world is not None:
        _examine(world)
        run.violations += world.judge.violations
    return 0


def _since(fleet: Fleet) -> float:
    return round(trio.current_time() - fleet.origin_s, 3)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _market(world: RealWorld, order: Order, tell: Tell) -> None:
    """Start everybody, play the schedule, and wait for the jobs' ends and the plan's."""
    run, plan = world.run, world.run.plan
    await world.populate()
    async with AsyncExitStack() as stack:
        desks = [await world.open_desk(stack, number, order) for number in range(plan.requesters)]
        world.begin()
        async with trio.open_nursery() as watching:
            watching.start_soon(world.reader.watch)
            watching.start_soon(_pulse, world, tell)
            with trio.move_on_after(plan.minutes * 60 + END_PATIENCE_S):
                await play(world.fleet, desks, schedule(plan), run.jobs)
                await trio.sleep_until(world.fleet.origin_s + plan.minutes * 60)
            watching.cancel_scope.cancel()
        await world.finish()


async def _pulse(world: RealWorld, tell: Tell) -> None:
    while True:
        tell(world.now_s(), sum(1 for job in world.run.jobs if job.result is not None or job.error))
        await trio.sleep(PULSE_INTERVAL_S)


def _examine(world: RealWorld) -> None:
    """Judge by what is on disk now that all have ended, and say how each law was looked at."""
    run, judge, reader, remains = world.run, world.judge, world.reader, world.remains()
    for peer in world.fleet.peers:
        for code in peer.codes:
            if code > 0:
                judge.broken(0, f"{peer.who.name} ended with code {code} when it was told to stop")
    found = check_journals(judge, remains, reader.payments)
    requesters = [replace(one, logs=(world.fleet.home / REQUESTERS_LOG,)) for one in remains[-1:] if not one.logs]
    deaths = check_logs(judge, [*remains, *requesters], world.end_unix_s)
    run.facts |= {
        "looks": reader.looks,
        "transactions": reader.transactions,
        "unread": reader.unread,
        "journals": found.journals,
        "records": found.records,
        "votes": found.votes,
        "stories": found.stories,
        "lives": sum(peer.lives for peer in world.fleet.peers),
    }
    run.checks = _checks(reader, found, deaths)


def _checks(reader: ChainReader, found: Found, deaths: int) -> dict[int, str]:
    """How each law was looked at."""
    missed = f"; {reader.unread} looks or committees were missed" if reader.unread else ""
    killed = "a process that was killed sends nothing; "
    gone = f"that others take it for alive was {NOT_CHECKED}none was gone for more than {DEATH_PATIENCE_S:.0f} s"
    return {
        1: f"{reader.transactions} transactions of the escrow program, all of the mint, all balances at the end",
        2: f"all accounts in {reader.looks} looks, and what each transaction took from a job's vault{missed}",
        3: f"the signatures in each paying transaction{missed}; {found.votes} of them found in their members' journals",
        4: f"all node accounts in {reader.looks} looks",
        5: f"the end of each order, {found.stories} stories in requesters' journals, accounts past their refund time",
        6: "what each closing transaction gave back",
        7: NOT_CHECKED + "queues are inside the processes",
        8: killed + (f"{deaths} pairs of a long dead node and the log of another were looked at" if deaths else gone),
    }
