"""What peers tell one another of who is there (DESIGN 3): one answers, one asks, and believes what is signed.

The answer to a PeersRequest holds signed capability records and heartbeats, and for how long their authors have been
silent. Whoever is not dead by that lives, if we are to hear of its death; others are only candidates to dial. Whom to
ask and to stay connected to is a matter of `connections.py`; here is also who is asked when somebody has to know now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, RemoteError
from ..protocol.limits import HEARTBEAT_INTERVAL_MS, PEERS_ASKED_MAX, PROBE_TIMEOUT_S, REQUEST_TIMEOUT_S
from ..protocol.messages import Capability, PeersAnswer, PeersRequest
from ..protocol.units import NodeId, base58
from .candidates import Candidates
from .neighbours import nearness
from .peer_answers import packed, whom_to_tell
from .presence import Met
from .wire import PEERS

if TYPE_CHECKING:
    from .presence_service import PresenceService

SURVEY_NODES = 2

log = structlog.get_logger()


@dataclass(slots=True)
class Told:
    """What a peer tells of a node: for how long it has heard nothing of it, and the node's own records."""

    silent_ms: int = 0
    records: list[Signed[msgspec.Struct]] = field(default_factory=list)


@dataclass(slots=True)
class PeerExchange:
    """Of one PresenceService. `candidates` are nodes that we can dial but that are not in our sight."""

    presence: PresenceService
    candidates: Candidates = field(default_factory=Candidates)
    _roots: set[NodeId] = field(default_factory=set)
    _surveyed_at_s: dict[bytes, float] = field(default_factory=dict)

    # answering ------------------------------------------------------------------------------------------------------

    async def answer(self, peer: NodeId, payload: bytes) -> bytes:
        """Whom we know, for a peer that asks."""
        wire, presence = self.presence.wire, self.presence
        asked = open_as(payload, wire.genesis, PeersRequest).message
        said = [wire.opener(raw, wire.genesis) for raw in (asked.capability, asked.heartbeat) if raw]
        if own_word := [record for record in said if record.sender == peer]:
            self._believe(peer, {peer: Told(0, own_word)})
        now_ms = wire.clock.monotonic_ms()
        presence.apply(Met(peer, now_ms))
        told = whom_to_tell(peer, asked, presence.state.members, self.rotated)
        records, silent_ms = packed((presence.fresh_record(), presence.own_heartbeat), told, now_ms)
        return wire.seal(PeersAnswer(records=records, silent_ms=silent_ms))

    def rotated(self, nodes: list[NodeId]) -> list[NodeId]:
        """The same, from any of them on."""
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
            self.candidates.failed(peer)
            log.info("peer exchange failed", peer=base58(peer), cause=str(error))
            return False
        told = self._opened(peer, answer.message)
        self._believe(peer, told)
        self.presence.apply(Met(peer, wire.clock.monotonic_ms()))
        self._keep(peer, told.get(peer))
        known = self.presence.state.members.get(peer)
        self.candidates.answered(peer, offers=peer in told or (known is not None and known.capability is not None))
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
        if (
            node == self.presence.wire.me
            or node in self.candidates
            or node in self._roots | self.presence.alive().keys()
        ):
            return False
        self.presence.wire.transport.learn(node, addresses)
        self.candidates.hinted(node, execution_class)
        return True

    def knows(self, node: NodeId) -> bool:
        """Whether we have been told where `node` can be dialled."""
        return node in self.candidates or node in self.presence.alive()

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
            self.candidates.found(node, offer.execution_class)

    async def survey(self, execution_class: bytes = b"", wanted: Iterable[NodeId] = ()) -> None:
        """Ask who is there now: live nodes of the class, which hear all of their cell; bootstrap nodes while few are
        known, or some are wanted by name."""
        connected, alive = self.presence.wire.transport.connected(), self.presence.alive(execution_class or None)
        order = self.rotated(sorted(alive, key=self.nearness))
        # Who has heard nobody for a while takes all for dead. Those that it is connected to know better.
        order += self.rotated(sorted(connected - self._roots - alive.keys(), key=self.nearness))
        asked = sorted(order, key=lambda node: (node not in alive, node not in connected))[:SURVEY_NODES]
        self._surveyed_at_s[execution_class] = trio.current_time()
        names = tuple(wanted)
        with trio.move_on_after(PROBE_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for node in asked:
                    nursery.start_soon(self.ask, node, execution_class, names, PROBE_TIMEOUT_S)
                if names or not execution_class or len(asked) < SURVEY_NODES:
                    # Beside them: a bootstrap node that is gone must not cost the answers of those that live.
                    await self.join_roots()
                    for root in sorted(self._roots.difference(asked)):
                        nursery.start_soon(self.ask, root, execution_class, names, PROBE_TIMEOUT_S)

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

    def nearness(self, node: NodeId) -> bytes:
        """Our own order of nodes."""
        return nearness(self.presence.wire.me, node)

    # bootstrap nodes ------------------------------------------------------------------------------------------------

    @property
    def roots(self) -> frozenset[NodeId]:
        """The nodes of the bootstrap list that answered."""
        return frozenset(self._roots)

    @property
    def lamps(self) -> frozenset[NodeId]:
        """Bootstrap nodes that offer nothing: whoever has another peer leaves them to others."""
        return frozenset(root for root in self._roots if root not in self.candidates)

    async def join_roots(self, *, every: bool = False) -> None:
        """Connect to the bootstrap list, unless all who ever answered are connected; if `every`, even then."""
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
