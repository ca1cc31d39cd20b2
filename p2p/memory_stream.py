"""A `Stream` between two nodes of the in-memory network: same bounds and endings as a framed libp2p stream.

What one end does reaches the other in order and after the link's delay. Unread bytes are bounded, so a slow reader
holds its sender back; a sender waits WINDOW_WAIT_S at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from ..protocol.errors import LocalError, PeerUnreachable
from ..protocol.limits import FRAME_MAX_BYTES, STREAM_WINDOW_MAX_BYTES, WINDOW_WAIT_S
from ..protocol.units import NodeId

Post = Callable[[Callable[[], None]], None]
"""Runs an action at the other end, after the delay and in order."""
Meter = Callable[[NodeId, NodeId, bytes], None]
"""Told of each frame that is sent: from whom, to whom, what."""


class MemoryStream:
    """One end. `post` carries an action to the other end, which `join` names."""

    def __init__(self, peer: NodeId, post: Post, meter: Callable[[bytes], None]) -> None:
        self._peer, self._post, self._meter = peer, post, meter
        self._other: MemoryStream
        self._arrived: deque[bytes | None] = deque()
        self._unread_bytes = 0
        self._sending = trio.Lock()
        self._sent_end = self._received_end = self._broken = False
        self._changed = trio.Event()

    @staticmethod
    def pair(near: NodeId, far: NodeId, to_near: Post, to_far: Post, meter: Meter) -> tuple[MemoryStream, MemoryStream]:
        """The two ends of a new stream: what `near` holds, and what `far` holds."""
        ours = MemoryStream(far, to_far, lambda frame: meter(near, far, frame))
        theirs = MemoryStream(near, to_near, lambda frame: meter(far, near, frame))
        ours._other, theirs._other = theirs, ours
        return ours, theirs

    @property
    def peer(self) -> NodeId:
        """Who is at the other end."""
        return self._peer

    @property
    def broken(self) -> bool:
        """Whether the stream is known to be broken, by either side."""
        return self._broken

    @property
    def over(self) -> bool:
        """Whether nothing can travel any more in either direction."""
        return self._broken or (self._sent_end and self._received_end)

    async def send(self, frame: bytes) -> None:
        """Send one frame, waiting for the reader when the window is full."""
        if len(frame) > FRAME_MAX_BYTES:
            raise LocalError(f"{len(frame)} bytes are more than {FRAME_MAX_BYTES}", field="frame", fix="split it")
        async with self._sending:
            if self._sent_end:
                raise LocalError("the stream was closed by us", field="stream", fix="send before close")
            await self._wait_for_window(len(frame))
            data = bytes(frame)
            self._other._unread_bytes += len(data)
            self._meter(data)
            self._post(lambda: self._other._arrive(data))

    async def receive(self) -> bytes | None:
        """The next frame, or None after the peer's clean end."""
        await trio.lowlevel.checkpoint()
        while not self._received_end:
            if self._arrived:
                frame = self._arrived.popleft()
                if frame is not None:
                    self._unread_bytes -= len(frame)
                    self._other._notify()
                    return frame
                self._received_end = True
            elif self._broken:
                raise PeerUnreachable("the peer broke off before the end")
            else:
                await self._changed.wait()
        return None

    async def close(self) -> None:
        """End our side cleanly; a broken stream stays broken."""
        async with self._sending:
            if not (self._sent_end or self._broken):
                self._sent_end = True
                self._post(lambda: self._other._arrive(None))

    async def reset(self) -> None:
        """Break the stream at both ends; never raises."""
        self.break_off()
        self._post(self._other.break_off)

    def break_off(self) -> None:
        """This end is broken: what has arrived can still be read."""
        self._broken = True
        self._notify()

    async def _wait_for_window(self, count: int) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(WINDOW_WAIT_S):
            while not self._broken:
                waiting = self._other._unread_bytes
                if not waiting or waiting + count <= STREAM_WINDOW_MAX_BYTES:
                    return
                await self._changed.wait()
        await self.reset()
        raise PeerUnreachable("the stream is broken, or its reader too slow")

    def _arrive(self, frame: bytes | None) -> None:
        if not self._broken:
            self._arrived.append(frame)
            self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
