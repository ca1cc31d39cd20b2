"""What a cheater is: a peer like any other, whose ports or runner are dressed, and a count of what came of it.

A cheat counts each of its tries under a key, and is judged at the end from what the chain and the nodes hold: CAUGHT
when it got nothing for it, PAID when it got what it wanted (money, or a false verdict). A try of which nothing can be
said, because its job never came that far, is neither. Cheats know only what their peer could know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from math import comb
from random import Random
from typing import ClassVar, Literal

import trio

from ...protocol.chain import JobAccount, JobState
from ...protocol.ports import Models, Runner
from ...protocol.units import JobId, NodeId
from ...scheduler.node import Ports
from ..world import Peer, World

Role = Literal["worker", "verifier", "bidder", "network", "requester"]
SAMPLES = 2
"""Segments that a member replays of a job of the simulated market (the default of an order)."""


class Fate(Enum):
    """What came of one try."""

    CAUGHT = auto()
    PAID = auto()
    NEITHER = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. `odds` is the probability with which the protocol promises to catch it; None where it promises none."""

    at_s: float
    odds: float | None = None


@dataclass(slots=True)
class Score:
    """Counts of one kind. `decided` are the tries with known odds that ended either way, `caught_with_odds` those of
    them that were caught, `expected` and `variance` what the odds say of that."""

    tried: int = 0
    caught: int = 0
    paid: int = 0
    decided: int = 0
    caught_with_odds: int = 0
    expected: float = 0.0
    variance: float = 0.0

    def add(self, attempt: Attempt, fate: Fate) -> None:
        """Count one try."""
        self.tried += 1
        self.caught += fate is Fate.CAUGHT
        self.paid += fate is Fate.PAID
        if attempt.odds is not None and fate is not Fate.NEITHER:
            self.decided += 1
            self.caught_with_odds += fate is Fate.CAUGHT
            self.expected += attempt.odds
            self.variance += attempt.odds * (1 - attempt.odds)

    def counts(self) -> dict[str, int]:
        """What reports show."""
        return {"tried": self.tried, "caught": self.caught, "paid": self.paid}

    def merge(self, other: Score) -> None:
        """Add the counts of another world."""
        self.tried += other.tried
        self.caught += other.caught
        self.paid += other.paid
        self.decided += other.decided
        self.caught_with_odds += other.caught_with_odds
        self.expected += other.expected
        self.variance += other.variance


@dataclass(frozen=True, slots=True)
class Ending:
    """What is known when the world ends: every job account as last seen on chain."""

    world: World
    jobs: Mapping[JobId, JobAccount]

    def job(self, key: bytes) -> JobAccount | None:
        """A job by its id or by the hash of its spec."""
        found = self.jobs.get(JobId(key))
        return found or next((one for one in self.jobs.values() if one.spec_hash == key), None)

    def settled(self, key: bytes) -> JobAccount | None:
        """As `job`, once it has a verdict."""
        found = self.job(key)
        return found if found is not None and found.state is JobState.SETTLED else None


@dataclass
class Cheat:
    """The base of all kinds. `gang` are the cheats of the same kind in this world, in order, with this one among them.

    `cheap` peers ask little for their work, so that they win and their cheating is seen.
    """

    name: ClassVar[str] = ""
    role: ClassVar[Role] = "worker"
    cheap: ClassVar[bool] = False
    infers: ClassVar[bool] = False
    """Cheats at inference, so only where prompts are asked."""

    world: World
    peer: Peer
    gang: Sequence[Cheat] = ()
    attempts: dict[bytes, Attempt] = field(default_factory=dict)
    ports: Ports | None = None

    def __post_init__(self) -> None:
        self.rng = Random(f"{self.world.plan.seed}/cheat/{self.peer.name}")

    @property
    def me(self) -> NodeId:
        return self.peer.node_id

    @property
    def genesis(self) -> bytes:
        """Names the network, for sealing and opening envelopes."""
        return self.world.cluster.genesis_hash

    def dress(self, peer: Peer, ports: Ports, runner: Runner) -> tuple[Ports, Runner]:
        """The ports and the runner of one life, tampered with."""
        self.ports = ports
        return ports, runner

    def dress_models(self, models: Models) -> Models:
        """The models of one life, tampered with."""
        return models

    async def act(self) -> None:
        """What the cheater does besides running its node; ends with the world at the latest."""
        await trio.lowlevel.checkpoint()

    def tried(self, key: bytes, odds: float | None = None) -> None:
        """Count a try, once per key."""
        self.attempts.setdefault(key, Attempt(trio.current_time(), odds))

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """What came of a try; each kind says."""
        raise NotImplementedError

    def honest(self) -> list[Peer]:
        """Peers that live and do not cheat."""
        return [peer for peer in self.world.peers if peer.node is not None and not peer.cheat]


def seen_by(members: int, bad: int, segments: int) -> float:
    """The probability that at least one of `members`, each drawing SAMPLES distinct segments, draws a bad one."""
    missed = comb(segments - bad, SAMPLES) / comb(segments, SAMPLES) if segments >= SAMPLES else 0.0
    return float(1 - missed**members)


def tally(cheats: Sequence[Cheat], ending: Ending) -> dict[str, Score]:
    """Counts by kind, in alphabetical order."""
    scores = {name: Score() for name in sorted({cheat.name for cheat in cheats})}
    for cheat in cheats:
        for key, attempt in cheat.attempts.items():
            scores[cheat.name].add(attempt, cheat.fate(key, ending))
    return scores
