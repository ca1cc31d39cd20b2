"""The fingerprint of a run, and its traffic counted.

Everything that is sent, every transaction, and every stage of a job goes into one hash, with its virtual time: the same
seed and the same code give the same hash, on any machine.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import trio
from blake3 import blake3

from ..protocol.units import NodeId


@dataclass(slots=True)
class Trace:
    """Counts are of messages and bytes that a node received."""

    messages: Counter[NodeId] = field(default_factory=Counter)
    volume: Counter[NodeId] = field(default_factory=Counter)
    by_topic: Counter[str] = field(default_factory=Counter)
    events: list[tuple[float, str, str]] = field(default_factory=list)
    lines: int = 0
    _hash: blake3 = field(default_factory=blake3)

    def traffic(self, kind: str, sender: NodeId, receiver: NodeId, topic: str, data: bytes) -> None:
        """Something was sent; see p2p.memory_network.Traffic."""
        self.messages[receiver] += 1
        self.volume[receiver] += len(data)
        self.by_topic[topic.split("/")[2] if topic else kind] += 1
        self._line(kind.encode() + sender[:8] + receiver[:8] + topic.encode() + blake3(data).digest()[:8])

    def event(self, kind: str, detail: str) -> None:
        """Something worth a line in the timeline happened."""
        self.events.append((trio.current_time(), kind, detail))
        self._line(f"{kind} {detail}".encode())

    def _line(self, line: bytes) -> None:
        self.lines += 1
        self._hash.update(f"{trio.current_time():.9f} ".encode() + line + b"\n")

    def digest(self) -> str:
        """The fingerprint so far, in hexadecimal."""
        return str(self._hash.hexdigest())
