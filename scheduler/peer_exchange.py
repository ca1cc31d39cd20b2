"""Learns from peers who else is there, and keeps us connected (DESIGN 3).

Peers come from the bootstrap list, from the disk (`known_peers.py`) and from what peers tell: the answer to a
PeersRequest holds signed capability records and heartbeats, and for how long their authors have been silent. Whoever is
not dead by that lives, if we are to hear of its death; others are only addresses to dial. While connections to our own
class are short we ask often, otherwise once in EXCHANGE_INTERVAL_S. A bootstrap node has many to serve: who has another
peer hangs up.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, RemoteError
from ..protocol.limits import (
    EXCHANGE_INTERVAL_S,
    EXCHANGE_SHORT_S,
    FRAME_MAX_BYTES,
    HEARTBEAT_INTERVAL_MS,
    PEER_EXCHANGE_MAX,
    PEERS_ASKED_MAX,
    PEERS_KNOWN_MAX,
    PEERS_OF_CELL,
    PEERS_WANTED,
    PROBE_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    SPLIT_HEAL_S,
)
from ..protocol.messages import Capability, PeersAnswer, PeersRequest
from ..protocol.units import NodeId, base58
from .cells import place_of
from .healing import reach_across
from .presence import Member, Met
from .wire import PEERS

if TYPE_CHECKING:
    from .presence_service import PresenceService

LONELY_S = 1.0
"""Between exchanges while nobody is known."""
ANSWER_NODES_MAX = 63
"""With two records each and our own two they fit a PeersAnswer."""
ANSWER_MAX_BYTES = FRAME_MAX_BYTES * 3 // 4
SURVEY_NODES = 2

log = structlog.get_logger()


@dataclass(slots=True)
class Told:
    """What a peer tells of a node: for how long it has heard nothing of it, and the node's own records."""

    silent_ms: int = 0
    records: list[Signed[msgspec.Struct]] = field(default_factory=list)


@dataclass(slots=True)
class PeerExchange:
    """Of one PresenceService. `_candidates` are nodes that we can dial but that are not in our sight, by class."""

    presence: PresenceService
    _candidates: OrderedDict[NodeId, bytes] = field(default_factory=OrderedDict)
    _roots: set[NodeId] = field(default_factory=set)
    _hinted: set[NodeId] = field(default_factory=set)
    """Candidates of whose class only a third party has told."""
    _asked_at_s: float = float("-inf")
    _surveyed_at_s: dict[bytes, float] = field(default_factory=dict)

    # answering ------------------------------------------------------------------------------------------------------

    async def answer(self, peer: NodeId, payload: bytes) -> bytes:
        """Whom we know, for a peer that asks."""
        wire = self.presence.wire
        asked = open_as(payload, wire.genesis, PeersRequest).message
        said = [wire.opener(raw, wire.genesis) for raw in (asked.capability, asked.heartbeat) if raw]
        if own_word := [record for record in said if record.sender == peer]:
            self._believe(peer, {peer: Told(0, own_word)})
        now_ms = wire.clock.monotonic_ms()
        self.presence.apply(Met(peer, now_ms))
        records = [raw for raw in (self.presence.fresh_record(), self.presence.own_heartbeat) if raw]
        silent_ms, size = [0] * len(records), sum(map(len, records))
        for member in self._chosen(peer, asked):
            pair = [raw for raw in (member.capability_raw, member.heartbeat_raw) if raw]
            size += sum(map(len, pair))
            if size > ANSWER_MAX_BYTES:
                break
            records += pair
            silent_ms += [max(0, now_ms - member.seen_at_ms)] * len(pair)
        return wire.seal(PeersAnswer(records=tuple(records), silent_ms=tuple(silent_ms)))

    def _chosen(self, peer: NodeId, asked: PeersRequest) -> list[Member]:
        """Those asked for by name, then the class in full, the asker's cell first, then some of the others.

        Who offers something and names no class has peers enough, and only shows that it lives.
        """
        members, name = self.presence.state.members, asked.execution_class
        chosen = [NodeId(raw) for raw in asked.wanted]
        if name:
            kin = [n for n, m in members.items() if m.capability is not None and m.capability.execution_class == name]
            # Cells are cut by place: next to the asker's are those of its cell, however many cells there are.
            place = place_of(peer)
            near = nsmallest(PEERS_WANTED, kin, key=lambda n: place_of(n) ^ place) if asked.capability else []
            chosen += [*near, *self._rotated(kin)]
            most = max(len(asked.wanted) + len(kin), 2 * PEERS_WANTED)
        else:
            most = PEERS_WANTED if asked.capability else PEER_EXCHANGE_MAX
        others = self._rotated(list(members))[: 2 * most]
        known = (m for n in dict.fromkeys([*chosen, *others]) if n != peer and (m := members.get(n)) is not None)
        return list(islice((m for m in known if m.capability_raw), min(most, ANSWER_NODES_MAX)))

    def _rotated(self, nodes: list[NodeId]) -> list[NodeId]:
        start = int.from_bytes(self.presence.randomness.bytes(2), "big") % max(1, len(nodes))
        return nodes[start:] + nodes[:start]

    # asking ---------------------------------------------------------------------------------------------------------

    async def ask(
        self,
        peer: NodeId,
        execution_class: bytes = b"",
        wanted: Iterable[NodeId] = (),
        within_s: float = REQUEST_TIMEOUT_S,
    ) -> bool:
        """Ask `peer` whom it knows, and believe what is signed; whether it answered."""
        wire = self.presence.wire
        request = PeersRequest(
            capability=self.presence.fresh_record(),
            heartbeat=self.presence.own_heartbeat,
            execution_class=execution_class,
            wanted=tuple(wanted)[:PEERS_ASKED_MAX],
        )
        try:
            answer: Signed[PeersAnswer] = await wire.ask(peer, PEERS, request, PeersAnswer, within_s=within_s)
        except CyxError as error:
            self._candidates.pop(peer, None)
            self._hinted.discard(peer)
            log.info("peer exchange failed", peer=base58(peer), cause=str(error))
            return False
        told = self._opened(peer, answer.message)
        self._believe(peer, told)
        self.presence.apply(Met(peer, wire.clock.monotonic_ms()))
        self._keep(peer, told.get(peer))
        self._check_hint(peer, peer in told)
        return True

    def _keep(self, peer: NodeId, told: Told | None) -> None:
        """Remember a peer that answered and offers something, for our next life."""
        known = self.presence.state.members.get(peer)
        offers = [one.message for one in told.records if isinstance(one.message, Capability)] if told else []
        offer = offers[0] if offers else known.capability if known is not None else None
        if self.presence.kept is not None and offer is not None:
            self.presence.kept.met(peer, offer.addresses, offer.execution_class)

    def suggest(self, node: NodeId, addresses: Sequence[str], execution_class: bytes = b"") -> bool:
        """Somebody else says that `node` may be there, of that class: worth dialling, believed in nothing. False when
        it is known already."""
        known = self._candidates.keys() | self._roots | self.presence.alive().keys()
        if node == self.presence.wire.me or node in known:
            return False
        self.presence.wire.transport.learn(node, addresses)
        self._candidates[node] = execution_class
        self._hinted.add(node)
        self._forget_oldest()
        return True

    def _check_hint(self, node: NodeId, told: bool) -> None:
        """One that was only suggested has answered: if it offers nothing, it is no candidate."""
        if node in self._hinted:
            self._hinted.discard(node)
            known = self.presence.state.members.get(node)
            if not told and (known is None or known.capability is None):
                self._candidates.pop(node, None)

    def _forget_oldest(self) -> None:
        while len(self._candidates) > PEERS_KNOWN_MAX:
            node, _ = self._candidates.popitem(last=False)
            self._hinted.discard(node)

    def _opened(self, peer: NodeId, answer: PeersAnswer) -> dict[NodeId, Told]:
        """The records of an answer that we do not have byte for byte, by author."""
        wire, members = self.presence.wire, self.presence.state.members
        known = {raw for member in members.values() for raw in (member.capability_raw, member.heartbeat_raw)}
        told: dict[NodeId, Told] = {}
        for raw, silent_ms in zip(answer.records, answer.silent_ms, strict=True):
            if raw in known:
                continue
            try:
                signed = wire.opener(raw, wire.genesis)
            except RemoteError as error:
                log.info("peer record dropped", peer=base58(peer), cause=str(error))
                continue
            one = told.setdefault(signed.sender, Told())
            one.records.append(signed)
            one.silent_ms = max(one.silent_ms, silent_ms)
        return told

    def _believe(self, peer: NodeId, told: dict[NodeId, Told]) -> None:
        """Who is in our sight is heard, as old as its records are; of others the addresses are kept."""
        for node, one in told.items():
            known = self.presence.state.members.get(node)
            offers = [signed.message for signed in one.records if isinstance(signed.message, Capability)]
            offer = offers[0] if offers else known.capability if known is not None else None
            if offer is None or node == self.presence.wire.me:
                continue
            if self.presence.in_sight(node, offer.execution_class):
                # Heartbeats come first: they are younger, and decide whether there is a member to keep records of.
                for signed in sorted(one.records, key=lambda signed: isinstance(signed.message, Capability)):
                    met, told_ms = node == peer, None if node == peer else one.silent_ms
                    self.presence.hear(node, signed.message, signed.raw, told_ms=told_ms, met=met)
            else:
                self.presence.wire.transport.learn(node, offer.addresses)
            self._candidates[node] = offer.execution_class
            self._candidates.move_to_end(node)
            self._hinted.discard(node)
            self._forget_oldest()

    async def survey(self, execution_class: bytes = b"", wanted: Iterable[NodeId] = ()) -> None:
        """Ask who is there now: live nodes of the class, which hear all of their cell; bootstrap nodes while few are
        known, or some are wanted by name."""
        connected, alive = self.presence.wire.transport.connected(), self.presence.alive(execution_class or None)
        order = self._rotated(sorted(alive, key=self._nearness))
        # Who has heard nobody for a while takes all for dead. Those that it is connected to know better.
        order += self._rotated(sorted(connected - self._roots - alive.keys(), key=self._nearness))
        asked = sorted(order, key=lambda node: (node not in alive, node not in connected))[:SURVEY_NODES]
        self._surveyed_at_s[execution_class] = trio.current_time()
        names = tuple(wanted)
        with trio.move_on_after(PROBE_TIMEOUT_S):
            if names or not execution_class or len(asked) < SURVEY_NODES:
                await self._join_roots()
                asked += sorted(self._roots)
            async with trio.open_nursery() as nursery:
                for node in dict.fromkeys(asked):
                    nursery.start_soon(self.ask, node, execution_class, names, PROBE_TIMEOUT_S)

    def is_fresh(self, execution_class: bytes) -> bool:
        """Whether a class was surveyed within a heartbeat."""
        age_s = trio.current_time() - self._surveyed_at_s.get(execution_class, float("-inf"))
        return age_s * 1000 < HEARTBEAT_INTERVAL_MS

    async def probe(self, nodes: Iterable[NodeId], execution_class: bytes) -> None:
        """Find out which of `nodes` live: where they are is asked of others, and whether they answer of themselves."""
        unseen = [node for node in nodes if node not in self.presence.state.alive()][:PEERS_ASKED_MAX]
        if unseen:
            await self.survey(execution_class, unseen)
            async with trio.open_nursery() as nursery:
                for node in unseen:
                    nursery.start_soon(self.ask, node, execution_class, (), PROBE_TIMEOUT_S)

    # connections ----------------------------------------------------------------------------------------------------

    async def reach(self, nodes: list[NodeId]) -> int:
        """Connect to up to PEERS_WANTED of `nodes` at once; returns to how many of them there is a connection."""
        transport = self.presence.wire.transport
        with trio.move_on_after(PROBE_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for node in nodes[:PEERS_WANTED]:
                    if node not in transport.connected():
                        nursery.start_soon(self.ask, node)
        return len(transport.connected().intersection(nodes))

    async def keep_connected(self) -> None:
        """Look for peers until cancelled."""
        self._recall()
        while True:
            idle_s = trio.current_time() - self._asked_at_s
            interval_s = SPLIT_HEAL_S if self.presence.split.state.troubled else EXCHANGE_INTERVAL_S
            due = idle_s >= self.presence.jittered(interval_s)
            if due or self._missing() or (not self.presence.kept and self._strangers()):
                self._asked_at_s = trio.current_time()
                await self._round(due)
            await trio.sleep(self.presence.jittered(EXCHANGE_SHORT_S if self._kin() else LONELY_S))

    @property
    def roots(self) -> frozenset[NodeId]:
        """The nodes of the bootstrap list that answered."""
        return frozenset(self._roots)

    @property
    def short(self) -> bool:
        """Whether there are fewer connections than half of those wanted, however many nodes are known."""
        return len(self.presence.wire.transport.connected() & self._kin()) < PEERS_WANTED // 2

    def wants(self, node: NodeId) -> bool:
        """Whether a connection to `node` is of use beyond what it was opened for."""
        return node in self._roots or (self.short and node in self._kin())

    def _class(self) -> bytes:
        return self.presence.cell.execution_class if self.presence.cell is not None else b""

    def _kin(self) -> set[NodeId]:
        """Nodes that we want connections to: of our class; of any class for who offers nothing."""
        own = self._class()
        known = {node for node, name in self._candidates.items() if not own or name == own}
        return known | self.presence.alive(own or None).keys()

    def _short(self) -> list[NodeId]:
        """Whom to dial, so that there are enough connections: to nodes of our cell, and in a class of several cells to
        others of it, or the gossip of its market would end where the cell does."""
        connected, kin, cell = self.presence.wire.transport.connected(), self._kin(), self.presence.cell
        parts = [(kin, PEERS_WANTED)]
        if cell is not None and cell.shards > 1:
            mates = {node for node in kin if cell.holds(node)}
            parts = [(mates, PEERS_OF_CELL), (kin - mates, PEERS_WANTED - PEERS_OF_CELL)]
        wanted: list[NodeId] = []
        for nodes, most in parts:
            missing = min(most, len(nodes)) - len(nodes & connected)
            if missing > 0:
                wanted += sorted(nodes - connected, key=self._nearness)[:missing]
        return wanted

    def _lonely(self) -> bool:
        """Whether nobody whom we want a connection to is known."""
        cell, kin = self.presence.cell, self._kin()
        return not any(map(cell.holds, kin)) if cell is not None else not kin

    def _nearness(self, node: NodeId) -> bytes:
        """An order of our own, so that not everybody dials the same nodes."""
        return sha256(self.presence.wire.me + node).digest()

    def _missing(self) -> bool:
        """Whether connections are short, for who has somewhere to begin."""
        return self._dials() and (self._lonely() or bool(self._short()))

    def _dials(self) -> bool:
        return bool(self.presence.bootstrap or self.presence.offer or self.presence.kept)

    def _strangers(self) -> list[NodeId]:
        """Connected nodes of our class that never answered us: they dialled us, and are not kept for our next life."""
        if self.presence.kept is None:
            return []
        kept, near = self.presence.kept, self.presence.wire.transport.connected() & self._kin()
        return sorted(node for node in near if node not in kept)[:PEERS_WANTED]

    def _recall(self) -> None:
        """Dial the peers of earlier lives: at the start, and again when all others have failed."""
        for peer in self.presence.kept.latest() if self.presence.kept is not None else ():
            node = NodeId(peer.node)
            if node != self.presence.wire.me:
                self.presence.wire.transport.learn(node, peer.addresses)
                self._candidates[node] = peer.execution_class

    def _lamps(self) -> set[NodeId]:
        """Bootstrap nodes that offer nothing: whoever has another peer leaves them to others."""
        return {root for root in self._roots if root not in self._candidates}

    async def _round(self, due: bool) -> None:
        """Ask the bootstrap nodes or one peer, dial what is missing, and leave the bootstrap nodes to others. When it
        is `due`, also those of the list that were not reached before: they may know another part of the network."""
        transport, own, troubled = self.presence.wire.transport, self._class(), self.presence.split.state.troubled
        await self._join_roots(every=due)
        asked = sorted(self._roots & transport.connected()) or self._rotated(sorted(transport.connected()))[:1]
        about = own if troubled or self._missing() else b""
        for node in asked:
            await self.ask(node, about)
        if self.presence.split.state.troubled:
            await reach_across(self.presence)
        async with trio.open_nursery() as nursery:
            for node in self._strangers():
                nursery.start_soon(self.ask, node, b"", (), PROBE_TIMEOUT_S)
        if not own and self._dials():
            await self._look_closer()
        if self._dials():
            await self._dial(self._short())
            if len(transport.connected() - self._lamps()) < PEERS_WANTED // 2:
                await self._dial([node for node in self._candidates if node not in transport.connected()])
        if not transport.connected() and not self._candidates:
            self._recall()
        if transport.connected() - self._lamps():
            for lamp in sorted(self._lamps() & transport.connected()):
                await transport.disconnect(lamp)

    async def _look_closer(self) -> None:
        """Who offers nothing asks more of the class that it saw most of."""
        seen = [offer.execution_class for offer in self.presence.alive().values()]
        if len(seen) >= PEERS_WANTED:
            await self.survey(max(sorted(set(seen)), key=seen.count))

    async def _dial(self, nodes: list[NodeId]) -> None:
        own = self._class()
        async with trio.open_nursery() as nursery:
            for node in nodes[:PEERS_WANTED]:
                nursery.start_soon(self.ask, node, own)

    async def _join_roots(self, *, every: bool = False) -> None:
        if not every and self._roots and self._roots <= self.presence.wire.transport.connected():
            return
        async with trio.open_nursery() as nursery:
            for address in self.presence.bootstrap:
                nursery.start_soon(self._join_root, address)

    async def _join_root(self, address: str) -> None:
        try:
            self._roots.add(await self.presence.wire.transport.connect(address))
        except CyxError as error:
            log.warning("bootstrap not reached", address=address, cause=str(error))
