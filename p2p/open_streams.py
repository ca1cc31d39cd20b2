"""The framed streams that are open on one transport, whoever opened them: kept alive, counted by connection, forgotten
when over."""

from __future__ import annotations

from typing import Any

import trio
from libp2p.network.stream.net_stream import NetStream

from ..protocol.limits import KEEPALIVE_INTERVAL_S
from ..protocol.units import NodeId
from .frames import FramedStream
from .muxed_stream import MuxedStream


class OpenStreams:
    """Of one transport."""

    def __init__(self) -> None:
        self._streams: dict[int, tuple[FramedStream, Any]] = {}

    def track(self, peer: NodeId, stream: NetStream) -> FramedStream:
        """A framed stream over a negotiated one."""
        framed = FramedStream(peer, MuxedStream(stream))
        self._streams[id(framed)] = framed, stream.muxed_conn
        return framed

    def on(self, link: Any) -> int:
        """How many are not done on one connection."""
        return sum(muxed is link.muxed_conn and not framed.over for framed, muxed in self._streams.values())

    async def keep_alive(self) -> None:
        """Send keep-alives and forget what is over, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(KEEPALIVE_INTERVAL_S)
                for name, (framed, _) in list(self._streams.items()):
                    if framed.over:
                        del self._streams[name]
                    else:
                        nursery.start_soon(framed.keep_alive)
