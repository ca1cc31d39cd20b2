"""The `Transport` port in memory: for simulations and tests, on virtual time, without sockets and libp2p.

It has the semantics of the libp2p transport (errors, bounds, endings, validators, bans), which one shared test-suite
holds both to. What a node publishes goes to all connected nodes of the topic; what it forwards, along a mesh of about
GOSSIP_DEGREE of its connections, as with GossipSub 1.1. A copy that would come later than another is not sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any

import structlog
import trio

from ..protocol.errors import LocalError, PeerUnreachable
from ..protocol.limits import GOSSIP_DEGREE, PEERS_CONNECTED_MAX
from ..protocol.ports import GossipMessage, GossipValidator, GossipVerdict, RequestHandler, Stream, StreamHandler
from ..protocol.units import NodeId, base58
from . import requests
from .addresses import AddressBook, PeerAddress, parse_address
from .bans import Bans
from .doors import Doors
from .inbound import Inbound
from .memory_network import Link, MemoryNetwork, constant_latency
from .subscriptions import HEARD, Misbehaviour, Subscriptions, check_message

__all__ = ["MemoryNetwork", "MemoryTransport", "constant_latency"]
_log = structlog.get_logger()
_PRIME = 2**127 - 1


@dataclass(slots=True, eq=False)
class _Flood:
    """A published message on its way: the earliest time at which it reaches each node, and who has heard it. It is
    forgotten with its last copy in flight, so nobody need remember it by name."""

    author: NodeId
    topic: str
    data: bytes
    arrivals: dict[NodeId, float] = field(default_factory=dict)
    heard: set[MemoryTransport] = field(default_factory=set)


class MemoryTransport:
    """A node on a MemoryNetwork while `run()` is open."""

    def __init__(self, network: MemoryNetwork, node_id: NodeId) -> None:
        self._network, self._node_id = network, node_id
        self.address: PeerAddress = network.address_of(node_id)
        self._book, self._inbound = AddressBook(), Inbound()
        self._subscriptions, self._misbehaviour = Subscriptions(), Misbehaviour()
        self._doors, self._bans = Doors(), Bans(now_ms=lambda: round(1000 * trio.current_time()))
        self._links: dict[NodeId, Link] = {}
        self._picks: dict[str, frozenset[NodeId]] = {}
        self._meshes: dict[str, _Ears] = {}
        self._handlers: trio.Nursery | None = None
        self._ran = False

    @property
    def node_id(self) -> NodeId:
        """Our name."""
        return self._node_id

    @asynccontextmanager
    async def run(self) -> AsyncIterator[MemoryTransport]:
        """Serve while the context is open; once."""
        if self._ran:
            raise LocalError("the transport has run already", field="transport", fix="make a new one")
        self._ran = True
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve)
            try:
                yield self
            except Exception as error:
                failure = error  # raised below: the nursery would wrap it
            finally:
                self.die()
        if failure is not None:
            raise failure

    async def _serve(self, task_status: Any) -> None:
        async with trio.open_nursery() as self._handlers:
            self._network.enter(self)
            task_status.started()
            await trio.sleep_forever()

    def die(self) -> None:
        """Stop at once: handlers are cancelled, connections break."""
        self._network.leave(self)
        if self._handlers is not None:
            self._handlers.cancel_scope.cancel()
            self._handlers = None

    def addresses(self) -> tuple[str, ...]:
        """Where peers can dial us."""
        return (str(self.address),)

    def connected(self) -> frozenset[NodeId]:
        """Peers with a live connection."""
        return frozenset(self._links)

    def learn(self, node: NodeId, addresses: Sequence[str]) -> None:
        """Remember where `node` can be dialled; what is not an address of it is dropped."""
        dropped = self._book.learn(node, addresses)
        if dropped:
            _log.info("addresses_dropped", peer=base58(node), count=dropped)

    async def connect(self, address: str) -> NodeId:
        """Dial `address`, unless its node is connected already."""
        target = parse_address(address)
        self._check_peer(target.node)
        if target.node not in self._links:
            await self._network.dial(self, target)
            self._book.worked(target)
        return target.node

    async def disconnect(self, node: NodeId) -> None:
        """Close the connection to `node`; streams on it break."""
        await trio.lowlevel.checkpoint()
        if node in self._links:
            self._links[node].cut()

    def subscribe(
        self, topic: str, validator: GossipValidator
    ) -> AbstractAsyncContextManager[AsyncIterator[GossipMessage]]:
        """Join a topic while the context is open; LocalError when it is joined already."""
        return self._subscribe(topic, validator)

    @asynccontextmanager
    async def _subscribe(self, topic: str, validator: GossipValidator) -> AsyncIterator[AsyncIterator[GossipMessage]]:
        try:
            with self._subscriptions.open(topic, validator) as messages:
                self._forget_meshes()
                await trio.lowlevel.checkpoint()
                yield messages
        finally:
            self._forget_meshes()

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data`; logged as unheard when no connected peer has joined the topic."""
        check_message(topic, data)
        await trio.lowlevel.checkpoint()
        flood = _Flood(self._node_id, topic, bytes(data))
        flood.heard.add(self)
        everyone = self._ears(topic)
        self._spread(flood, everyone)
        if not everyone:
            _log.warning("gossip_unheard", topic=topic, peers=len(self._links))

    def serve(self, protocol: str, handler: RequestHandler) -> None:
        """Answer requests of `protocol`; once per protocol."""
        self._inbound.serve(protocol, handler)

    def serve_stream(self, protocol: str, handler: StreamHandler) -> None:
        """Serve streams of `protocol`; once per protocol."""
        self._inbound.serve_stream(protocol, handler)

    async def request(self, node: NodeId, protocol: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Ask `node`, dialling it when needed."""
        return await requests.ask(self.open_stream, node, protocol, payload, timeout_s)

    async def open_stream(self, node: NodeId, protocol: str) -> Stream:
        """Open a stream to `node`, dialling it when needed."""
        self._check_peer(node)
        link = self._links.get(node) or await self._reach(node)
        network = self._network
        await trio.sleep(2 * network.delay_s(self._node_id, node) + network.stalled_s(self._node_id, node))
        far = link.other(self._node_id)
        if not link.alive or protocol not in far._inbound.protocols or far._handlers is None:
            raise PeerUnreachable(f"could not open {protocol} to {base58(node)}")
        ours, theirs = link.open_stream(self._node_id)
        far._handlers.start_soon(far._inbound.handle, protocol, theirs)
        return ours

    async def _reach(self, node: NodeId) -> Link:
        cause = "no address is known"
        for address in self._book.of(node):
            try:
                return await self._network.dial(self, address)
            except PeerUnreachable as error:
                cause = str(error)
        raise PeerUnreachable(f"{base58(node)} cannot be reached: {cause}")

    def links(self) -> tuple[Link, ...]:
        """Our connections, the oldest first."""
        return tuple(self._links.values())

    def link_to(self, node: NodeId) -> Link | None:
        """The connection to `node`, if there is one."""
        return self._links.get(node)

    def accepts(self, node: NodeId) -> bool:
        """Whether one more connection, to `node`, is welcome, whoever dials."""
        return node not in self._bans and len(self._links) < 2 * PEERS_CONNECTED_MAX

    def lets_in(self, host: str) -> bool:
        """Whether one more connection may come from a host; it leaves when the connection ends."""
        return not self._doors.enter(host, trio.current_time())

    def remember_link(self, node: NodeId, link: Link) -> None:
        """A connection to `node` stands."""
        self._links[node] = link
        if self._subscriptions and link.other(self._node_id)._subscriptions:
            self._forget_meshes()

    def forget_link(self, node: NodeId, link: Link) -> None:
        """The connection to `node` has ended."""
        if self._links.get(node) is link:
            del self._links[node]
            if link.dialled_by != self._node_id:
                self._doors.leave(link.other(self._node_id).address.host)
            if self._subscriptions and link.other(self._node_id)._subscriptions:
                self._forget_meshes()

    def _check_peer(self, node: NodeId) -> None:
        if node == self._node_id:
            raise LocalError("that is this node itself", field="node", fix="ask another one")
        if self._handlers is None:
            raise LocalError("the transport is not running", field="transport", fix="enter run() first")
        if node in self._bans:
            raise PeerUnreachable(f"{base58(node)} is banned here")

    # gossip ---------------------------------------------------------------------------------------------------------

    def _forget_meshes(self) -> None:
        """A connection or a subscription changed here: neighbours pick anew, and theirs may be picked no longer."""
        self._meshes.clear()
        for near in (self, *self._neighbours()):
            if near._picks:
                near._picks.clear()
                near._meshes.clear()
                for far in near._neighbours():
                    far._meshes.clear()

    def _neighbours(self) -> list[MemoryTransport]:
        """Connected nodes that have joined any topic: others are in no mesh."""
        ends = (link.other(self._node_id) for link in self._links.values())
        return [end for end in ends if end._subscriptions]

    def _ears(self, topic: str) -> _Ears:
        """Connected nodes that have joined a topic."""
        ends = ((node, link.other(self._node_id), link) for node, link in self._links.items())
        return tuple(ear for ear in ends if topic in ear[1]._subscriptions)

    def _picked(self, topic: str) -> frozenset[NodeId]:
        """The GOSSIP_DEGREE neighbours that we graft: those next to us in an order of the topic's own."""
        picks = self._picks.get(topic)
        if picks is None:
            me, salt = int.from_bytes(self._node_id, "big"), int.from_bytes(sha256(topic.encode()).digest(), "big")
            nodes = [node for node, _, _ in self._ears(topic)]
            nodes.sort(key=lambda node: (int.from_bytes(node, "big") ^ me) * salt % _PRIME)
            picks = self._picks[topic] = frozenset(nodes[:GOSSIP_DEGREE])
        return picks

    def _mesh(self, topic: str) -> _Ears:
        """Those that we forward to: either end has grafted the other."""
        mesh = self._meshes.get(topic)
        if mesh is None:
            me, picked = self._node_id, self._picked(topic)
            mesh = tuple(ear for ear in self._ears(topic) if ear[0] in picked or me in ear[1]._picked(topic))
            self._meshes[topic] = mesh
        return mesh

    def _spread(self, flood: _Flood, ears: _Ears) -> None:
        """Send to whoever would not have it sooner."""
        me, now, network, arrivals = self._node_id, trio.current_time(), self._network, flood.arrivals
        for node, far, link in ears:
            earlier = arrivals.get(node)
            if (earlier is not None and earlier <= now) or node == flood.author or network.lost():
                continue
            at = now + network.gossip_delay_s(me, node)
            if earlier is None or at < earlier:
                arrivals[node] = at
                network.traffic("gossip", me, node, flood.topic, flood.data)
                network.post(at, partial(far._hear, flood, me, link))

    def _hear(self, flood: _Flood, forwarder: NodeId, link: Link) -> None:
        if self in flood.heard or not link.alive or self._handlers is None:
            return
        flood.heard.add(self)
        message = GossipMessage(flood.topic, flood.author, forwarder, flood.data)
        verdict = self._subscriptions.judge(message)
        if verdict in HEARD:
            if verdict is GossipVerdict.ACCEPT:
                self._subscriptions.deliver(message)
            self._spread(flood, self._mesh(flood.topic))
        elif verdict is GossipVerdict.REJECT and self._misbehaviour.count(forwarder):
            self._bans.add(forwarder)
            link.cut()


_Ears = tuple[tuple[NodeId, MemoryTransport, Link], ...]
"""Who hears a topic next door: its name, its transport, and the connection to it."""
