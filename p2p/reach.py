"""Keeps a node reachable: has peers call it back, reserves with relays while they cannot, and makes relayed connections
direct. What is decided is decided in `reachability.py`; here it is asked, and acted upon.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import structlog
import trio
from libp2p.network.swarm import Swarm

from ..protocol.errors import CyxError
from ..protocol.limits import (
    ADDRESS_MAX_CHARS,
    PEERS_KNOWN_MAX,
    REACH_ANSWERS_WANTED,
    REACH_ASKED_MAX,
    REACH_CHECK_S,
    REACH_REFUSED_S,
    REACH_SOON_S,
    RELAY_RENEW_SHARE,
    RELAY_RESERVATION_S,
    RELAY_RETRY_S,
    RELAYS_TRIED_MAX,
    RELAYS_WANTED,
)
from ..protocol.units import NodeId, base58
from .addresses import PeerAddress, parse_address
from .circuit_wire import HOP
from .circuits import Circuits
from .dial_back import DIAL_BACK, Ask, ask_to_call
from .dialling import Dialler
from .host import node_of
from .links import has_direct, links, remote_of
from .reach_figures import ReachReport
from .reachability import Answer, Reachability, Verdict, heard, is_public
from .upgrade import Places

_log = structlog.get_logger()
_CONNECTED_POLL_S = 0.5
_TICK_S = 1.0


class Reach:
    """Of one transport. `direct` tells its own addresses, `speaks` whether a connected peer says that it serves a
    protocol; `is_relay` nodes are well-known and answer everybody."""

    def __init__(
        self,
        dialler: Dialler,
        circuits: Circuits,
        network: Swarm,
        ask: Ask,
        direct: Callable[[], tuple[str, ...]],
        speaks: Callable[[NodeId, str], bool],
        *,
        is_relay: bool,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._dialler, self._circuits, self._network = dialler, circuits, network
        self._ask, self._direct, self._speaks, self._is_relay = ask, direct, speaks, is_relay
        self._jitter = jitter
        self._known = Reachability()
        self._refused_until_s: dict[NodeId, float] = {}
        self._relays: dict[NodeId, PeerAddress] = {}
        self._tried_at_s: dict[NodeId, float] = {}
        self._told = ReachReport()
        self.changed = trio.Event()
        """Set, and replaced by a new one, when `report` has changed."""

    def willing(self) -> bool:
        """Whether we call others back."""
        return self._is_relay or self._known.leaning() is Verdict.REACHABLE

    @property
    def report(self) -> ReachReport:
        """How we can be reached, now."""
        known = self._known
        relays = tuple(sorted(node for node in self._relays if self._holds(node)))
        mapping = known.mapping(frozenset(one.host for one in self._parsed()))
        return ReachReport(known.verdict, known.leaning(), mapping, relays, known.seen_as())

    def circuit_addresses(self) -> tuple[str, ...]:
        """Where we can be dialled through relays."""
        me = self._dialler.me
        found = [str(at.through(me)) for node, at in self._relays.items() if self._holds(node)]
        return tuple(text for text in found if len(text) <= ADDRESS_MAX_CHARS)

    def is_held(self, node: NodeId) -> bool:
        """Whether the connection with `node` must stand for others to reach us."""
        return node in self._relays and self._holds(node)

    def places(self) -> Places:
        """Where a peer that talks to us through a relay may meet us."""
        known, parsed = self._known, self._parsed()
        opened: list[tuple[str, int]] = []
        if known.leaning() is Verdict.REACHABLE:
            opened = [(host, one.port) for host in known.seen_as() for one in parsed]
        opened += [(one.host, one.port) for one in parsed if is_public(one.host)]
        punched = [(one.host, one.port) for one in known.counted() if one.same_source]
        told = known.leaning() is not Verdict.UNKNOWN
        return Places(tuple(dict.fromkeys(opened)), tuple(dict.fromkeys(punched)), self._dialler.source_port, told)

    async def run(self) -> None:
        """Check, reserve and renew until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_checking)
            nursery.start_soon(self._keep_relays)

    # checking -------------------------------------------------------------------------------------------------------

    async def _keep_checking(self) -> None:
        while True:
            while not self._askable():  # noqa: ASYNC110 -- the library has no event for it
                await trio.sleep(_CONNECTED_POLL_S)
            await self._check()
            pause_s = REACH_CHECK_S if self._known.settled() else REACH_SOON_S
            await trio.sleep(pause_s * (0.9 + 0.2 * self._jitter()))

    def _askable(self) -> list[NodeId]:
        """Whom we may ask now: those that a person named first, others by chance."""
        now_s = trio.current_time()
        peers = [node for peer in list(self._network.connections) if (node := node_of(peer)) is not None]
        able = [
            node
            for node in peers
            if now_s >= self._refused_until_s.get(node, 0.0)
            and has_direct(self._network, node)
            and (node in self._dialler.named or self._speaks(node, DIAL_BACK))
        ]
        return sorted(able, key=lambda node: (node not in self._dialler.named, self._jitter()))

    async def _check(self) -> None:
        """One round: REACH_ASKED_MAX peers that answer, of those that we are connected with."""
        answers: list[Answer] = []

        async def ask(node: NodeId, address: PeerAddress | None = None) -> None:
            if (answer := await self._asked(node, address)) is not None:
                answers.append(answer)

        able, now_s = self._askable(), trio.current_time()
        async with trio.open_nursery() as nursery:
            for node in able[:REACH_ASKED_MAX]:
                nursery.start_soon(ask, node)
        rested = [node for node in self._dialler.named if node not in able]
        rested = [node for node in rested if now_s >= self._refused_until_s.get(node, 0.0)]
        async with trio.open_nursery() as nursery:
            for node in rested[: max(0, REACH_ANSWERS_WANTED - len(answers))]:
                nursery.start_soon(ask, node, self._dialler.named[node])
        self._known = heard(self._known, answers, trio.current_time())
        self._tell()

    async def _asked(self, node: NodeId, address: PeerAddress | None = None) -> Answer | None:
        """What one peer finds, which is dialled first when it is not connected; None when it does not say."""
        ports = tuple(dict.fromkeys(one.port for one in self._parsed()))
        try:
            if address is not None:
                await self._dialler.connect(address, named=True)
            called = await ask_to_call(self._ask, node, ports)
        except CyxError as error:
            _log.debug("not_called_back", peer=base58(node), cause=str(error))
            self._refuse(node)
            return None
        same = node in self._dialler.from_source
        return Answer(node, called.host, called.port, bool(called.reached), trio.current_time(), same)

    def _refuse(self, node: NodeId) -> None:
        self._refused_until_s[node] = trio.current_time() + REACH_REFUSED_S
        if len(self._refused_until_s) > PEERS_KNOWN_MAX:
            del self._refused_until_s[next(iter(self._refused_until_s))]

    def _tell(self) -> None:
        report = self.report
        if report != self._told:
            self._told = report
            _log.info(
                "reachability",
                verdict=report.verdict.value,
                leaning=report.leaning.value,
                mapping=report.mapping.value,
                relays=len(report.relays),
                seen_as=report.seen_as,
            )
            self.changed.set()
            self.changed = trio.Event()

    def _parsed(self) -> list[PeerAddress]:
        return [parse_address(text) for text in self._direct()]

    # relays ---------------------------------------------------------------------------------------------------------

    def _holds(self, node: NodeId) -> bool:
        return self._circuits.holds(node) and has_direct(self._network, node)

    async def _keep_relays(self) -> None:
        while True:
            if not self._is_relay and self._needs_relays():
                await self._reserve()
            elif self._relays and self._known.verdict is Verdict.REACHABLE:
                for node in list(self._relays):
                    self._release(node)
                self._tell()
            await trio.sleep(_TICK_S)

    def _needs_relays(self) -> bool:
        """Whether the world cannot dial us, or will not be able to: a call back that no router lets in takes its whole
        time limit to fail, and until then nobody could reach us."""
        leaning = self._known.leaning()
        return leaning is Verdict.UNREACHABLE or (leaning is Verdict.UNKNOWN and self._is_inside())

    def _is_inside(self) -> bool:
        """Whether we have private addresses alone, and yet talk with a well-known node of the internet."""
        near = (link for node in self._dialler.named for link in links(self._network, node))
        seen = (remote_of(link) for link in near)
        public = any(remote is not None and is_public(remote[0]) for remote in seen)
        return public and not any(is_public(one.host) for one in self._parsed())

    async def _reserve(self) -> None:
        """Renew what is due, and look for relays while they are short."""
        now_s = trio.current_time()
        for node in list(self._relays):
            due = now_s - self._tried_at_s.get(node, 0.0) > RELAY_RENEW_SHARE * RELAY_RESERVATION_S
            if not self._holds(node) or due:
                address = self._relays[node]
                if not await self._reserved(node, address):
                    self._release(node)
                    self._tell()
        for node, address in self._candidates():
            if len(self._relays) >= RELAYS_WANTED:
                break
            if trio.current_time() - self._tried_at_s.get(node, float("-inf")) >= RELAY_RETRY_S:
                await self._reserved(node, address)

    def _candidates(self) -> list[tuple[NodeId, PeerAddress]]:
        """Relays that we could ask: named nodes, and connected ones that say they relay."""
        found = {node: at for node, at in self._dialler.named.items() if at.relay is None}
        for peer in list(self._network.connections):
            node = node_of(peer)
            if node is not None and node not in found and has_direct(self._network, node) and self._speaks(node, HOP):
                direct = [at for at in self._dialler.book.of(node) if at.relay is None]
                if direct:
                    found[node] = direct[0]
        left = [(node, at) for node, at in found.items() if node not in self._relays and node != self._dialler.me]
        return left[:RELAYS_TRIED_MAX]

    async def _reserved(self, node: NodeId, address: PeerAddress) -> bool:
        self._tried_at_s[node] = trio.current_time()
        while len(self._tried_at_s) > PEERS_KNOWN_MAX:
            del self._tried_at_s[next(iter(self._tried_at_s))]
        try:
            if not has_direct(self._network, node):
                self._circuits.drop(node)
                await self._dialler.connect(address, named=node in self._dialler.named)
            await self._circuits.reserve(node)
        except CyxError as error:
            _log.info("relay_not_reserved", peer=base58(node), cause=str(error))
            return False
        if node not in self._relays:
            self._relays[node] = address
            self._tell()
        return True

    def _release(self, node: NodeId) -> None:
        del self._relays[node]
        self._circuits.drop(node)
