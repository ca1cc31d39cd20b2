"""What every service of one node shares: its ports, its key on one network, and what it offers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio

from ..protocol.award import JobTerms
from ..protocol.limits import MICRO
from ..protocol.messages import JobAnnounce
from ..protocol.ports import Blobs, Chain, Journal, Models, Randomness, Runner
from .equivocation import Heard, Statement, accuse, contradictions
from .pricing import Offer
from .registry import Registry
from .supervision import supervised
from .wire import Wire


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What the operator chose. Prices in micro-CYX."""

    bootstrap: tuple[str, ...] = ()
    region: str = ""
    rate_micro_per_s: int = 20_000
    mflop_per_s: int = 5_000
    stake: int = 100 * MICRO
    capacity: int = 1
    provider: bool = True
    verifier: bool = True


@dataclass(slots=True)
class NodeContext:
    """Ports and settings. `nursery` lives as long as the node."""

    wire: Wire
    chain: Chain
    registry: Registry
    runner: Runner
    models: Models
    blobs: Blobs
    journal: Journal
    randomness: Randomness
    settings: NodeSettings
    nursery: trio.Nursery
    heard: Heard = field(default_factory=Heard)
    counts: Counter[str] = field(default_factory=Counter)
    """What happened since the start, for the operator's metrics."""

    def hear(self, terms: JobTerms, said: Iterable[Statement]) -> None:
        """Remember checked signatures of members, and accuse whoever contradicts itself."""
        for accusation in contradictions(self.heard, terms, said):
            self.nursery.start_soon(supervised, terms.job, _nothing, accuse, self.chain, accusation)

    def prepare(self, announce: JobAnnounce) -> None:
        """Work of this job will come soon: warm up what computes it."""
        if announce.inference is not None:
            self.models.prepare(announce.inference.model)
        else:
            self.runner.prepare()

    def offer(self) -> Offer:
        """What this node sells, from its runner's own description."""
        about, settings = self.runner.description, self.settings
        return Offer(
            device="cuda" if about.get("device", "cpu").startswith("cuda") else "cpu",
            memory_mb=int(about.get("memory_mb", "0")),
            sandboxed=about.get("sandbox", "none") != "none",
            rate_micro_per_s=settings.rate_micro_per_s,
            mflop_per_s=settings.mflop_per_s,
            region=settings.region,
            datasets=(),
            capacity=settings.capacity if settings.provider else 0,
            models=self.models.offers(),
        )


def _nothing() -> None:
    """An accusation that cannot be made costs nothing but itself."""
