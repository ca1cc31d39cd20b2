"""What happens in a world, decided before it begins: a pure function of the seed.

A Plan is what the user asks for; `schedule` turns it into a list of happenings. Dropping happenings from the list
leaves a valid, smaller world, which is what makes a failure shrinkable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from .geography import REGIONS


@dataclass(frozen=True, slots=True)
class FaultProfile:
    """Rates of trouble. Shares are of messages or of nodes; rates of crashes, pauses and churn
    are per node and hour, those of splits per hour."""

    loss: float = 0.0
    duplicated: float = 0.0
    jitter: float = 0.1
    slow_share: float = 0.0
    slow_factor: float = 8.0
    skew_ms: int = 0
    crashes_per_hour: float = 0.0
    pauses_per_hour: float = 0.0
    leaves_per_hour: float = 0.0
    splits_per_hour: float = 0.0


PROFILES = {
    "none": FaultProfile(),
    "default": FaultProfile(
        loss=0.01,
        duplicated=0.01,
        jitter=0.3,
        slow_share=0.05,
        skew_ms=2_000,
        crashes_per_hour=0.3,
        pauses_per_hour=0.3,
        leaves_per_hour=0.2,
        splits_per_hour=2.0,
    ),
    "harsh": FaultProfile(
        loss=0.05,
        duplicated=0.05,
        jitter=1.0,
        slow_share=0.2,
        skew_ms=10_000,
        crashes_per_hour=2.0,
        pauses_per_hour=2.0,
        leaves_per_hour=1.0,
        splits_per_hour=10.0,
    ),
}
MFLOP_PER_STEP = 250
MFLOP_PER_S = 5_000
"""What every node does, and quotes."""
SECONDS_PER_STEP = MFLOP_PER_STEP / MFLOP_PER_S
"""Virtual seconds of one training step, so that a job lasts as long as it is quoted."""
REAL_MFLOP_PER_S = 25_000
"""The same for nodes of real worlds that pretend to train: real time is dear, so their jobs last 2 to 12 seconds."""
MODEL_NAME = "simulated"
SECONDS_PER_TOKEN = 0.05
PREDICTED = 256
"""Tokens that the prompts of a world ask for at most; a simulated answer has 32 in the mean."""
WARM_UP_S = 5.0
"""Virtual seconds before the first job and the first fault."""
WIND_DOWN_S = 150.0
"""Virtual seconds after the last minute in which jobs come to their end, without new ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A world. `cheaters` is a share of the peers, spread over the kinds in `cheats` (all kinds when empty). `haste`
    multiplies the rates of crashes, pauses, departures and splits: short worlds need it to see any."""

    seed: int
    peers: int = 20
    minutes: float = 10.0
    jobs: int = 10
    requesters: int = 4
    classes: int = 1
    faults: str = "none"
    cheaters: float = 0.0
    cheats: tuple[str, ...] = ()
    k: int = 3
    haste: float = 1.0
    prompts: float = 0.0
    """Share of the jobs that are inferences."""
    drop: tuple[int, ...] = ()
    """Numbers of happenings left out: set by the shrinker."""

    def command(self) -> str:
        """The one command that plays this world again."""
        parts = [
            f"cyxnode sim run --seed {self.seed} --peers {self.peers} --minutes {self.minutes:g} --jobs {self.jobs}",
            f"--requesters {self.requesters} --classes {self.classes} --faults {self.faults} --k {self.k}",
            f"--haste {self.haste:g} --cheaters {self.cheaters * 100:g}%",
        ]
        if self.prompts:
            parts.append(f"--prompts {self.prompts * 100:g}%")
        parts += [f"--cheat {name}" for name in self.cheats]
        parts += [f"--drop {number}" for number in self.drop]
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class JobArrives:
    """A requester submits its next job."""

    number: int
    requester: int


@dataclass(frozen=True, slots=True)
class NodeCrashes:
    """A node loses power, and comes back with its journal after `down_s`."""

    node: int
    down_s: float


@dataclass(frozen=True, slots=True)
class NodePauses:
    """A node stands still for `pause_s`, as a laptop does whose lid is shut: its connections stay and carry nothing."""

    node: int
    pause_s: float


@dataclass(frozen=True, slots=True)
class NodeLeaves:
    """A node goes for good."""

    node: int


@dataclass(frozen=True, slots=True)
class NetworkSplits:
    """The nodes of `regions` lose the rest of the world for `heal_s`."""

    regions: tuple[str, ...]
    heal_s: float


What = JobArrives | NodeCrashes | NodePauses | NodeLeaves | NetworkSplits


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happens at a virtual second."""

    number: int
    at_s: float
    what: What


def schedule(plan: Plan) -> list[Happening]:
    """All happenings of a plan in the order of time.

    Each job and each node draws its own fate, so a plan with fewer of them has the same happenings, less those; and a
    shorter one has the same troubles up to its end.
    """
    rng, profile = Random(f"{plan.seed}/schedule"), PROFILES[plan.faults]
    end_s = plan.minutes * 60
    drawn: list[tuple[float, What]] = []
    for number in range(plan.jobs):
        at_s = WARM_UP_S + rng.random() * max(1.0, end_s - WARM_UP_S)
        drawn.append((at_s, JobArrives(number, number % max(1, plan.requesters))))
    for node in range(plan.peers):
        rng = Random(f"{plan.seed}/fate/{node}")
        leaves = next(_times(rng, profile.leaves_per_hour * plan.haste, end_s), None)
        if leaves is not None:
            drawn.append((leaves, NodeLeaves(node)))
        for at_s in _times(rng, profile.crashes_per_hour * plan.haste, end_s):
            drawn.append((at_s, NodeCrashes(node, 1.0 + rng.expovariate(1 / 20))))
        rng = Random(f"{plan.seed}/pauses/{node}")
        for at_s in _times(rng, profile.pauses_per_hour * plan.haste, end_s):
            drawn.append((at_s, NodePauses(node, 2.0 + rng.expovariate(1 / 10))))
    rng = Random(f"{plan.seed}/splits")
    for at_s in _times(rng, profile.splits_per_hour * plan.haste, end_s):
        away = tuple(sorted(rng.sample(REGIONS, rng.randint(1, 3))))
        drawn.append((at_s, NetworkSplits(away, 5.0 + rng.expovariate(1 / 20))))
    drawn.sort(key=lambda one: one[0])
    happenings = [Happening(number, at_s, what) for number, (at_s, what) in enumerate(drawn)]
    return [one for one in happenings if one.number not in plan.drop]


def _times(rng: Random, per_hour: float, end_s: float) -> Iterator[float]:
    """Moments of a Poisson process, after the warm-up and before the end."""
    at_s = WARM_UP_S
    while per_hour and (at_s := at_s + rng.expovariate(per_hour) * 3600) < end_s:
        yield at_s


def node_rate(plan: Plan, number: int) -> int:
    """What peer `number` asks per second of work, in micro-CYX."""
    return Random(f"{plan.seed}/rate/{number}").randint(10_000, 60_000)


def is_inference(plan: Plan, number: int) -> bool:
    """Whether job `number` asks prompts instead of training."""
    return plan.prompts > 0 and Random(f"{plan.seed}/kind/{number}").random() < plan.prompts


def model_rate(plan: Plan, number: int) -> int:
    """What peer `number` asks for 1,000 tokens that it writes, in micro-CYX; a quarter for those that it reads."""
    return Random(f"{plan.seed}/tokens/{number}").randint(1_000, 8_000)


def job_steps(plan: Plan, number: int) -> int:
    """Training steps of job `number`."""
    return Random(f"{plan.seed}/steps/{number}").randint(10, 60) * 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a participant is, how slow its links are (a factor), and how wrong its clock."""

    region: str
    slow: float
    skew_ms: int


def place(plan: Plan, name: str) -> Place:
    """The place of a participant follows from the seed and its name alone."""
    profile, rng = PROFILES[plan.faults], Random(f"{plan.seed}/{name}")
    region = rng.choice(REGIONS)
    slow = profile.slow_factor if rng.random() < profile.slow_share else 1.0
    return Place(region, slow, rng.randint(-profile.skew_ms, profile.skew_ms))


def smaller(plan: Plan, **changes: object) -> Plan:
    """The plan with some fields changed, for the shrinker."""
    return replace(plan, **changes)  # type: ignore[arg-type]
