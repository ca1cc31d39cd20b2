"""The routing table: the library's buckets, with only those in it who have shown that they serve.

The library enters everybody that any answer names, and everybody that asks something; and before it drops somebody
from a full bucket it dials and pings him while the bucket is locked. Here who is entered has a connection to us and
said, or showed by an answer, that it serves our DHT; and a place in a full bucket is kept by who is connected or
answered lately.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from libp2p.kad_dht.routing_table import KBucket, RoutingTable
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from ...protocol.limits import DHT_SUBNET_BUCKET_MAX, DHT_SUBNET_TABLE_MAX, DHT_TABLE_MAX
from ...protocol.units import NodeId
from ..host import libp2p_id, node_of

Keeps = Callable[[NodeId], bool]


class Bucket(KBucket):
    """`keeps` tells whether a peer keeps its place without being asked."""

    def __init__(self, host: Any, size: int, low: int, high: int, keeps: Keeps) -> None:
        super().__init__(host, size, low, high, DHT_SUBNET_BUCKET_MAX)
        self._keeps = keeps

    async def _ping_peer(self, peer_id: ID) -> bool:
        node = node_of(peer_id)
        return node is not None and self._keeps(node)

    def split(self) -> tuple[KBucket, KBucket]:
        """Two buckets of half the range each."""
        lower, upper = super().split()
        return self._like(lower), self._like(upper)

    def _like(self, plain: KBucket) -> Bucket:
        bucket = Bucket(self.host, self.bucket_size, plain.min_range, plain.max_range, self._keeps)
        bucket.peers = plain.peers
        return bucket


class Table(RoutingTable):
    """`serves` says whether a connected peer serves our DHT, `host_of` from which IP address it is connected."""

    def __init__(
        self, host: Any, size: int, *, keeps: Keeps, serves: Keeps, remote_host: Callable[[NodeId], str]
    ) -> None:
        super().__init__(
            host.get_id(),
            host,
            max_peers_per_subnet=DHT_SUBNET_BUCKET_MAX,
            max_peers_per_subnet_table=DHT_SUBNET_TABLE_MAX,
        )
        self.bucket_size, self._serves, self._remote_host = size, serves, remote_host
        self.buckets = [Bucket(host, size, 0, 2**256, keeps)]

    async def add_peer(self, peer_obj: PeerInfo | ID, *, skip_server_mode_check: bool = False) -> bool:
        """The library's way in: what it thinks of a peer does not count."""
        node = node_of(peer_obj.peer_id if isinstance(peer_obj, PeerInfo) else peer_obj)
        return node is not None and self._serves(node) and await self.admit(node)

    async def admit(self, node: NodeId) -> bool:
        """Enter a connected peer that serves; False when there is no place for it. For the bounds of subnets counts
        where it is connected from, not what it says."""
        peer = libp2p_id(node)
        if self.size() >= DHT_TABLE_MAX and not self.peer_in_table(peer):
            return False
        return await super().add_peer(PeerInfo(peer, [_address(self._remote_host(node))]), skip_server_mode_check=True)

    def drop(self, node: NodeId) -> None:
        """Forget a peer that does not answer."""
        self.remove_peer(libp2p_id(node))

    def holds(self, node: NodeId) -> bool:
        """Whether a peer is in it."""
        return self.peer_in_table(libp2p_id(node))

    def nodes(self) -> list[NodeId]:
        """All in it."""
        return [node for peer in self.get_peer_ids() if (node := node_of(peer)) is not None]

    def find_local_closest_peers(self, key: bytes, count: int = 20) -> list[ID]:
        """At most a bucket full."""
        return super().find_local_closest_peers(key, min(count, self.bucket_size))


def _address(host: str) -> Multiaddr:
    ip = host.partition("/")[0] or "0.0.0.0"
    return Multiaddr(f"/{'ip6' if ':' in ip else 'ip4'}/{ip}/tcp/1" if ip != "unknown" else "/ip4/0.0.0.0/tcp/1")
