"""Plays one plan from beginning to end and says what came of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
import trio._core._run as trio_run
import trio.testing

from ..ledger.addresses import LOCAL_PROGRAM_ID
from ..ledger.chain_client import ChainClient
from ..ledger.direct_rpc import DirectRpc
from ..protocol.units import base58
from .cheaters import Ending, Score, tally
from .desk import JobRecord
from .faults import VirtualStage, play
from .invariants import Auditor
from .judge import Violation
from .market import populate
from .plan import WIND_DOWN_S, Plan, schedule
from .trace import Trace
from .work import WorkLog
from .world import NODE_MICRO_CYX, Peer, World, open_world

Tell = Callable[[float, int], None]
PULSE_INTERVAL_S = 1.0
PULSE_PASSES = 64
GC_THRESHOLDS = (20_000, 20, 50)
"""A world holds much that lives long and little that is cyclic: looking for it seldom saves a tenth of the time."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One peer over the whole world: messages and bytes that it received, tasks and virtual seconds that it worked."""

    name: str
    short: str
    region: str
    cheat: str
    messages: int
    volume: int
    tasks: int
    trained_s: float
    replayed_s: float


@dataclass(slots=True)
class Run:
    """What came of a plan. `cheats` names what is wrong with a peer; `cheating` counts tries by kind."""

    plan: Plan
    trace: Trace
    jobs: list[JobRecord]
    violations: list[Violation]
    nodes: list[NodeFacts] = field(default_factory=list)
    work: WorkLog = field(default_factory=WorkLog)
    earned_micro_cyx: dict[str, int] = field(default_factory=dict)
    cheats: dict[str, str] = field(default_factory=dict)
    cheating: dict[str, Score] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    virtual_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cheats_tried(self) -> int:
        """Over all kinds."""
        return sum(score.tried for score in self.cheating.values())

    @property
    def cheats_caught(self) -> int:
        """Tries that gained nothing."""
        return sum(score.caught for score in self.cheating.values())

    @property
    def cheats_paid(self) -> int:
        """Tries that got what they wanted."""
        return sum(score.paid for score in self.cheating.values())


async def _main(plan: Plan, jobs: list[JobRecord]) -> Run:
    async with open_world(plan) as world:
        desks, cheats = await populate(world)
        auditor = Auditor(world)
        world.nursery.start_soon(auditor.watch)
        with trio.move_on_after(plan.minutes * 60 + WIND_DOWN_S * 10):
            await play(VirtualStage(world), desks, schedule(plan), jobs)
            await trio.sleep_until(plan.minutes * 60)
        await trio.sleep(WIND_DOWN_S / 10)
        auditor.final(jobs)
        cheating = tally(cheats, Ending(world, auditor.judge.seen))
        return Run(
            plan=plan,
            trace=world.trace,
            jobs=jobs,
            violations=auditor.judge.violations,
            nodes=[_facts(world, peer) for peer in world.peers],
            work=world.work,
            earned_micro_cyx=await _earnings(world),
            cheats={peer.name: peer.cheat for peer in world.peers if peer.cheat},
            cheating=cheating,
            virtual_s=trio.current_time(),
            facts={"cheats": {name: score.counts() for name, score in cheating.items()}},
        )


def _facts(world: World, peer: Peer) -> NodeFacts:
    trace, work = world.trace, world.work
    return NodeFacts(
        name=peer.name,
        short=base58(peer.node_id)[:8],
        region=peer.region,
        cheat=peer.cheat,
        messages=trace.messages[peer.node_id],
        volume=trace.volume[peer.node_id],
        tasks=work.tasks[peer.name],
        trained_s=work.trained_s[peer.name],
        replayed_s=work.replayed_s[peer.name],
    )


async def _earnings(world: World) -> dict[str, int]:
    """What each peer gained since it was funded, stake and verifier's earnings included."""
    reader = ChainClient(DirectRpc(world.cluster), world.peers[0].key, LOCAL_PROGRAM_ID)
    accounts = {account.node: account for account in await reader.nodes()}
    gains = {}
    for peer in world.peers:
        owned = (await reader.balance(peer.node_id)).micro_cyx
        account = accounts.get(peer.node_id)
        held = account.stake + account.earned if account else 0
        gains[peer.name] = owned + held - NODE_MICRO_CYX
    return gains


class _Pulse(trio.abc.Instrument):
    """Tells how far a run is, from beside it: nothing in the world can notice."""

    def __init__(self, tell: Tell, jobs: list[JobRecord]) -> None:
        self._tell, self._jobs, self._passes, self._told = tell, jobs, 0, time.monotonic()

    def before_io_wait(self, timeout: float) -> None:
        """Looks at the wall clock now and then."""
        self._passes += 1
        if self._passes % PULSE_PASSES == 0 and time.monotonic() - self._told >= PULSE_INTERVAL_S:
            self._told = time.monotonic()
            ended = sum(1 for job in self._jobs if job.result is not None or job.error)
            self._tell(trio.current_time(), ended)


def run_plan(plan: Plan, tell: Tell | None = None) -> Run:
    """Play `plan` in virtual time. Deterministic if the interpreter's string hashing is (PYTHONHASHSEED=0).

    `tell` hears of (virtual seconds, jobs ended) at most once per PULSE_INTERVAL_S of wall time.
    """
    jobs: list[JobRecord] = []
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(plan.seed)
    gc.collect()
    began = time.process_time()
    instruments = [_Pulse(tell, jobs)] if tell is not None else []
    clock = trio.testing.MockClock(autojump_threshold=0)
    # Time stands still between jumps: that needs no look at the real clock, millions of times.
    clock.current_time = partial(getattr, clock, "_virtual_base")  # type: ignore[method-assign]
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        run = trio.run(_main, plan, jobs, clock=clock, instruments=instruments)
    finally:
        gc.set_threshold(*thresholds)
    run.cpu_seconds = time.process_time() - began
    return run
