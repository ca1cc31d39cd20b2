"""Puts the parts together by which a node is reached: dialling, dial-back, relays, the way to a direct connection.

reachability.py   decides            dial_back.py   asks and answers      relay.py     carries (bootstrap nodes)
reach.py          acts upon it       circuits.py    both ends of a relay  upgrade.py   makes it direct
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm

from ..protocol.errors import PeerUnreachable
from ..protocol.ports import RequestHandler
from ..protocol.units import NodeId, base58
from .circuit_wire import HOP, STOP
from .circuits import Circuits
from .dial_back import DIAL_BACK, DialBack
from .dialling import Dialler, bounded
from .host import libp2p_id, node_of
from .links import has_direct
from .muxed_stream import MuxedStream
from .reach import Reach
from .reach_figures import ReachFigures
from .relay import Relay
from .upgrade import UPGRADE, Upgrade


class Requests(Protocol):
    """What is needed of a transport."""

    def serve(self, protocol: str, handler: RequestHandler) -> None: ...
    async def request(self, node: NodeId, protocol: str, payload: bytes, *, timeout_s: float) -> bytes: ...


class Reaching:
    """Of one transport. `busy` counts our streams on a connection, `direct` tells our own addresses."""

    def __init__(
        self,
        host: IHost,
        me: NodeId,
        requests: Requests,
        busy: Callable[[Any], int],
        direct: Callable[[], tuple[str, ...]],
        *,
        relay: bool,
    ) -> None:
        self._host, self._requests = host, requests
        self._network = cast(Swarm, host.get_network())
        self.circuits = Circuits(self._network, self._open_raw, self._called)
        self.dialler = Dialler(self._network, self.circuits, me)
        self.reach = Reach(self.dialler, self.circuits, self._network, self._ask, direct, self._speaks, is_relay=relay)
        self._dial_back = DialBack(self._network, self.reach.willing)
        self._upgrade = Upgrade(self._network, self._ask, self.reach.places, busy)
        self._relay = Relay(self._network, self._open_stop) if relay else None
        self._nursery: trio.Nursery | None = None
        requests.serve(DIAL_BACK, self._dial_back.answer)
        requests.serve(UPGRADE, self._upgrade.answer)
        self._accept(STOP, self.circuits.called)
        if self._relay is not None:
            self._accept(HOP, self._relay.serve)

    async def run(self) -> None:
        """Keep us reachable until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self.reach.run)

    def stop(self) -> None:
        """Dial nobody any more: we are about to hang up on everybody."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def figures(self) -> ReachFigures:
        """What goes on here, in numbers."""
        relay, upgrade = self._relay, self._upgrade
        return ReachFigures(
            report=self.reach.report,
            called_back=dict(self._dial_back.served),
            upgraded={"direct": upgrade.done, "relayed": upgrade.failed},
            reservations=relay.reservations if relay else 0,
            circuits=relay.circuits if relay else 0,
            relayed_bytes=relay.bytes if relay else 0,
            relay_granted=dict(relay.granted) if relay else {},
            relay_refused=dict(relay.refused) if relay else {},
        )

    def _accept(self, protocol: str, serve: Callable[[NodeId, MuxedStream], Awaitable[None]]) -> None:
        """Serve streams that are not framed. How long they live is bounded by who serves them."""

        async def accepted(stream: INetStream) -> None:
            peer = node_of(stream.muxed_conn.peer_id)
            if peer is None:
                await stream.reset()
            else:
                await serve(peer, MuxedStream(cast(NetStream, stream)))

        self._host.set_stream_handler(TProtocol(protocol), accepted)

    def _called(self, peer: NodeId) -> None:
        """`peer` has reached us through a relay."""
        if self._nursery is not None:
            self._nursery.start_soon(self._upgrade.run, peer)

    async def _ask(self, node: NodeId, protocol: str, payload: bytes, timeout_s: float) -> bytes:
        return await self._requests.request(node, protocol, payload, timeout_s=timeout_s)

    def _speaks(self, node: NodeId, protocol: str) -> bool:
        return bool(self._host.get_peerstore().supports_protocols(libp2p_id(node), [protocol]))

    async def _open_raw(self, node: NodeId, protocol: str) -> MuxedStream:
        """A stream on a direct connection that stands; nobody is dialled for it."""
        if not has_direct(self._network, node):
            raise PeerUnreachable(f"there is no direct connection with {base58(node)}")
        stream = await bounded(
            lambda: self._host.new_stream(libp2p_id(node), [TProtocol(protocol)]), f"open {protocol} to", node
        )
        return MuxedStream(cast(NetStream, stream))

    async def _open_stop(self, node: NodeId) -> MuxedStream:
        return await self._open_raw(node, STOP)
