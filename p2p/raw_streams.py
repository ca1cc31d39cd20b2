"""What the library's own services need of a transport: streams that are not framed as ours are, and what is known of a
peer. They go through the same dialling, bans and deny list as everything else.
"""

from __future__ import annotations

from . import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, cast

from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import NetStream
from multiaddr import Multiaddr

from ..protocol.limits import ADDRESS_MAX_CHARS, ADDRESSES_MAX
from ..protocol.units import NodeId
from .addresses import PeerAddress, parse_address
from .doors import host_of, is_own_machine
from .host import libp2p_id, node_of
from .links import links, remote_of
from .peer_id import peer_id_text
from .reachability import Verdict

if TYPE_CHECKING:
    from .transport import Libp2pTransport

RawHandler = Callable[[NodeId, NetStream], Awaitable[None]]


class RawStreams:
    """Of one transport."""

    def __init__(self, transport: Libp2pTransport) -> None:
        self._transport = transport
        self._host, self._network, self._book = transport._host, transport._network, transport._dialler.book

    @property
    def node_id(self) -> NodeId:
        """Our key."""
        return self._transport.node_id

    @property
    def unreachable(self) -> bool:
        """Whether it is known that others cannot dial us."""
        return self._transport.reach_report.verdict is Verdict.UNREACHABLE

    def connected(self) -> frozenset[NodeId]:
        """Peers with a live connection."""
        return self._transport.connected()

    def addresses(self) -> tuple[str, ...]:
        """Where peers can dial us, as many as they take."""
        return self._transport.addresses()[:ADDRESSES_MAX]

    def accept(self, protocol: str, handler: RawHandler) -> None:
        """Give the streams of `protocol` to `handler`, until `refuse`; peers that are refused here get none."""

        async def accepted(stream: INetStream) -> None:
            peer = node_of(stream.muxed_conn.peer_id)
            if peer is None or self._transport._refuses(peer):
                await stream.reset()
                return
            await handler(peer, cast(NetStream, stream))

        self._host.set_stream_handler(TProtocol(protocol), accepted)

    def refuse(self, protocol: str) -> None:
        """Serve `protocol` no more."""
        self._host.remove_stream_handler(TProtocol(protocol))

    async def open(self, node: NodeId, protocol: str) -> NetStream:
        """A stream to `node`, which is dialled when needed. PeerUnreachable."""
        return await self._transport.open_raw(node, protocol)

    async def disconnect(self, node: NodeId) -> None:
        """Close all connections to `node`."""
        await self._transport.disconnect(node)

    def ban(self, node: NodeId) -> None:
        """As for bad gossip."""
        self._transport.ban(node)

    def busy(self, node: NodeId) -> bool:
        """Whether a stream of ours to or from `node` is open."""
        return any(self._transport._streams.on(link) for link in links(self._network, node))

    def learn(self, node: NodeId, addresses: Sequence[str]) -> None:
        """Remember where `node` can be dialled."""
        self._transport.learn(node, addresses)

    def known(self, node: NodeId) -> tuple[PeerAddress, ...]:
        """Where `node` can be dialled; of a connected one also what it says of itself."""
        known = self._book.of(node)
        if known or node not in self.connected():
            return known
        with suppress(Exception):  # the library raises when it knows nothing
            told = islice(self._host.get_peerstore().addrs(libp2p_id(node)), 2 * ADDRESSES_MAX)
            self._book.learn(node, [with_peer(str(address), node) for address in told])
        return self._book.of(node)

    def speaks(self, node: NodeId, protocol: str) -> bool:
        """Whether a peer said when it connected that it serves `protocol`."""
        with suppress(Exception):  # the library raises when it knows nothing
            return protocol in self._host.get_peerstore().get_protocols(libp2p_id(node))
        return False

    def remote_host(self, node: NodeId) -> str:
        """The IP address (an IPv6 /64) from which `node` is connected; empty when it is not."""
        seen = (remote_of(link) for link in links(self._network, node))
        return next((host_of(remote) for remote in seen if remote is not None), "")


def with_peer(address: str, node: NodeId) -> str:
    """A multiaddr that ends in its peer's id."""
    return address if "/p2p/" in address else f"{address}/p2p/{peer_id_text(node)}"


def in_text(raws: Iterable[bytes]) -> list[str]:
    """A stranger's binary multiaddrs as texts, without what is none; 2 * ADDRESSES_MAX are looked at."""
    texts: list[str] = []
    for raw in islice(raws, 2 * ADDRESSES_MAX):
        with suppress(Exception):  # the library has a dozen ways to refuse them
            texts += [str(Multiaddr(raw))] if len(raw) <= ADDRESS_MAX_CHARS else []
    return texts


def believed(addresses: Sequence[str], node: NodeId, told_from: str) -> tuple[str, ...]:
    """Which of the addresses that a peer tells of another one are worth dialling: well-formed ones of that node, and no
    private ones when the teller (`told_from`: its host) is not private itself, since it cannot know ours."""
    fit: list[str] = []
    for text in addresses[: 2 * ADDRESSES_MAX]:
        with suppress(Exception):
            address = parse_address(with_peer(text, node))
            if address.node == node and (is_private(told_from) or not is_private(address.host)):
                fit.append(str(address))
    return tuple(dict.fromkeys(fit))[:ADDRESSES_MAX]


def is_private(host: str) -> bool:
    """Whether an IP address (or the /64 of one) is not for the internet; a name is none."""
    try:
        return ipaddress.ip_address(host.partition("/")[0]).is_private
    except ValueError:
        return False


def is_loopback(address: str) -> bool:
    """Whether a multiaddr (/ip4/HOST/…) means the machine on which it is dialled."""
    return is_own_machine(address.split("/")[2])
