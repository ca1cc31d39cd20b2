"""Finds peers for presence, and lets us be found: the DHT, rendezvous points, and mDNS on a LAN.

Whoever is found is only suggested to `scheduler/peer_exchange.py`, which dials within its own budget, through bans and
deny list, and believes what is signed. What fails here is logged in words and tried again; it never ends a node.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
import trio

from ..p2p.raw_streams import RawStreams, is_loopback
from ..p2p.transport import Libp2pTransport
from ..protocol.discovery import class_key, class_namespace, lan_service
from ..protocol.errors import CyxError
from ..protocol.limits import DISCOVERY_TICK_S, FOUND_PEERS_MAX
from ..protocol.units import NodeId, base58
from ..scheduler.presence_service import PresenceService
from ..scheduler.supervision import plain_nursery
from .discovery_plan import Facts, Plan, Step

if TYPE_CHECKING:
    from ..p2p.dht.node import Dht
    from ..p2p.lan import Lan
    from ..p2p.rendezvous import RendezvousPoint

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Ways:
    """What a process takes part in. `serves`: answers in the DHT, while others can dial it. `point`: is a rendezvous
    point. `lan`: announces itself by mDNS and listens."""

    serves: bool = True
    point: bool = False
    lan: bool = False


@dataclass(slots=True)
class Discovery:
    """Of one node; `execution_class` is empty for who offers nothing."""

    raw: RawStreams
    presence: PresenceService
    execution_class: bytes
    ways: Ways
    dht: Dht
    point: RendezvousPoint | None
    lan: Lan | None
    plan: Plan
    suggested: dict[str, int] = field(default_factory=dict)
    """How many peers were suggested, by the way on which they were found."""

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            if self.lan is not None:
                nursery.start_soon(self.lan.run)
            while True:
                await self._tick()
                await trio.sleep(DISCOVERY_TICK_S)

    async def _tick(self) -> None:
        serving = self.ways.serves and not self.raw.unreachable
        if serving is not self.dht.serving:
            log.info("serving the DHT" if serving else "not serving the DHT: others cannot dial this node")
            self.dht.serve(serving)
        await self.dht.meet()
        self.dht.tidy()
        if self.point is not None:
            self.point.tidy()
        for step in self.plan.due(self.facts(), trio.current_time()):
            self.plan.done(step, await self._take(step), trio.current_time())

    def facts(self) -> Facts:
        """How it stands."""
        exchange = self.presence.exchange
        return Facts(
            self.dht.table.size(),
            len(exchange.roots),
            bool(self.execution_class),
            self.presence.connections.short,
            self.dht.serving,
        )

    async def _take(self, step: Step) -> bool:
        """Whether a step did what it is for; raises nothing."""
        try:
            return await self._taken(step)
        except CyxError as error:
            log.warning("discovery failed", step=step.value, cause=str(error))
        except Exception:
            # A defect, perhaps provoked by a stranger's answer: it must cost this step, not the node.
            log.exception("discovery raised", step=step.value)
        return False

    async def _taken(self, step: Step) -> bool:
        match step:
            case Step.REGISTER:
                return await self._register()
            case Step.WALK:
                return await self._walk()
            case Step.SEARCH:
                return await self._search()
            case Step.PROVIDE:
                return await self._provide()

    @property
    def _genesis(self) -> bytes:
        return self.presence.wire.genesis

    async def _register(self) -> bool:
        """At every rendezvous point; who else is there is told by the way."""
        from ..p2p import rendezvous

        name, done = class_namespace(self._genesis, self.execution_class), False
        for point in sorted(self.presence.exchange.roots):
            try:
                await rendezvous.register(self.raw, self._genesis, point, name)
                self._suggest("rendezvous", await rendezvous.discover(self.raw, self._genesis, point, name))
                done = True
            except CyxError as error:
                log.warning("not registered at a rendezvous point", peer=base58(point), cause=str(error))
        return done

    async def _walk(self) -> bool:
        found = await self.dht.find_closest(self.raw.node_id)
        log.info("DHT looked through", answered=len(found.lookup.closest()), table=self.dht.table.size())
        if self.presence.connections.short:
            self._suggest("dht", found.contacts, b"")
        return bool(found.lookup.closest())

    async def _search(self) -> bool:
        """For nodes of our class, in the DHT."""
        found = await self.dht.find_providers(class_key(self._genesis, self.execution_class))
        log.info("class searched for in the DHT", found=len(found.providers), asked=found.lookup.asked)
        self._suggest("dht", found.providers)
        return bool(found.providers)

    async def _provide(self) -> bool:
        taken = await self.dht.provide(class_key(self._genesis, self.execution_class))
        if record := self.presence.fresh_record():
            await self.dht.put_record(record)
        if taken:
            log.info("provided in the DHT", taken=taken)
        else:
            log.warning("nobody in the DHT took our entry", table=self.dht.table.size())
        return taken > 0

    def _suggest(self, way: str, found: Mapping[NodeId, tuple[str, ...]], execution_class: bytes | None = None) -> None:
        known = self.execution_class if execution_class is None else execution_class
        for node, addresses in list(found.items())[:FOUND_PEERS_MAX]:
            if self.presence.exchange.suggest(node, addresses, known):
                self.suggested[way] = self.suggested.get(way, 0) + 1

    def addresses_on_lan(self) -> tuple[str, ...]:
        """Ours, without loopback where there is another: next door that is another machine."""
        own = self.raw.addresses()
        return tuple(one for one in own if not is_loopback(one)) or own

    def heard_on_lan(self, node: NodeId, addresses: tuple[str, ...]) -> None:
        """Somebody announces itself next door."""
        local = all(map(is_loopback, self.raw.addresses()))
        near = tuple(one for one in addresses if local or not is_loopback(one))
        if near:
            log.info("heard on the LAN", peer=base58(node))
            self._suggest("lan", {node: near}, b"")


@asynccontextmanager
async def open_discovery(
    transport: Libp2pTransport, presence: PresenceService, ways: Ways, execution_class: bytes = b""
) -> AsyncIterator[Discovery]:
    """Look and be found while the context is open."""
    from ..p2p.dht.node import Dht

    raw, genesis = RawStreams(transport), presence.wire.genesis
    dht = Dht(raw, genesis, keeps=presence.connections.wants, now_ms=presence.wire.clock.unix_ms)
    dht.serve(ways.serves)
    point = None
    if ways.point:
        from ..p2p.rendezvous import RendezvousPoint

        point = RendezvousPoint(raw, genesis)
    discovery = Discovery(raw, presence, execution_class, ways, dht, point, None, Plan(presence.jittered))
    if ways.lan:
        from ..p2p.lan import Lan

        discovery.lan = Lan(lan_service(genesis), raw.node_id, discovery.addresses_on_lan, discovery.heard_on_lan)
    async with plain_nursery() as nursery:
        nursery.start_soon(discovery.run)
        yield discovery
        nursery.cancel_scope.cancel()
