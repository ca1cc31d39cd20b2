"""The world between in-memory nodes: who can reach whom, how long it takes, and what gets lost.

Everything that travels is an action at a time in one queue, and one task runs them in order, so that a run follows
from its seed alone: no wall clock, no sockets, nothing unordered is iterated. Time is trio's, hence virtual under a
MockClock.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import count
from math import ceil
from random import Random
from typing import TYPE_CHECKING

import structlog
import trio

from ..protocol.errors import PeerUnreachable
from ..protocol.limits import DIAL_TIMEOUT_S
from ..protocol.units import NodeId, base58
from .addresses import PeerAddress
from .memory_stream import MemoryStream

if TYPE_CHECKING:
    from .memory import MemoryTransport

_log = structlog.get_logger()
Latency = Callable[[NodeId, NodeId, Random], float]
"""One-way delay in seconds between two nodes."""
Traffic = Callable[[str, NodeId, NodeId, str, bytes], None]
"""Told of everything that is sent: 'gossip' or 'stream', from whom, to whom, topic (of gossip), bytes."""
_PORT = 4001
_RESEND_S = 0.2
_BATCH = 256


def constant_latency(seconds: float) -> Latency:
    """Every link takes `seconds` one way."""
    return lambda _from, _to, _rng: seconds


class Link:
    """A connection between two nodes, with the streams on it."""

    def __init__(self, network: MemoryNetwork, first: MemoryTransport, second: MemoryTransport) -> None:
        self._network = network
        self.ends = {first.node_id: first, second.node_id: second}
        self._far = {first.node_id: second, second.node_id: first}
        self.dialled_by, self.alive = first.node_id, True
        self._streams: list[MemoryStream] = []
        self._last_arrival = dict.fromkeys(self.ends, 0.0)

    def other(self, node: NodeId) -> MemoryTransport:
        """The transport at the other end than `node`'s."""
        return self._far[node]

    def post(self, sender: NodeId, receiver: NodeId, action: Callable[[], None]) -> None:
        """Run `action` at `receiver` after the delay and in order, if the link still stands then."""
        delay_s = self._network.delay_s(sender, receiver) + self._network.stalled_s(sender, receiver)
        at = max(trio.current_time() + delay_s, self._last_arrival[receiver])
        self._last_arrival[receiver] = at
        self._network.post(at, lambda: action() if self.alive else None)

    def open_stream(self, opener: NodeId) -> tuple[MemoryStream, MemoryStream]:
        """Both ends of a new stream, the opener's first."""
        far = self.other(opener).node_id
        pair = MemoryStream.pair(
            opener,
            far,
            lambda act: self.post(far, opener, act),
            lambda act: self.post(opener, far, act),
            lambda sender, receiver, frame: self._network.traffic("stream", sender, receiver, "", frame),
        )
        self._streams = [stream for stream in self._streams if not stream.over]
        self._streams.extend(pair)
        return pair

    def cut(self) -> None:
        """End the connection: every stream on it breaks at both ends."""
        if self.alive:
            self.alive = False
            for node, end in self.ends.items():
                end.forget_link(self.other(node).node_id, self)
            for stream in self._streams:
                stream.break_off()


def _untold(kind: str, sender: NodeId, receiver: NodeId, topic: str, data: bytes) -> None:
    """Nobody watches the traffic."""


class MemoryNetwork:
    """Nodes by name, and the queue of everything in flight. `loss` is the share of gossip messages lost per link;
    what travels on a stream is sent again instead, and arrives late. Arrivals are put off to the next multiple of
    `grain_s`, so that what arrives at about the same time costs one wake-up; 0 leaves them as they are."""

    def __init__(self, rng: Random, *, latency: Latency | None = None, loss: float = 0.0, grain_s: float = 0.0) -> None:
        self.loss, self._grain_s = loss, grain_s
        self.traffic: Traffic = _untold
        self._rng, self._latency = rng, latency or constant_latency(0.001)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence, self._wake = count(), trio.Event()
        self._numbers: dict[NodeId, int] = {}
        self._nodes: dict[NodeId, MemoryTransport] = {}
        self._groups: dict[NodeId, int] = {}
        self._stalled: dict[NodeId, float] = {}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[MemoryNetwork]:
        """Deliver while the context is open."""
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver)
            try:
                yield self
            except Exception as error:
                failure = error  # raised below: the nursery would wrap it
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def partition(self, groups: Sequence[Collection[NodeId]]) -> None:
        """Let nodes reach only their own group; who is in none forms one more. Connections across break."""
        self._groups = {node: number for number, group in enumerate(groups, 1) for node in group}
        for node in list(self._nodes):
            for link in self._nodes[node].links():
                if not self.reachable(node, link.other(node).node_id):
                    link.cut()
        _log.info("network_partitioned", groups=len(groups))

    def heal(self) -> None:
        """End all partitions. Connections are not restored by themselves."""
        self._groups = {}

    def kill(self, node: NodeId) -> None:
        """The node is gone without a word: its handlers stop and its connections break. It may be made anew."""
        if node in self._nodes:
            self._nodes[node].die()
            _log.info("node_killed", node=base58(node))

    def stall(self, node: NodeId, seconds: float) -> None:
        """Nothing leaves or reaches `node` for so long; its connections stand, and all of it goes through afterwards.
        What is in flight already still arrives."""
        self._stalled[node] = max(trio.current_time() + seconds, self._stalled.get(node, 0.0))
        _log.info("node_stalled", node=base58(node), seconds=seconds)

    def stalled_s(self, one: NodeId, other: NodeId) -> float:
        """Seconds until neither of two nodes is stalled any more."""
        if not self._stalled:
            return 0.0
        until = max(self._stalled.get(one, 0.0), self._stalled.get(other, 0.0))
        return max(0.0, until - trio.current_time())

    def reachable(self, one: NodeId, other: NodeId) -> bool:
        """Whether both run and no partition separates them."""
        together = self._groups.get(one, 0) == self._groups.get(other, 0)
        return together and one in self._nodes and other in self._nodes

    def delay_s(self, sender: NodeId, receiver: NodeId) -> float:
        """One-way delay of one thing on a stream, with the time for sending it again when it was lost."""
        delay = max(0.0, self._latency(sender, receiver, self._rng))
        return delay + _RESEND_S if self.lost() else delay

    def gossip_delay_s(self, sender: NodeId, receiver: NodeId) -> float:
        """One-way delay of a gossip message."""
        return max(0.0, self._latency(sender, receiver, self._rng)) + self.stalled_s(sender, receiver)

    def lost(self) -> bool:
        """Whether the next thing is lost."""
        return self.loss > 0 and self._rng.random() < self.loss

    def address_of(self, node: NodeId) -> PeerAddress:
        """Where a node is dialled; the same after a restart."""
        number = self._numbers.setdefault(node, len(self._numbers) + 1)
        return PeerAddress("ip4", f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", _PORT, node)

    async def dial(self, near: MemoryTransport, address: PeerAddress) -> Link:
        """Connect `near` to whoever answers at `address`; PeerUnreachable when that is not the node it names."""
        far = self._nodes.get(address.node)
        if far is None or (far.address.host, far.address.port) != (address.host, address.port):
            await trio.sleep(2 * self.delay_s(near.node_id, address.node))
            raise PeerUnreachable(f"{base58(address.node)} does not answer at {address.host}")
        stalled_s = self.stalled_s(near.node_id, address.node)
        if not self.reachable(near.node_id, address.node) or stalled_s > DIAL_TIMEOUT_S:
            await trio.sleep(DIAL_TIMEOUT_S)
            raise PeerUnreachable(f"{base58(address.node)} did not answer in time")
        await trio.sleep(2 * self.delay_s(near.node_id, address.node) + stalled_s)
        if not self.reachable(near.node_id, address.node):
            raise PeerUnreachable(f"{base58(address.node)} went away")
        return near.link_to(address.node) or self._connect(near, self._nodes[address.node])

    def _connect(self, near: MemoryTransport, far: MemoryTransport) -> Link:
        if not (near.accepts(far.node_id) and far.accepts(near.node_id)):
            raise PeerUnreachable(f"{base58(far.node_id)} takes no more connections")
        if not far.lets_in(near.address.host):
            raise PeerUnreachable(f"{base58(far.node_id)} lets nobody in now")
        link = Link(self, near, far)
        near.remember_link(far.node_id, link)
        far.remember_link(near.node_id, link)
        return link

    def enter(self, transport: MemoryTransport) -> None:
        """A node starts."""
        self._nodes[transport.node_id] = transport

    def leave(self, transport: MemoryTransport) -> None:
        """A node ends: its connections break."""
        if self._nodes.get(transport.node_id) is transport:
            del self._nodes[transport.node_id]
            self._stalled.pop(transport.node_id, None)
        for link in transport.links():
            link.cut()

    def post(self, at: float, action: Callable[[], None]) -> None:
        """Run `action` at trio time `at`; actions of one moment run in the order in which they were posted."""
        if self._grain_s:
            at = ceil(at / self._grain_s) * self._grain_s
        heapq.heappush(self._queue, (at, next(self._sequence), action))
        if self._queue[0][0] == at:
            self._wake.set()

    async def _deliver(self) -> None:
        now = trio.current_time()
        for turn in count():
            if turn % _BATCH == 0:
                await trio.lowlevel.checkpoint()
            if self._queue and self._queue[0][0] <= now:
                heapq.heappop(self._queue)[2]()
                continue
            now = trio.current_time()
            if self._queue and self._queue[0][0] <= now:
                continue
            self._wake = trio.Event()
            with trio.move_on_at(self._queue[0][0] if self._queue else float("inf")):
                await self._wake.wait()
