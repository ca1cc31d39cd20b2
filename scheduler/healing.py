"""Brings the parts of a split network together again (DESIGN 3).

While the alarm is on, or somebody of our cell is known from hearsay alone and sees other members than we do, every peer
exchange asks all bootstrap nodes for our class, and dials a few who may be on the other side: those strangers, the
members that fell silent, and the peers of earlier lives. One connection across is enough: gossip
flows over it, and everybody does the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..protocol.limits import PROBE_TIMEOUT_S, SPLIT_DIALS_MAX
from ..protocol.units import NodeId

if TYPE_CHECKING:
    from .presence_service import PresenceService


def across(presence: PresenceService) -> list[NodeId]:
    """Who may be on the other side of a split: strangers, the missing, old acquaintances that nobody speaks of."""
    split, connected = presence.split.state, presence.wire.transport.connected()
    members, kept = presence.state.members, presence.kept.latest() if presence.kept is not None else []
    for peer in kept:
        presence.wire.transport.learn(NodeId(peer.node), peer.addresses)
    cold = [NodeId(peer.node) for peer in kept if NodeId(peer.node) not in members] if split.alarm is not None else []
    found = dict.fromkeys([*sorted(split.strangers), *sorted(split.missing), *cold])
    return [node for node in found if node not in connected and node != presence.wire.me]


async def reach_across(presence: PresenceService) -> None:
    """Ask some of them for our class. Each node begins elsewhere, and elsewhere each time."""
    nodes, own = across(presence), presence.cell.execution_class if presence.cell is not None else b""
    start = int.from_bytes(presence.randomness.bytes(2), "big") % max(1, len(nodes))
    async with trio.open_nursery() as nursery:
        for node in (nodes[start:] + nodes[:start])[:SPLIT_DIALS_MAX]:
            nursery.start_soon(presence.exchange.ask, node, own, (), PROBE_TIMEOUT_S)
