"""Keeps a node connected (DESIGN 3): whom to ask next, whom to dial, and when to leave the bootstrap nodes to others.

Peers come from the bootstrap list, from the disk (`known_peers.py`) and from what peers tell (`peer_exchange.py`).
While connections are short (`neighbours.py`) it asks often, otherwise once in EXCHANGE_INTERVAL_S. A bootstrap node has
many to serve: who has another peer hangs up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ..protocol.limits import (
    EXCHANGE_INTERVAL_S,
    EXCHANGE_SHORT_S,
    PEERS_WANTED,
    PROBE_TIMEOUT_S,
    SPLIT_HEAL_S,
)
from ..protocol.units import NodeId
from .healing import reach_across
from .neighbours import Neighbours
from .peer_exchange import PeerExchange

if TYPE_CHECKING:
    from .presence_service import PresenceService

LONELY_S = 1.0
"""Between exchanges while nobody is known, and at first while nobody can be reached."""


@dataclass(slots=True)
class Connections:
    """Of one PresenceService."""

    presence: PresenceService
    exchange: PeerExchange
    hurry: trio.Event = field(default_factory=trio.Event)
    """Set when the next round should not wait: we can be dialled elsewhere now."""
    _asked_at_s: float = float("-inf")

    async def reach(self, nodes: list[NodeId]) -> int:
        """Connect to up to PEERS_WANTED of `nodes` at once; returns to how many of them there is a connection."""
        transport = self.presence.wire.transport
        with trio.move_on_after(PROBE_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for node in nodes[:PEERS_WANTED]:
                    if node not in transport.connected():
                        nursery.start_soon(self.exchange.ask, node)
        return len(transport.connected().intersection(nodes))

    async def keep_connected(self) -> None:
        """Look for peers until cancelled."""
        self._recall()
        pause_s = LONELY_S
        while True:
            idle_s = trio.current_time() - self._asked_at_s
            interval_s = SPLIT_HEAL_S if self.presence.split.state.troubled else EXCHANGE_INTERVAL_S
            due = idle_s >= self.presence.jittered(interval_s)
            if due or self._missing() or (not self.presence.kept and self._strangers()):
                self._asked_at_s = trio.current_time()
                await self._round(due)
            # Who is connected with none of its kin looks again soon, then more seldom: they may tell new addresses.
            met = bool(self.presence.wire.transport.connected() & self.kin())
            pause_s = LONELY_S if not self.kin() else EXCHANGE_SHORT_S if met else min(EXCHANGE_SHORT_S, 2 * pause_s)
            with trio.move_on_after(self.presence.jittered(pause_s)):
                await self.hurry.wait()
                pause_s = LONELY_S
            self.hurry = trio.Event()

    @property
    def short(self) -> bool:
        """Whether there are fewer connections than half of those wanted, however many nodes are known."""
        return self._neighbours().short

    def wants(self, node: NodeId) -> bool:
        """Whether a connection to `node` is of use beyond what it was opened for."""
        return node in self.exchange.roots or (self.short and node in self.kin())

    def _class(self) -> bytes:
        return self.presence.cell.execution_class if self.presence.cell is not None else b""

    def kin(self) -> set[NodeId]:
        """Nodes that we want connections to: of our class; of any class for who offers nothing."""
        return self.exchange.candidates.of(self._class()) | self.presence.alive(self._class() or None).keys()

    def _neighbours(self) -> Neighbours:
        wire = self.presence.wire
        return Neighbours(wire.me, self.kin(), wire.transport.connected(), self.presence.cell)

    def _missing(self) -> bool:
        """Whether connections are short, for who has somewhere to begin."""
        near = self._neighbours()
        return self._dials() and (near.lonely or bool(near.missing()))

    def _dials(self) -> bool:
        return bool(self.presence.bootstrap or self.presence.offer or self.presence.kept)

    def _strangers(self) -> list[NodeId]:
        """Connected nodes of our class that never answered us: they dialled us, and are not kept for our next life."""
        if self.presence.kept is None:
            return []
        kept, near = self.presence.kept, self.presence.wire.transport.connected() & self.kin()
        return sorted(node for node in near if node not in kept)[:PEERS_WANTED]

    def _recall(self) -> None:
        """Dial the peers of earlier lives: at the start, and again when all others have failed."""
        for peer in self.presence.kept.latest() if self.presence.kept is not None else ():
            node = NodeId(peer.node)
            if node != self.presence.wire.me:
                self.presence.wire.transport.learn(node, peer.addresses)
                self.exchange.candidates.found(node, peer.execution_class)

    async def _round(self, due: bool) -> None:
        """Ask the bootstrap nodes or one peer, dial what is missing, and leave the bootstrap nodes to others. When it
        is `due`, also those of the list that were not reached before: they may know another part of the network."""
        transport, exchange, own = self.presence.wire.transport, self.exchange, self._class()
        troubled = self.presence.split.state.troubled
        await exchange.join_roots(every=due)
        near = transport.connected()
        asked = sorted(exchange.roots & near) or exchange.rotated(sorted(near))[:1]
        about = own if troubled or self._missing() else b""
        for node in asked:
            await exchange.ask(node, about)
        if self.presence.split.state.troubled:
            await reach_across(self.presence)
        async with trio.open_nursery() as nursery:
            for node in self._strangers():
                nursery.start_soon(exchange.ask, node, b"", (), PROBE_TIMEOUT_S)
        if not own and self._dials():
            await self._look_closer()
        if self._dials():
            await self._dial(self._neighbours().missing())
            if len(transport.connected() - exchange.lamps) < PEERS_WANTED // 2:
                await self._dial([node for node in exchange.candidates if node not in transport.connected()])
        if not transport.connected() and not exchange.candidates:
            self._recall()
        if transport.connected() - exchange.lamps:
            for lamp in sorted(exchange.lamps & transport.connected()):
                await transport.disconnect(lamp)

    async def _look_closer(self) -> None:
        """Who offers nothing asks more of the class that it saw most of."""
        seen = [offer.execution_class for offer in self.presence.alive().values()]
        if len(seen) >= PEERS_WANTED:
            await self.exchange.survey(max(sorted(set(seen)), key=seen.count))

    async def _dial(self, nodes: list[NodeId]) -> None:
        """A round does not wait for the slowest: the next one knows more, and where they are by then."""
        own = self._class()
        async with trio.open_nursery() as nursery:
            for node in nodes[:PEERS_WANTED]:
                nursery.start_soon(self.exchange.ask, node, own, (), EXCHANGE_SHORT_S)
