"""What the library remembers of peers: bounded, for it forgets nobody by itself.

Its peerstore keeps keys, protocols, addresses and signed records of whoever has ever been connected. Those that are not
connected make room, the ones known for longest first, beyond PEERS_REMEMBERED_MAX; our own entry, and the connected
ones, stay. Where a node dials, it says so itself (see addresses.py).
"""

from __future__ import annotations

from collections.abc import Container

from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore

from ..protocol.limits import PEERS_REMEMBERED_MAX


class PeerTable(PeerStore):
    """The peerstore of a network."""

    def __init__(self, own: ID, pair: KeyPair) -> None:
        super().__init__()
        self._own = own
        self.add_key_pair(own, pair)

    def make_room(self, connected: Container[ID]) -> None:
        """Forget the oldest of those that are too many, but nobody `connected`."""
        surplus = len(self.peer_data_map) - PEERS_REMEMBERED_MAX
        if surplus <= 0:
            return
        gone = [peer for peer in self.peer_data_map if peer != self._own and peer not in connected]
        for peer in gone[:surplus]:
            self.clear_peerdata(peer)
        for peer in [peer for peer in self.peer_record_map if peer not in self.peer_data_map]:
            del self.peer_record_map[peer]
