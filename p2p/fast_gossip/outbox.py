"""What waits for one gossip peer. Most messages never do: they are sent at once, and only what the peer's window or
the socket does not take is queued, in order, up to a bound in messages and in bytes; beyond it messages are dropped
and counted, as gossip may lose some."""

from __future__ import annotations

from collections import deque
from typing import Any

import structlog
import trio
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.utils import encode_varint_prefixed

from ...protocol.limits import GOSSIP_OUTBOUND_MAX_BYTES, GOSSIP_OUTBOUND_QUEUE_MAX, GOSSIP_STALL_S
from .connection import FastYamux

_log = structlog.get_logger()


class Outbox(RpcQueue):
    """Has the methods of the library's queue, which its router fills. `stream` is our gossip stream to the peer."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream, self._muxed = stream, stream.muxed_stream
        self._connection = stream.muxed_conn if isinstance(stream.muxed_conn, FastYamux) else None
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._writing = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, rpc: Any, priority: bool = False) -> bool:
        """Send an RPC of the router; False when it was dropped."""
        if not rpc.senderRecord:
            rpc.ClearField("senderRecord")  # an empty one is no record, but is looked at as one
        return self.send(encode_varint_prefixed(rpc.SerializeToString()))

    def send(self, frame: bytes) -> bool:
        """Send an RPC that is encoded already, with its length; False when it was dropped."""
        if self._closed:
            return False
        connection = None if self._writing or self._frames else self._connection
        if connection is not None and connection.send_data_now(self._muxed, frame):
            return True
        if len(self._frames) >= GOSSIP_OUTBOUND_QUEUE_MAX or self._bytes + len(frame) > GOSSIP_OUTBOUND_MAX_BYTES:
            if not self.dropped:
                _log.warning("gossip_peer_slow", peer=str(self._muxed.muxed_conn.peer_id), waiting=len(self._frames))
            self.dropped += 1
            return False
        self._frames.append(frame)
        self._bytes += len(frame)
        self._notify.set()
        return True

    async def serve(self) -> None:
        """Send what waits, until the box is closed; TooSlowError when the peer takes nothing for GOSSIP_STALL_S,
        and whatever the library raises when the stream breaks under a write."""
        while not self._closed:
            while self._frames:
                frame = self._frames.popleft()
                self._bytes -= len(frame)
                self._writing = True
                try:
                    with trio.fail_after(GOSSIP_STALL_S):
                        await self._stream.write(frame)
                finally:
                    self._writing = False
            self._notify = trio.Event()
            if not self._closed:
                await self._notify.wait()

    async def close_with_stream(self) -> None:
        """Close the box when the stream ends: otherwise only the next message would notice, if there is one."""
        events, stream_id = self._muxed.conn.stream_events, self._muxed.stream_id
        while not (self._closed or self._muxed.closed or self._muxed.reset_received):
            event = events.get(stream_id)
            if event is None:
                break
            await event.wait()
            if events.get(stream_id) is event:
                events[stream_id] = trio.Event()
        self.close()

    def close(self) -> None:
        """Nothing is sent any more."""
        super().close()
        if (event := self._muxed.conn.stream_events.get(self._muxed.stream_id)) is not None:
            event.set()
