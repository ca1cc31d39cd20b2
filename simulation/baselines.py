"""Five other ways to match jobs with nodes, as models on the stage of scene.py. Each is meant at its best.

All but the last have a matcher: one machine that knows every node and every waiting job, and holds them in memory.
Nodes ask what their rate says (nobody bids strategically), and nobody cheats, verifies or settles here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .geography import one_way_s
from .plan import Plan
from .scene import MATCHER, Job, Matcher, Provider, Scene, open_scene

CENTRAL_INTERVAL_S = 5.0
SOLVER_INTERVAL_S = 10.0
POLL_INTERVAL_S = 2.0
LATENCY_WEIGHT = 0.3
"""How much of a posted-price score is distance; the rest is price."""
ASK_AGAIN_S = 5.0
"""How long a requester waits when everybody refused."""


@dataclass(slots=True)
class CentralMatcher:
    """Every 5 s: the oldest job gets the cheapest free node, and so on."""

    scene: Scene
    central: bool = True
    queue: list[Job] = field(default_factory=list)

    def open(self) -> None:
        """Begin to tick."""
        self.scene.after(CENTRAL_INTERVAL_S, self._tick)

    def submitted(self, job: Job) -> None:
        """Waits for the next tick."""
        self.queue.append(job)

    def freed(self, node: Provider) -> None:
        """Seen at the next tick."""

    def wiped(self) -> list[Job]:
        """What was queued."""
        lost, self.queue = self.queue, []
        return lost

    def _tick(self) -> None:
        self.scene.after(CENTRAL_INTERVAL_S, self._tick)
        cheapest = sorted(self.scene.free(), key=lambda node: (node.rate, node.number))
        matched = list(zip(self.queue, cheapest, strict=False))
        for job, node in matched:
            self.scene.assign(job, node, MATCHER)
        self.queue = self.queue[len(matched) :]


@dataclass(slots=True)
class Solver:
    """Every 10 s: the assignment of the waiting jobs to free nodes whose prices add up to the least.

    A price is rate times work, so the least sum pairs the longest jobs with the cheapest nodes.
    """

    scene: Scene
    central: bool = True
    queue: list[Job] = field(default_factory=list)

    def open(self) -> None:
        """Begin to tick."""
        self.scene.after(SOLVER_INTERVAL_S, self._tick)

    def submitted(self, job: Job) -> None:
        """Waits for the next batch."""
        self.queue.append(job)

    def freed(self, node: Provider) -> None:
        """Seen in the next batch."""

    def wiped(self) -> list[Job]:
        """What was queued."""
        lost, self.queue = self.queue, []
        return lost

    def _tick(self) -> None:
        self.scene.after(SOLVER_INTERVAL_S, self._tick)
        cheapest = sorted(self.scene.free(), key=lambda node: (node.rate, node.number))
        batch, self.queue = self.queue[: len(cheapest)], self.queue[len(cheapest) :]
        for job, node in zip(sorted(batch, key=lambda job: (-job.mflop, job.number)), cheapest, strict=False):
            self.scene.assign(job, node, MATCHER)


@dataclass(slots=True)
class FirstPoller:
    """Idle nodes ask every 2 s whether there is work: the first to ask gets the oldest job, whatever it costs."""

    scene: Scene
    central: bool = True
    queue: deque[Job] = field(default_factory=deque)

    def open(self) -> None:
        """Nodes begin to poll, each with its own phase."""
        for node in self.scene.nodes:
            self.scene.after(self.scene.rng.random() * POLL_INTERVAL_S, lambda node=node: self._poll(node))  # type: ignore[misc]

    def submitted(self, job: Job) -> None:
        """Waits for a poller."""
        self.queue.append(job)

    def freed(self, node: Provider) -> None:
        """It polls in its own time."""

    def wiped(self) -> list[Job]:
        """What was queued."""
        lost = list(self.queue)
        self.queue.clear()
        return lost

    def _poll(self, node: Provider) -> None:
        self.scene.after(POLL_INTERVAL_S, lambda: self._poll(node))
        if node.up and node.job is None:
            self.scene.after(self.scene.delay_s(node.name, MATCHER), lambda: self._asked(node))

    def _asked(self, node: Provider) -> None:
        if self.queue and self.scene.matcher_up and node.up and node.job is None:
            self.scene.assign(self.queue.popleft(), node, MATCHER)


@dataclass(slots=True)
class FifoQueues:
    """One queue per market: nodes of a class stand in line, and the longest idle gets the next job at once.

    A job goes to the market with the longest line of idle nodes, as an order that fits several classes may.
    """

    scene: Scene
    central: bool = True
    lines: dict[int, deque[Provider]] = field(default_factory=dict)
    queue: deque[Job] = field(default_factory=deque)

    def open(self) -> None:
        """Everybody stands in line."""
        for node in self.scene.nodes:
            self.freed(node)

    def submitted(self, job: Job) -> None:
        """Sold at once if anybody waits."""
        self.queue.append(job)
        self._match()

    def freed(self, node: Provider) -> None:
        """Back in line, at its end."""
        line = self.lines.setdefault(node.number % self.scene.plan.classes, deque())
        if node not in line and node.up and node.job is None:
            line.append(node)
        self._match()

    def wiped(self) -> list[Job]:
        """What was queued; nodes stand in line anew when it is back."""
        lost = list(self.queue)
        self.queue.clear()
        self.lines.clear()
        return lost

    def _match(self) -> None:
        while self.queue and self.scene.matcher_up:
            line = max(self.lines.values(), key=len, default=None)
            if not line:
                return
            node = line.popleft()
            if node.up and node.job is None:
                self.scene.assign(self.queue.popleft(), node, MATCHER)


@dataclass(slots=True)
class PostedPrices:
    """No matcher: a requester asks nodes one after another, best score of posted price and distance first.

    It knows every posted price and round trip beforehand, and learns only by asking who is busy or gone.
    """

    scene: Scene
    central: bool = False
    asked: dict[int, int] = field(default_factory=dict)

    def open(self) -> None:
        """Nothing to do."""

    def submitted(self, job: Job) -> None:
        """Ask the next best; after the last, begin anew."""
        turn = self.asked.get(job.number, 0)
        self.asked[job.number] = turn + 1
        pause_s = ASK_AGAIN_S if turn and turn % len(self.scene.nodes) == 0 else 0.0
        node = self._order(job)[turn % len(self.scene.nodes)]
        self.scene.after(pause_s, lambda: self.scene.assign(job, node, job.requester))

    def freed(self, node: Provider) -> None:
        """Nobody is told."""

    def wiped(self) -> list[Job]:
        """There is nothing to lose."""
        return []

    def _order(self, job: Job) -> list[Provider]:
        region, dearest = self.scene.geography.region, max(node.rate for node in self.scene.nodes)

        def score(node: Provider) -> float:
            distance_s = one_way_s(region[job.requester], region[node.name])
            return (1 - LATENCY_WEIGHT) * node.rate / dearest + LATENCY_WEIGHT * distance_s / 0.16

        return sorted(self.scene.nodes, key=lambda node: (score(node), node.number))


BASELINES: dict[str, Callable[[Scene], Matcher]] = {
    "central matcher, 5 s": CentralMatcher,
    "first poller wins": FirstPoller,
    "FIFO queue per market": FifoQueues,
    "solver, 10 s": Solver,
    "posted price, latency": PostedPrices,
}


def play_baseline(name: str, plan: Plan) -> Scene:
    """A plan with one of BASELINES, played to its end."""
    scene = open_scene(plan)
    scene.run(BASELINES[name](scene))
    return scene
