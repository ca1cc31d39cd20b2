"""Finds where a node can be dialled that we have to talk to and do not hear (DESIGN 3).

The parties of a job come from all cells of a class, and a node hears its own: of a member or worker in another cell it
may know the name and nothing else. Those of that cell know more, and a cell follows from the name; so does what a node
that moved says now. They are asked, and bootstrap nodes beside them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from ..protocol.limits import LOCATE_AGAIN_S, LOCATE_ASKED_MAX, PEERS_KNOWN_MAX, PROBE_TIMEOUT_S
from ..protocol.units import NodeId
from .cells import shard_of

if TYPE_CHECKING:
    from .presence_service import PresenceService


@dataclass(slots=True)
class Locator:
    """Of one PresenceService."""

    presence: PresenceService
    _asked_at_s: OrderedDict[NodeId, float] = field(default_factory=OrderedDict)

    async def find(self, node: NodeId) -> None:
        """Ask where `node` is, for PROBE_TIMEOUT_S at most; at once when it was asked for within LOCATE_AGAIN_S."""
        now_s, exchange = trio.current_time(), self.presence.exchange
        if now_s - self._asked_at_s.get(node, float("-inf")) < LOCATE_AGAIN_S:
            return
        self._remember(node, now_s)
        if (cell := self.presence.cell) is None:
            return await exchange.survey(b"", [node])
        own, connected = shard_of(node, cell.shards), self.presence.wire.transport.connected()
        mates = [one for one in self.presence.connections.kin() if one != node and shard_of(one, cell.shards) == own]
        mates.sort(key=lambda one: (one not in connected, exchange.nearness(one)))
        with trio.move_on_after(PROBE_TIMEOUT_S):
            async with trio.open_nursery() as nursery:

                async def ask(peer: NodeId) -> None:
                    if await exchange.ask(peer, b"", [node], PROBE_TIMEOUT_S) and exchange.knows(node):
                        nursery.cancel_scope.cancel()

                for peer in (*mates[:LOCATE_ASKED_MAX], *sorted(exchange.roots)):
                    nursery.start_soon(ask, peer)

    def _remember(self, node: NodeId, now_s: float) -> None:
        self._asked_at_s[node] = now_s
        self._asked_at_s.move_to_end(node)
        if len(self._asked_at_s) > PEERS_KNOWN_MAX:
            self._asked_at_s.popitem(last=False)
