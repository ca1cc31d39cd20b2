"""Making connections: straight to a socket, or through a relay. To one node there is one race at a time: its addresses
are dialled one after another in the order of `dial_order.py`, DIAL_STAGGER_S apart, and the first that answers wins."""

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
from ..protocol.limits import DIAL_STAGGER_S, DIAL_TIMEOUT_S, NAMED_PEERS_MAX
from ..protocol.units import NodeId, base58
from .addresses import AddressBook, PeerAddress
from .circuits import Circuits
from .dial_order import likeliest_first, own_networks, patience_s
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
            await self._race(node)

    async def _race(self, node: NodeId) -> None:
        """The next address begins when one has failed, or DIAL_STAGGER_S after the last. What is learnt of the node
        meanwhile takes part."""
        networks, causes, tried = own_networks(), ["no address is known"], set[PeerAddress]()
        turn, won = trio.Event(), False

        async def attempt(address: PeerAddress) -> None:
            nonlocal won
            try:
                await self._dial(address, within_s=patience_s(address, networks))
            except PeerUnreachable as error:
                causes.append(str(error))
                turn.set()
            else:
                won = True
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            while not links(self._network, node):
                left = [one for one in likeliest_first(self.book.of(node), networks) if one not in tried]
                if left:
                    tried.add(left[0])
                    nursery.start_soon(attempt, left[0])
                elif len(causes) > len(tried):
                    break
                turn = trio.Event()
                with trio.move_on_after(DIAL_STAGGER_S):
                    await turn.wait()
            nursery.cancel_scope.cancel()
        if not (won or links(self._network, node)):
            raise PeerUnreachable(f"{base58(node)} cannot be reached: {causes[-1]}")

    async def _dial(self, address: PeerAddress, *, from_source: bool = False, within_s: float = DIAL_TIMEOUT_S) -> None:
        if address.relay is not None:
            await self._dial_through(address, address.relay)
        elif not (from_source and await self._dialled_from_source(address)):
            await bounded(lambda: self._dial_socket(address), "dial", address.node, within_s)
        self.book.worked(address)

    async def _dial_socket(self, address: PeerAddress, source_port: int = 0) -> None:
        """The library resolves names; but what is cancelled within its handshake leaves a socket open."""
        if _is_ip(address.host):
            await upgrade(self._network, await dial_from(source_port, address.host, address.port), address.node)
        else:
            await self._network.dial_addr(Multiaddr(str(address)), libp2p_id(address.node))

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
        try:
            await bounded(lambda: self._dial_socket(address, self.source_port), "dial", address.node)
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


async def bounded(
    attempt: Callable[[], Awaitable[_T]], what: str, node: NodeId, within_s: float = DIAL_TIMEOUT_S
) -> _T:
    """Run one dialling step of the library within `within_s`; whatever it raises becomes PeerUnreachable."""
    cause: Exception
    try:
        with trio.fail_after(within_s):
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
