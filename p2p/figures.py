"""What a transport counts, for an operator to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..protocol.ports import GossipMessage, GossipValidator, GossipVerdict
from .reach_figures import ReachFigures


@dataclass(frozen=True, slots=True)
class TransportFigures:
    """Gauges, and counts since the start. `gossip` is by (kind of topic, verdict), what is refused by cause."""

    connected: int = 0
    addresses_known: int = 0
    inbound_open: int = 0
    inbound_refused: Mapping[str, int] = field(default_factory=dict)
    streams_open: int = 0
    streams_served: Mapping[str, int] = field(default_factory=dict)
    streams_refused: Mapping[str, int] = field(default_factory=dict)
    gossip: Mapping[tuple[str, str], int] = field(default_factory=dict)
    banned: int = 0
    reach: ReachFigures = field(default_factory=ReachFigures)


def counted(topic: str, validator: GossipValidator, counts: Counter[tuple[str, str]]) -> GossipValidator:
    """`validator`, its verdicts counted by the kind of the topic: the third word of 'cyx/1/market/…'."""
    words = topic.split("/")
    kind = words[2] if len(words) > 2 else topic

    def judge(message: GossipMessage) -> GossipVerdict:
        try:
            verdict = validator(message)
        except BaseException:
            counts[kind, GossipVerdict.REJECT.value] += 1
            raise
        counts[kind, verdict.value] += 1
        return verdict

    return judge
