"""Peers that this node has really talked to, on disk: a network whose bootstrap nodes are gone goes on (DESIGN 1).

Rule 1: who is kept has answered us, over a connection that its key authenticated; hearsay is never kept.
Rule 2: at most PEERS_KEPT_MAX. A full store prefers old friends: a newcomer takes only the place of one that was silent
for PEER_STALE_MS, so that a crowd of fresh keys cannot crowd out those whom we have long known.
Rule 3: what the disk says is as hostile as what a peer says: a record that does not check is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta

from ..protocol import codec
from ..protocol.errors import CyxError, RemoteError
from ..protocol.limits import (
    ADDRESS_MAX_CHARS,
    ADDRESSES_MAX,
    CLOCK_SKEW_MS,
    PEER_EXPIRES_MS,
    PEER_RECORD_MAX_BYTES,
    PEER_STALE_MS,
    PEERS_KEPT_MAX,
    PEERS_WRITE_MS,
)
from ..protocol.ports import Clock, Journal
from ..protocol.spec import Bytes32
from ..protocol.units import NodeId, base58

PREFIX = b"peers/"

log = structlog.get_logger()


class KnownPeer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One acquaintance: who, where it can be dialled, its execution class, and when it last answered us (Unix ms)."""

    node: Bytes32
    addresses: Annotated[
        tuple[Annotated[str, Meta(max_length=ADDRESS_MAX_CHARS)], ...], Meta(min_length=1, max_length=ADDRESSES_MAX)
    ]
    execution_class: Bytes32
    seen_at_ms: Annotated[int, Meta(ge=0)]


@dataclass(slots=True)
class KnownPeers:
    """The acquaintances of one node; each has a numbered place in the journal, which is written over and over."""

    journal: Journal
    clock: Clock
    _places: dict[NodeId, int] = field(default_factory=dict)
    _peers: dict[NodeId, KnownPeer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value in list(self.journal.items(PREFIX)):
            place = _place_of(key)
            peer = self._checked(value) if value and place is not None else None
            if peer is None or place is None:
                continue
            node, earlier = NodeId(peer.node), self._peers.get(NodeId(peer.node))
            if earlier is None or earlier.seen_at_ms < peer.seen_at_ms:
                self._places[node], self._peers[node] = place, peer

    def __contains__(self, node: object) -> bool:
        return node in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def latest(self) -> list[KnownPeer]:
        """All that are not out of date, the last to answer first."""
        now_ms = self.clock.unix_ms()
        fresh = [peer for peer in self._peers.values() if not _out_of_date(peer, now_ms)]
        return sorted(fresh, key=lambda peer: (-peer.seen_at_ms, peer.node))

    def met(self, node: NodeId, addresses: Sequence[str], execution_class: bytes) -> None:
        """`node` has answered us just now. The disk is written when something changed, else seldom."""
        shown = tuple(one for one in addresses if len(one) <= ADDRESS_MAX_CHARS)[:ADDRESSES_MAX]
        if not shown:
            return
        now_ms, known = self.clock.unix_ms(), self._peers.get(node)
        peer = KnownPeer(node=node, addresses=shown, execution_class=execution_class, seen_at_ms=now_ms)
        same = known is not None and (known.addresses, known.execution_class) == (shown, execution_class)
        if same and known is not None and now_ms - known.seen_at_ms < PEERS_WRITE_MS:
            return
        place = self._places.get(node)
        place = self._free_place(now_ms) if place is None else place
        if place is not None:
            self._places[node], self._peers[node] = place, peer
            self._write(place, peer)

    def _write(self, place: int, peer: KnownPeer) -> None:
        try:
            self.journal.put(PREFIX + b"%05d" % place, codec.encode(peer))
        except CyxError as error:
            log.warning("a peer could not be kept", peer=base58(peer.node), cause=str(error))

    def _free_place(self, now_ms: int) -> int | None:
        if len(self._places) < PEERS_KEPT_MAX:
            taken = set(self._places.values())
            return next(place for place in range(PEERS_KEPT_MAX) if place not in taken)
        oldest = min(self._peers, key=lambda node: (self._peers[node].seen_at_ms, node))
        if now_ms - self._peers[oldest].seen_at_ms < PEER_STALE_MS:
            return None
        del self._peers[oldest]
        return self._places.pop(oldest)

    def _checked(self, value: bytes) -> KnownPeer | None:
        try:
            peer = codec.decode(value, KnownPeer, max_bytes=PEER_RECORD_MAX_BYTES)
        except RemoteError as error:
            log.warning("a kept peer was dropped", cause=str(error))
            return None
        return None if _out_of_date(peer, self.clock.unix_ms()) else peer


def _out_of_date(peer: KnownPeer, now_ms: int) -> bool:
    """Silent for too long, or seen in a future that cannot have been."""
    return not -CLOCK_SKEW_MS <= now_ms - peer.seen_at_ms < PEER_EXPIRES_MS


def _place_of(key: bytes) -> int | None:
    digits = key.removeprefix(PREFIX)
    return int(digits) if len(digits) == 5 and digits.isdigit() and int(digits) < PEERS_KEPT_MAX else None
