"""From a relayed connection to a direct one.

The side that was called through the relay (it is the one that cannot be dialled) speaks first, over the relayed
connection: where it is seen, and from which port its hole can be punched. The caller answers with its own addresses,
and whether it can be reached at them. If so, the called side just dials it. If not, both dial each other at once from
the ports that they named: two NATs that keep one port for all peers (endpoint-independent) let both in. The relayed
connection ends when no stream of ours is on it any more, or after UPGRADE_LINGER_S.

A peer may name any address here, as it may wherever it tells where it is: at most UPGRADE_ADDRESSES_MAX of them are
called, for seconds, and a peer may ask seldom (STREAMS_PER_PEER).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import structlog
import trio
from libp2p.network.swarm import Swarm
from msgspec import Meta
from multiaddr import Multiaddr

from ..protocol import codec
from ..protocol.errors import CyxError, PeerUnreachable, Refusal, RemoteError
from ..protocol.limits import (
    UPGRADE_ADDRESSES_MAX,
    UPGRADE_CROSS_S,
    UPGRADE_DIAL_S,
    UPGRADE_LINGER_S,
    UPGRADE_MAX_BYTES,
    UPGRADE_RETRY_FIRST_S,
    UPGRADE_RETRY_S,
    UPGRADE_TIMEOUT_S,
    UPGRADE_TRIES_MAX,
    UPGRADES_MAX,
)
from ..protocol.units import NodeId, base58
from .addresses import PeerAddress
from .dial_back import Ask
from .host import libp2p_id
from .links import has_direct, is_relayed, links
from .sourced_dial import dial_from, upgrade

UPGRADE = "/cyx/1/upgrade"
_Socket = Annotated[str, Meta(max_length=52)]
_Sockets = Annotated[tuple[_Socket, ...], Meta(max_length=UPGRADE_ADDRESSES_MAX)]
_log = structlog.get_logger()


class Meet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where we can be met, as HOST:PORT: `open` when anybody may dial there, `punched` when only a call that crosses
    ours gets in. `now` says that both call at once, at this message."""

    open: _Sockets
    punched: _Sockets
    now: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Our own, as far as we know them. `source_port` is where calls that punch a hole leave from; `known` is whether
    anybody has told us yet how it sees us."""

    open: tuple[tuple[str, int], ...] = ()
    punched: tuple[tuple[str, int], ...] = ()
    source_port: int = 0
    known: bool = True


class Upgrade:
    """The attempts of one node. `places` tells our own places, `busy` how many of our streams are on a connection."""

    def __init__(self, network: Swarm, ask: Ask, places: Callable[[], Places], busy: Callable[[Any], int]) -> None:
        self._network, self._ask, self._places, self._busy = network, ask, places, busy
        self._under_way: set[NodeId] = set()
        self._crossing: set[NodeId] = set()
        self.done = 0
        """How many relayed connections became direct."""
        self.failed = 0

    async def run(self, peer: NodeId) -> None:
        """`peer` has called us through a relay: try to become direct, UPGRADE_TRIES_MAX times."""
        if peer in self._under_way or len(self._under_way) >= UPGRADES_MAX:
            return
        self._under_way.add(peer)
        try:
            await self._until_known()
            for number in range(UPGRADE_TRIES_MAX):
                with trio.move_on_after(UPGRADE_TIMEOUT_S):
                    await self._try(peer)
                if has_direct(self._network, peer) or not links(self._network, peer):
                    break
                await trio.sleep(UPGRADE_RETRY_S if number else UPGRADE_RETRY_FIRST_S)
        finally:
            self._under_way.discard(peer)
        self.done += has_direct(self._network, peer)
        self.failed += not has_direct(self._network, peer)
        await self.retire(peer)

    async def _until_known(self) -> None:
        """We take places at relays before we know where we are seen: who calls so soon waits, within reason."""
        with trio.move_on_after(UPGRADE_TIMEOUT_S):
            while not self._places().known:  # noqa: ASYNC110 -- a few times in the life of a node
                await trio.sleep(UPGRADE_CROSS_S)

    async def retire(self, peer: NodeId) -> None:
        """End the relayed connections beside a direct one, once our streams are off them."""
        with trio.move_on_after(UPGRADE_LINGER_S):
            while has_direct(self._network, peer) and any(map(self._busy, self._relayed(peer))):  # noqa: ASYNC110
                await trio.sleep(1.0)
        if has_direct(self._network, peer):
            for link in self._relayed(peer):
                _log.info("relayed_connection_retired", peer=base58(peer))
                await link.close()

    async def answer(self, peer: NodeId, payload: bytes) -> bytes:
        """The caller's side: say where we are; at `now`, call across the other's call."""
        try:
            met = codec.decode(payload, Meet, max_bytes=UPGRADE_MAX_BYTES)
        except RemoteError as error:
            raise Refusal(str(error), peer=peer) from None
        if not self._relayed(peer):
            raise Refusal("there is no relayed connection between us", peer=peer)
        mine = self._places()
        if met.now and mine.source_port and len(self._crossing) < UPGRADES_MAX and peer not in self._crossing:
            self._crossing.add(peer)
            try:
                await self._cross(peer, met.punched, mine.source_port, initiator=True)
            finally:
                self._crossing.discard(peer)
        return codec.encode(_meet(mine))

    async def _try(self, peer: NodeId) -> None:
        mine = self._places()
        try:
            raw = await self._ask(peer, UPGRADE, codec.encode(_meet(mine)), UPGRADE_DIAL_S)
            theirs = codec.decode(raw, Meet, max_bytes=UPGRADE_MAX_BYTES)
            for host, port in _sockets(theirs.open):
                if await self._dial(peer, host, port):
                    return
            if not theirs.punched or not mine.punched or not mine.source_port:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_now, peer, mine)
                await self._cross(peer, theirs.punched, mine.source_port, initiator=False)
        except CyxError as error:
            _log.info("not_made_direct", peer=base58(peer), cause=str(error))

    async def _tell_now(self, peer: NodeId, mine: Places) -> None:
        try:
            await self._ask(peer, UPGRADE, codec.encode(_meet(mine, now=True)), 2 * UPGRADE_DIAL_S)
        except CyxError as error:
            _log.info("hole_not_punched", peer=base58(peer), cause=str(error))

    async def _dial(self, peer: NodeId, host: str, port: int) -> bool:
        """A plain call to a peer that says it can be reached."""
        try:
            with trio.fail_after(UPGRADE_DIAL_S):
                await upgrade(self._network, await dial_from(0, host, port), peer)
        except Exception as error:
            # The library raises a dozen types here; the relayed connection stays.
            _log.info("not_dialled_direct", peer=base58(peer), host=host, cause=repr(error)[:200])
            return False
        return True

    async def _cross(self, peer: NodeId, places: Sequence[str], source_port: int, *, initiator: bool) -> None:
        """Call until the calls cross. Who was told `now` is the client of the handshake, as with DCUtR."""
        with trio.move_on_after(2 * UPGRADE_DIAL_S):
            for host, port in _sockets(places):
                while not has_direct(self._network, peer):
                    try:
                        raw = await dial_from(source_port, host, port, initiator=initiator)
                        await self._upgraded(raw, peer, host, port, initiator)
                        return
                    except Exception as error:
                        # Refused while the other's call is not out yet: the next one may cross it.
                        _log.debug("call_not_crossed", peer=base58(peer), cause=repr(error)[:200])
                        await trio.sleep(UPGRADE_CROSS_S)

    async def _upgraded(self, raw: Any, peer: NodeId, host: str, port: int, initiator: bool) -> None:
        if initiator:
            await upgrade(self._network, raw, peer)
            return
        where = PeerAddress("ip6" if ":" in host else "ip4", host, port, peer)
        connection = await self._network.upgrade_inbound_raw_conn(raw, Multiaddr(str(where)))
        if connection.peer_id != libp2p_id(peer):
            await connection.close()
            raise PeerUnreachable("somebody else called")

    def _relayed(self, peer: NodeId) -> list[Any]:
        return [link for link in links(self._network, peer) if is_relayed(link)]


def _meet(mine: Places, *, now: bool = False) -> Meet:
    def shown(places: tuple[tuple[str, int], ...]) -> tuple[str, ...]:
        return tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in places)

    return Meet(
        open=shown(mine.open[:UPGRADE_ADDRESSES_MAX]), punched=shown(mine.punched[:UPGRADE_ADDRESSES_MAX]), now=now
    )


def _sockets(texts: Sequence[str]) -> list[tuple[str, int]]:
    """The sockets that a peer names, IP addresses only; what is none, or may be no host of anybody, is passed over."""
    found = []
    for text in texts:
        host, _, port = text.rpartition(":")
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            continue
        if (
            port.isascii()
            and port.isdigit()
            and 0 < int(port) < 65536
            and not (address.is_multicast or address.is_unspecified or address.is_reserved)
        ):
            found.append((str(address), int(port)))
    return found
