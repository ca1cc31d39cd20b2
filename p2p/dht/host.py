"""What the library's DHT sees in place of the host: names of ours for its protocol, addresses that we believe, and no
way to dial, to store addresses or to sign anything behind our back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import trio
from libp2p.kad_dht.common import PROTOCOL_ID
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from ..host import libp2p_id, node_of
from ..raw_streams import RawStreams
from .providers import Providers


class _Unsigned:
    """Stands for our own signed address record, which nobody here needs: the connection proves who we are."""

    def __init__(self, addresses: Sequence[Multiaddr]) -> None:
        self._addresses = set(addresses)

    def _env_addrs_set(self) -> set[Multiaddr]:
        return self._addresses

    def marshal_envelope(self) -> bytes:
        """No bytes."""
        return b""


class DhtHost:
    """Just as much of a host as the handlers of the library's DHT use; it asks nobody anything."""

    def __init__(self, raw: RawStreams, protocol: str) -> None:
        self._raw, self._protocol = raw, protocol

    def get_id(self) -> ID:
        """Our name."""
        return libp2p_id(self._raw.node_id)

    def get_addrs(self) -> list[Multiaddr]:
        """Our addresses."""
        return [Multiaddr(address) for address in self._raw.addresses()]

    def get_connected_peers(self) -> list[ID]:
        """Peers with a live connection."""
        return [libp2p_id(node) for node in self._raw.connected()]

    def get_peerstore(self) -> DhtHost:
        """This object is its own peer store."""
        return self

    def addrs(self, peer: ID) -> list[Multiaddr]:
        """Where a peer can be dialled, without its name at the end."""
        node = node_of(peer)
        known = () if node is None else self._raw.known(node)
        return [Multiaddr(f"/{one.network}/{one.host}/tcp/{one.port}") for one in known]

    def get_protocols(self, peer: ID) -> list[str]:
        """The library's name of the DHT, for who serves ours."""
        node = node_of(peer)
        return [str(PROTOCOL_ID)] if node is not None and self._raw.speaks(node, self._protocol) else []

    def get_peer_record(self, peer: ID) -> None:
        """Signed address records are neither kept nor passed on."""

    def get_local_record(self) -> _Unsigned:
        """See _Unsigned."""
        return _Unsigned(self.get_addrs())

    def set_stream_handler(self, protocol: str, handler: Any) -> None:
        """Our gate calls the handler."""


class ProviderStore:
    """The two methods by which the library's handler uses its provider store."""

    def __init__(self, providers: Providers, raw: RawStreams) -> None:
        self._providers, self._raw = providers, raw

    def add_provider(self, key: bytes, provider: PeerInfo) -> None:
        """Enter whom the gate has judged to speak for itself."""
        node = node_of(provider.peer_id)
        if node is not None:
            addresses = tuple(map(str, provider.addrs))
            self._providers.add(key, node, addresses, self._raw.remote_host(node), trio.current_time())

    def get_providers(self, key: bytes) -> list[PeerInfo]:
        """As the library names peers."""
        found = self._providers.of(key, trio.current_time())
        return [PeerInfo(libp2p_id(node), [Multiaddr(text) for text in addresses]) for node, addresses in found.items()]
