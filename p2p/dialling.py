"""Making connections: straight to a socket, or through a relay; one attempt to a node at a time."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
import trio
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr

from ..protocol.errors import PeerUnreachable
from ..protocol.limits import DIAL_TIMEOUT_S, NAMED_PEERS_MAX
from ..protocol.units import NodeId, base58
from .addresses import AddressBook, PeerAddress
from .circuits import Circuits
from .host import libp2p_id
from .links import has_direct, links
from .sourced_dial import SourceTaken, dial_from, free_port, upgrade

_T = TypeVar("_T")
_log = structlog.get_logger()


class Dialler:
    """The outbound connections of one network. `named` are the nodes whose addresses a person gave, `from_source` those
    of them that were dialled from `source_port`, so that what they see of it can be compared."""

    def __init__(self, network: Swarm, circuits: Circuits, me: NodeId) -> None:
        self._network, self._circuits, self.me = network, circuits, me
        self.book = AddressBook()
        self.named: OrderedDict[NodeId, PeerAddress] = OrderedDict()
        self.source_port = free_port()
        self.from_source: set[NodeId] = set()
        self._under_way: dict[NodeId, trio.Lock] = {}

    async def connect(self, target: PeerAddress, *, named: bool = False) -> None:
        """Dial an address, unless its node is connected already. PeerUnreachable when nobody answers."""
        async with self._turn(target.node):
            if not links(self._network, target.node):
                await self._dial(target, from_source=named)
        if named:
            self.named[target.node] = target
            while len(self.named) > NAMED_PEERS_MAX:
                self.from_source.discard(self.named.popitem(last=False)[0])

    async def reach(self, node: NodeId) -> None:
        """Connect with a node at any of the addresses that are known of it."""
        async with self._turn(node):
            if links(self._network, node):
                return
            known = self.book.of(node)
            causes = ["no address is known"] if not known else []
            for address in known:
                try:
                    return await self._dial(address)
                except PeerUnreachable as error:
                    causes.append(str(error))
        raise PeerUnreachable(f"{base58(node)} cannot be reached: {causes[-1]}")

    async def _dial(self, address: PeerAddress, *, from_source: bool = False) -> None:
        if address.relay is not None:
            await self._dial_through(address, address.relay)
        elif not (from_source and await self._dialled_from_source(address)):
            target = Multiaddr(str(address))
            await bounded(lambda: self._network.dial_addr(target, libp2p_id(address.node)), "dial", address.node)
        self.book.worked(address)

    async def _dial_through(self, address: PeerAddress, relay: NodeId) -> None:
        if self.me in (relay, address.node):
            raise PeerUnreachable("the address leads through this node itself")
        if not has_direct(self._network, relay):
            await self.connect(address.first_hop())
        await bounded(lambda: self._circuits.dial(relay, address.node), "dial through a relay", address.node)

    async def _dialled_from_source(self, address: PeerAddress) -> bool:
        """Whether the node could be dialled from the one port; a host with a name is left to the library."""
        self.from_source.discard(address.node)
        if not self.source_port or not _is_ip(address.host):
            return False

        async def dial() -> None:
            raw = await dial_from(self.source_port, address.host, address.port)
            await upgrade(self._network, raw, address.node)

        try:
            await bounded(dial, "dial", address.node)
        except PeerUnreachable as error:
            if not isinstance(error.__cause__, SourceTaken):
                raise
            _log.debug("not_dialled_from_source", peer=base58(address.node), cause=str(error))
            return False
        self.from_source.add(address.node)
        return True

    @asynccontextmanager
    async def _turn(self, node: NodeId) -> AsyncIterator[None]:
        lock = self._under_way.setdefault(node, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._under_way.pop(node, None)


async def bounded(attempt: Callable[[], Awaitable[_T]], what: str, node: NodeId) -> _T:
    """Run one dialling step of the library within DIAL_TIMEOUT_S; whatever it raises becomes PeerUnreachable."""
    cause: Exception
    try:
        with trio.fail_after(DIAL_TIMEOUT_S):
            return await attempt()
    except Exception as error:
        # The library raises a dozen types here, and groups of them.
        cause = error
    raise PeerUnreachable(f"could not {what} {base58(node)}: {cause!r}"[:300]) from cause


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
