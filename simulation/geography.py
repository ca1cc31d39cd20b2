"""How long messages take: regions of the world and what real networks do to packets between them.

Round trips are typical medians between data centres of large cloud operators, in milliseconds, rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from ..protocol.units import NodeId

REGIONS = ("eu-west", "eu-north", "us-east", "us-west", "sa-east", "ap-south", "ap-northeast", "ap-southeast")
_ROUND_TRIPS_MS = (
    # euw  eun  use  usw  sae  aps  apne apse
    (2, 35, 75, 140, 180, 120, 210, 170),
    (35, 2, 105, 165, 210, 140, 240, 185),
    (75, 105, 2, 65, 115, 190, 150, 215),
    (140, 165, 65, 2, 175, 220, 105, 165),
    (180, 210, 115, 175, 2, 300, 255, 320),
    (120, 140, 190, 220, 300, 2, 125, 60),
    (210, 240, 150, 105, 255, 125, 2, 70),
    (170, 185, 215, 165, 320, 60, 70, 2),
)


@lru_cache(maxsize=len(REGIONS) ** 2)
def one_way_s(region: str, other: str) -> float:
    """Half a round trip, in seconds."""
    return _ROUND_TRIPS_MS[REGIONS.index(region)][REGIONS.index(other)] / 2000


@dataclass(slots=True)
class Geography:
    """Where nodes are, how jittery and how slow their links are. `slow` multiplies a node's delays."""

    jitter: float = 0.0
    region: dict[NodeId, str] = field(default_factory=dict)
    slow: dict[NodeId, float] = field(default_factory=dict)
    _known: dict[tuple[NodeId, NodeId], float] = field(default_factory=dict)

    def latency(self, sender: NodeId, receiver: NodeId, rng: Random) -> float:
        """One-way delay in seconds: the distance, times an exponential jitter, times slow links. Reordering follows
        from the jitter, since each gossip message draws its own."""
        base = self._known.get((sender, receiver))
        if base is None:
            base = one_way_s(self.region.get(sender, REGIONS[0]), self.region.get(receiver, REGIONS[0]))
            base *= max(self.slow.get(sender, 1.0), self.slow.get(receiver, 1.0))
            self._known[sender, receiver] = base
        return base * (1.0 + rng.expovariate(1.0) * self.jitter) if self.jitter else base
