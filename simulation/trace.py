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

MARKS_MAX = 1024


@dataclass(slots=True)
class Trace:
    """Counts are of messages and bytes that a node received."""

    messages: Counter[NodeId] = field(default_factory=Counter)
    volume: Counter[NodeId] = field(default_factory=Counter)
    by_topic: Counter[str] = field(default_factory=Counter)
    events: list[tuple[float, str, str]] = field(default_factory=list)
    lines: int = 0
    _marks: dict[bytes, bytes] = field(default_factory=dict)
    _labels: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    _hash: blake3 = field(default_factory=blake3)
    _stamp: tuple[float, bytes] = (-1.0, b"")

    def traffic(self, kind: str, sender: NodeId, receiver: NodeId, topic: str, data: bytes) -> None:
        """Something was sent; see p2p.memory_network.Traffic."""
        self.messages[receiver] += 1
        self.volume[receiver] += len(data)
        label = self._labels.get(topic or kind)
        if label is None:
            label = self._labels[topic or kind] = topic.split("/")[2] if topic else kind, f"{kind} {topic}".encode()
        self.by_topic[label[0]] += 1
        self._line(b"%b%b%b%b" % (label[1], sender[:8], receiver[:8], self._mark(data) if topic else _digest(data)))

    def _mark(self, data: bytes) -> bytes:
        """The first bytes of a digest; a gossip message is sent many times within a moment."""
        mark = self._marks.get(data)
        if mark is None:
            if len(self._marks) >= MARKS_MAX:
                self._marks.clear()
            mark = self._marks[data] = _digest(data)
        return mark

    def event(self, kind: str, detail: str) -> None:
        """Something worth a line in the timeline happened."""
        self.events.append((trio.current_time(), kind, detail))
        self._line(f"{kind} {detail}".encode())

    def _line(self, line: bytes) -> None:
        self.lines += 1
        now_s = trio.current_time()
        if now_s != self._stamp[0]:
            self._stamp = now_s, f"{now_s:.9f} ".encode()
        self._hash.update(self._stamp[1] + line + b"\n")

    def digest(self) -> str:
        """The fingerprint so far, in hexadecimal."""
        return str(self._hash.hexdigest())


def _digest(data: bytes) -> bytes:
    return blake3(data).digest()[:8]
