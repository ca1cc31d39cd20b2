"""The stage on which other ways of matching are modelled: the jobs, nodes, links and crashes of a plan, as events.

It has no messages of the protocol, no chain and no committee: a model decides who gets which job, and this file plays
what follows. Who and where the nodes are, what they ask, when jobs arrive and who loses power when is read from the
same plan as the real world's, so that only the matching differs. Time is in virtual seconds.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Protocol

from ..protocol.limits import DEAD_AFTER_MS, DIAL_TIMEOUT_S, RETRY_DELAYS_S
from ..protocol.units import NodeId
from ..scheduler.pricing import estimated_seconds, price_of
from .geography import Geography
from .plan import (
    MFLOP_PER_S,
    MFLOP_PER_STEP,
    PROFILES,
    SECONDS_PER_STEP,
    WARM_UP_S,
    WIND_DOWN_S,
    JobArrives,
    NodeCrashes,
    NodeLeaves,
    Plan,
    job_steps,
    node_rate,
    place,
    schedule,
)

MATCHER = NodeId(b"matcher")
Act = Callable[[], None]


@dataclass(slots=True, eq=False)
class Job:
    """A job and what came of it; times are None until reached."""

    number: int
    requester: NodeId
    mflop: int
    work_s: float
    submitted_s: float = 0.0
    awarded_s: float | None = None
    done_s: float | None = None
    price: int = 0
    lost: bool = False

    @property
    def estimate_s(self) -> int:
        """Seconds for which a node asks to be paid."""
        return estimated_seconds(self.mflop, MFLOP_PER_S)


@dataclass(slots=True, eq=False)
class Provider:
    """A node of capacity 1. `life` counts its crashes, so that what it began before one is void."""

    number: int
    name: NodeId
    rate: int
    up: bool = True
    job: Job | None = None
    since_s: float = 0.0
    life: int = 0


class Matcher(Protocol):
    """Decides who gets which job."""

    central: bool

    def open(self) -> None:
        """The world begins."""

    def submitted(self, job: Job) -> None:
        """A job is there, for the first time or because its node was lost."""

    def freed(self, node: Provider) -> None:
        """A node can take a job: it ended one, or it is back after a crash."""

    def wiped(self) -> list[Job]:
        """The matcher lost its memory; the jobs that were in it."""


@dataclass(slots=True)
class Scene:
    """A plan being played with one matcher. `trained_s` is all work, `wasted_s` what crashes undid."""

    plan: Plan
    rng: Random
    geography: Geography
    nodes: list[Provider]
    matcher: Matcher | None = None
    now_s: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    matcher_up: bool = True
    trained_s: float = 0.0
    wasted_s: float = 0.0
    _events: list[tuple[float, int, Act]] = field(default_factory=list)
    _sequence: count[int] = field(default_factory=count)
    _desks: dict[NodeId, deque[Job]] = field(default_factory=dict)

    def after(self, delay_s: float, act: Act) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._sequence), act))

    def delay_s(self, one: NodeId, other: NodeId) -> float:
        """One message on its way."""
        return self.geography.latency(one, other, self.rng)

    def price(self, job: Job, node: Provider) -> int:
        """What a node asks for a job, in micro-CYX."""
        return price_of(job.mflop, MFLOP_PER_S, node.rate)

    def free(self) -> list[Provider]:
        """Nodes that run and have nothing to do."""
        return [node for node in self.nodes if node.up and node.job is None]

    def run(self, matcher: Matcher) -> None:
        """From the beginning to the end of the plan, and its wind-down."""
        self.matcher = matcher
        for happening in schedule(self.plan):
            match happening.what:
                case JobArrives(number, requester):
                    self.after(happening.at_s, lambda n=number, r=requester: self._order(n, r))  # type: ignore[misc]
                case NodeCrashes(node, down_s):
                    self.after(happening.at_s, lambda n=node, d=down_s: self._crash(n, d))  # type: ignore[misc]
                case NodeLeaves(node):
                    self.after(happening.at_s, lambda n=node: self._crash(n, None))  # type: ignore[misc]
        if matcher.central:
            self._plan_outages()
        matcher.open()
        end_s = self.plan.minutes * 60 + WIND_DOWN_S
        while self._events and self._events[0][0] <= end_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()

    def assign(self, job: Job, node: Provider, source: NodeId) -> None:
        """`source` gives a job to a node. One that is down or busy is found out, and the job is matched again."""

        def arrive() -> None:
            if not node.up:
                self.after(DIAL_TIMEOUT_S, lambda: self._again(job))
            elif node.job is not None:
                self.after(self.delay_s(node.name, source), lambda: self._again(job))
            else:
                self._begin(job, node, source)

        self.after(self.delay_s(source, node.name), arrive)

    def _begin(self, job: Job, node: Provider, source: NodeId) -> None:
        node.job, node.since_s, life = job, self.now_s, node.life
        told = self.delay_s(node.name, source) + (self.delay_s(source, job.requester) if source == MATCHER else 0.0)

        def award() -> None:
            job.awarded_s = self.now_s if job.awarded_s is None else job.awarded_s

        def finish() -> None:
            if node.life == life:
                self._finish(job, node)

        self.after(told, award)
        fetch_s = self.delay_s(node.name, job.requester) + self.delay_s(job.requester, node.name)
        self.after(fetch_s + job.work_s, finish)

    def _finish(self, job: Job, node: Provider) -> None:
        assert self.matcher is not None
        node.job, job.price = None, self.price(job, node)
        self.trained_s += job.work_s

        def done() -> None:
            job.done_s = self.now_s
            self._next(job.requester)

        self.after(self.delay_s(node.name, job.requester), done)
        matcher = self.matcher
        self.after(self.delay_s(node.name, MATCHER), lambda: matcher.freed(node))

    def _order(self, number: int, requester: int) -> None:
        steps, name = job_steps(self.plan, number), NodeId(f"requester{requester}".encode())
        job = Job(number, name, steps * MFLOP_PER_STEP, steps * SECONDS_PER_STEP)
        self.jobs.append(job)
        desk = self._desks.setdefault(name, deque())
        desk.append(job)
        if len(desk) == 1:
            self._submit(job)

    def _next(self, requester: NodeId) -> None:
        desk = self._desks[requester]
        desk.popleft()
        if desk:
            self._submit(desk[0])

    def _submit(self, job: Job) -> None:
        assert self.matcher is not None
        job.submitted_s = self.now_s
        if self.matcher.central:
            self.after(self.delay_s(job.requester, MATCHER), lambda: self._knock(job, 0))
        else:
            self.matcher.submitted(job)

    def _knock(self, job: Job, attempt: int) -> None:
        assert self.matcher is not None
        if self.matcher_up:
            self.matcher.submitted(job)
        elif attempt < len(RETRY_DELAYS_S):
            self.after(RETRY_DELAYS_S[attempt], lambda: self._knock(job, attempt + 1))
        else:
            self._lose(job)

    def _again(self, job: Job) -> None:
        assert self.matcher is not None
        if self.matcher_up:
            self.matcher.submitted(job)
        else:
            self._lose(job)

    def _lose(self, job: Job) -> None:
        job.lost = True
        self._next(job.requester)

    def _crash(self, number: int, down_s: float | None) -> None:
        node = self.nodes[number]
        if not node.up:
            return
        node.up, node.life, job = False, node.life + 1, node.job
        if job is not None:
            undone_s = min(job.work_s, self.now_s - node.since_s)
            self.trained_s, self.wasted_s = self.trained_s + undone_s, self.wasted_s + undone_s
            node.job = None
            assert self.matcher is not None
            noticed_s = DEAD_AFTER_MS / 1000 if self.matcher.central else self.delay_s(node.name, job.requester)
            self.after(noticed_s, lambda: self._again(job))
        if down_s is not None:
            self.after(down_s, lambda: self._return(node))

    def _return(self, node: Provider) -> None:
        assert self.matcher is not None
        node.up = True
        self.matcher.freed(node)

    def _plan_outages(self) -> None:
        """The matcher's machine is as good as a node's: it loses power at the rate of the plan's faults."""
        rng, hours = Random(f"{self.plan.seed}/matcher"), self.plan.minutes / 60
        rate, at_s = PROFILES[self.plan.faults].crashes_per_hour, WARM_UP_S
        while rate and (at_s := at_s + rng.expovariate(rate) * 3600) < hours * 3600:
            down_s = 1.0 + rng.expovariate(1 / 20)
            self.after(at_s, self._outage)
            self.after(at_s + down_s, self._recover)

    def _outage(self) -> None:
        assert self.matcher is not None
        self.matcher_up = False
        for job in self.matcher.wiped():
            self._lose(job)

    def _recover(self) -> None:
        assert self.matcher is not None
        self.matcher_up = True
        for node in self.free():
            self.matcher.freed(node)


def open_scene(plan: Plan) -> Scene:
    """The nodes, requesters and links of a plan."""
    geography = Geography(jitter=PROFILES[plan.faults].jitter)
    nodes = [
        Provider(number, NodeId(f"peer{number}".encode()), node_rate(plan, number)) for number in range(plan.peers)
    ]
    for name in [
        *(f"peer{number}" for number in range(plan.peers)),
        *(f"requester{n}" for n in range(plan.requesters)),
    ]:
        where = place(plan, name)
        geography.region[NodeId(name.encode())] = where.region
        geography.slow[NodeId(name.encode())] = where.slow
    geography.region[MATCHER] = place(plan, "matcher").region
    return Scene(plan, Random(f"{plan.seed}/scene"), geography, nodes)
