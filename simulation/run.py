"""Plays one plan from beginning to end and says what came of it."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from typing import Any

import trio
import trio._core._run as trio_run
import trio.testing

from ..ledger.addresses import LOCAL_PROGRAM_ID
from ..ledger.chain_client import ChainClient
from ..ledger.direct_rpc import DirectRpc
from .faults import play
from .invariants import Auditor, Violation
from .market import JobRecord, populate
from .plan import WIND_DOWN_S, Plan, schedule
from .trace import Trace
from .world import NODE_MICRO_CYX, World, open_world


@dataclass(slots=True)
class Run:
    """What came of a plan. `peers` maps name -> (node id, region, cheat)."""

    plan: Plan
    trace: Trace
    jobs: list[JobRecord]
    violations: list[Violation]
    earned_micro_cyx: dict[str, int] = field(default_factory=dict)
    cheats: dict[str, str] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    virtual_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


async def _main(plan: Plan) -> Run:
    jobs: list[JobRecord] = []
    async with open_world(plan) as world:
        desks = await populate(world)
        auditor = Auditor(world)
        world.nursery.start_soon(auditor.watch)
        with trio.move_on_after(plan.minutes * 60 + WIND_DOWN_S * 10):
            await play(world, desks, schedule(plan), jobs)
            await trio.sleep_until(plan.minutes * 60)
        await trio.sleep(WIND_DOWN_S / 10)
        auditor.final(jobs)
        return Run(
            plan=plan,
            trace=world.trace,
            jobs=jobs,
            violations=auditor.violations,
            earned_micro_cyx=await _earnings(world),
            cheats={peer.name: peer.cheat for peer in world.peers if peer.cheat},
            virtual_s=trio.current_time(),
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


def run_plan(plan: Plan) -> Run:
    """Play `plan` in virtual time. Deterministic if the interpreter's string hashing is (PYTHONHASHSEED=0)."""
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(plan.seed)
    gc.collect()
    began = time.process_time()
    run = trio.run(_main, plan, clock=trio.testing.MockClock(autojump_threshold=0))
    run.cpu_seconds = time.process_time() - began
    return run
