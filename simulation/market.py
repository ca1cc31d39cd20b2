"""The market that a world plays: who is there, what they order, and what came of each job."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import trio

from ..protocol.errors import CyxError
from ..protocol.limits import MICRO
from ..protocol.spec import TrainSpec, steps_per_segment
from ..scheduler.requester_service import JobOrder, JobResult, News, RequesterService, Stage
from .cheaters import Cheat, recruit
from .plan import MFLOP_PER_S, MFLOP_PER_STEP, job_steps, node_rate
from .world import NODE_MICRO_CYX, REQUESTER_MICRO_CYX, Peer, World

WAN_WINDOW_MS = 2_000
"""Commit and reveal windows, and rounds, of jobs whose bidders are all over the globe (DESIGN 5)."""


@dataclass(slots=True)
class JobRecord:
    """One job of the market. Times are virtual seconds; None until reached."""

    number: int
    requester: str
    at_s: float
    stages: dict[str, float] = field(default_factory=dict)
    result: JobResult | None = None
    error: str = ""

    def between_ms(self, start: str, end: str) -> float | None:
        """Milliseconds from one stage to another, if both were reached."""
        if start not in self.stages or end not in self.stages:
            return None
        return 1000 * (self.stages[end] - self.stages[start])


@dataclass(slots=True)
class Desk:
    """A requester with its queue of orders."""

    world: World
    peer: Peer
    service: RequesterService | None = None
    current: JobRecord | None = None
    lock: trio.Lock = field(default_factory=trio.Lock)

    def observe(self, news: News) -> None:
        """News of the current job."""
        if isinstance(news, Stage) and self.current is not None:
            self.current.stages.setdefault(news.name, trio.current_time())
            self.world.trace.event("job", f"{self.current.number} {news.name} {news.detail}")

    async def submit(self, record: JobRecord) -> None:
        """Run one job to its end; jobs of one requester run one after another."""
        async with self.lock:
            assert self.service is not None
            self.current = record
            try:
                record.result = await self.service.submit(order_of(self, record))
            except CyxError as error:
                record.error = str(error)
                self.world.trace.event("job", f"{record.number} error {error}")


def order_of(desk: Desk, record: JobRecord) -> JobOrder:
    """A job that follows from the seed and the job's number: 10 to 60 virtual seconds of work."""
    plan = desk.world.plan
    rng = Random(f"{plan.seed}/job/{record.number}")
    service = desk.service
    assert service is not None
    steps = job_steps(plan, record.number)
    data = service.blobs.put(rng.randbytes(64))
    spec = TrainSpec(
        graph=b"{}",
        train_cid=data,
        validation_cid=data,
        loss="cross_entropy",
        optimizer="adamw",
        learning_rate_micro=1_000,
        weight_decay_micro=0,
        momentum_micro=0,
        batch_size=32,
        epochs=1,
        steps=steps,
        steps_per_segment=steps_per_segment(steps, 64),
        seed=rng.randrange(2**53),
        secret=rng.randbytes(32),
    )
    return JobOrder(
        spec=spec,
        budget=10 * MICRO,  # type: ignore[arg-type]
        work_mflop=steps * MFLOP_PER_STEP,
        mflop_per_s=MFLOP_PER_S,
        unsandboxed_ok=True,
        k=plan.k,  # type: ignore[arg-type]
        work_seconds=180,
        commit_window_ms=WAN_WINDOW_MS,
        reveal_window_ms=WAN_WINDOW_MS,
        round_ms=WAN_WINDOW_MS,
    )


async def populate(world: World) -> tuple[list[Desk], list[Cheat]]:
    """Start all peers and requesters of the plan; the plan's share of the peers cheats."""
    plan = world.plan
    for number in range(plan.peers):
        peer = world.new_peer(
            f"peer{number}",
            micro_cyx=NODE_MICRO_CYX,
            class_name=f"class{number % plan.classes}",
            rate_micro_per_s=node_rate(plan, number),
            mflop_per_s=MFLOP_PER_S,
        )
        world.peers.append(peer)
    cheats = recruit(world, world.peers)
    async with trio.open_nursery() as nursery:
        for peer in world.peers:
            nursery.start_soon(world.start, peer)
    desks = []
    for number in range(plan.requesters):
        desk = Desk(world, world.new_peer(f"requester{number}", micro_cyx=REQUESTER_MICRO_CYX))
        world.requesters.append(desk.peer)
        desk.service = await world.open_requester(desk.peer, desk.observe)
        desks.append(desk)
    for cheat in cheats:
        world.nursery.start_soon(cheat.act)
    return desks, cheats
