"""Whom a peer that asks is told of, and as much of it as fits into an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import nsmallest
from itertools import islice

from ..protocol.limits import FRAME_MAX_BYTES, PEER_EXCHANGE_MAX, PEERS_WANTED
from ..protocol.messages import PeersRequest
from ..protocol.units import NodeId
from .cells import place_of
from .presence import Member

ANSWER_NODES_MAX = 63
"""With two records each and our own two they fit a PeersAnswer."""
ANSWER_MAX_BYTES = FRAME_MAX_BYTES * 3 // 4


def whom_to_tell(
    peer: NodeId,
    asked: PeersRequest,
    members: Mapping[NodeId, Member],
    rotated: Callable[[list[NodeId]], list[NodeId]],
) -> list[Member]:
    """Those asked for by name, then the class in full, the asker's cell first, then some of the others, where `rotated`
    lets a list begin anywhere.

    Who offers something and names no class has peers enough, and only shows that it lives.
    """
    name, chosen = asked.execution_class, [NodeId(raw) for raw in asked.wanted]
    if name:
        kin = [n for n, m in members.items() if m.capability is not None and m.capability.execution_class == name]
        # Cells are cut by place: next to the asker's are those of its cell, however many cells there are.
        place = place_of(peer)
        near = nsmallest(PEERS_WANTED, kin, key=lambda n: place_of(n) ^ place) if asked.capability else []
        chosen += [*near, *rotated(kin)]
        most = max(len(asked.wanted) + len(kin), 2 * PEERS_WANTED)
    else:
        most = PEERS_WANTED if asked.capability else PEER_EXCHANGE_MAX
    others = rotated(list(members))[: 2 * most]
    known = (m for n in dict.fromkeys([*chosen, *others]) if n != peer and (m := members.get(n)) is not None)
    return list(islice((m for m in known if m.capability_raw), min(most, ANSWER_NODES_MAX)))


def packed(own: Iterable[bytes], told: Iterable[Member], now_ms: int) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Our own records and theirs, as many as fit, and for how long the author of each has been silent."""
    records = [raw for raw in own if raw]
    silent_ms, size = [0] * len(records), sum(map(len, records))
    for member in told:
        pair = [raw for raw in (member.capability_raw, member.heartbeat_raw) if raw]
        size += sum(map(len, pair))
        if size > ANSWER_MAX_BYTES:
            break
        records += pair
        silent_ms += [max(0, now_ms - member.seen_at_ms)] * len(pair)
    return tuple(records), tuple(silent_ms)
