"""Frames on a byte stream: how messages stay whole, and how a clean end differs from a broken one.

A frame is a 4-byte big-endian length and that many bytes, at most FRAME_MAX_BYTES. Two lengths are signals instead:
END says that no more frames follow, KEEPALIVE that the sender still lives. A byte stream that stops without END was
broken off (the peer died, or reset it), which no muxer tells us reliably. Silence for STREAM_IDLE_TIMEOUT_S breaks a
stream as well; the transport sends keep-alives, so a healthy peer is never that silent.
"""

from __future__ import annotations

from typing import Protocol

import structlog
import trio

from ..protocol.errors import LocalError, PeerUnreachable
from ..protocol.limits import FRAME_MAX_BYTES, RESET_TIMEOUT_S, STREAM_IDLE_TIMEOUT_S
from ..protocol.units import NodeId, base58

_log = structlog.get_logger()
_HEADER_BYTES = 4
_END = (0xFFFF_FFFF).to_bytes(_HEADER_BYTES, "big")
_KEEPALIVE = (0xFFFF_FFFE).to_bytes(_HEADER_BYTES, "big")
_READ_BYTES = 64 * 1024


class ByteStream(Protocol):
    """What frames need from a muxed stream. All methods but `reset` raise PeerUnreachable when it is broken."""

    async def read(self, count: int) -> bytes:
        """Between 1 and `count` bytes, or b'' at the end; loses nothing when cancelled."""

    async def write(self, data: bytes) -> None: ...
    async def close_write(self) -> None: ...
    async def release(self) -> None:
        """Both directions have ended: give the stream's resources back."""

    async def reset(self) -> None: ...
    @property
    def broken(self) -> bool:
        """Whether the peer has reset the stream, as far as known without reading."""


class FramedStream:
    """A `Stream` (see ports) over a ByteStream. One task may send while another receives."""

    def __init__(self, peer: NodeId, raw: ByteStream) -> None:
        self._peer, self._raw = peer, raw
        self._buffer = bytearray()
        self._sending = trio.Lock()
        self._sent_end = self._received_end = self._broken = False

    @property
    def peer(self) -> NodeId:
        """Who is at the other end; authenticated."""
        return self._peer

    @property
    def broken(self) -> bool:
        """Whether the stream is known to be broken, by either side."""
        return self._broken or self._raw.broken

    @property
    def over(self) -> bool:
        """Whether nothing can travel any more in either direction."""
        return self.broken or (self._sent_end and self._received_end)

    async def send(self, frame: bytes) -> None:
        """Send one frame; a cancelled send resets the stream, since half a frame may be on its way."""
        if len(frame) > FRAME_MAX_BYTES:
            raise LocalError(f"{len(frame)} bytes are more than {FRAME_MAX_BYTES}", field="frame", fix="split it")
        async with self._sending:
            if self._sent_end:
                raise LocalError("the stream was closed by us", field="stream", fix="send before close")
            await self._write(len(frame).to_bytes(_HEADER_BYTES, "big") + frame)

    async def receive(self) -> bytes | None:
        """The next frame, or None after the peer's clean end."""
        while not self._received_end:
            header = await self._peek(_HEADER_BYTES)
            length = int.from_bytes(header, "big")
            if header == _END:
                self._received_end = True
                await self._release_when_over()
            elif header == _KEEPALIVE:
                del self._buffer[:_HEADER_BYTES]
            elif length > FRAME_MAX_BYTES:
                _log.warning("frame_oversized", peer=base58(self._peer), bytes=length)
                await self.reset()
                raise PeerUnreachable(f"the peer announced a frame of {length} bytes and was cut off")
            else:
                whole = await self._peek(_HEADER_BYTES + length)
                del self._buffer[: len(whole)]
                return whole[_HEADER_BYTES:]
        return None

    async def close(self) -> None:
        """End our side cleanly; a stream that is already broken stays so, silently."""
        async with self._sending:
            if self._sent_end or self._broken:
                return
            try:
                await self._write(_END)
                await self._raw.close_write()
            except PeerUnreachable:
                return
            self._sent_end = True
        await self._release_when_over()

    async def reset(self) -> None:
        """Break the stream at once; never raises."""
        self._broken = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RESET_TIMEOUT_S):
            await self._raw.reset()

    async def keep_alive(self) -> None:
        """Tell the peer that we live, unless a frame is just being sent, which tells it too."""
        if self._sending.locked() or self._sent_end or self._broken:
            return
        async with self._sending:
            try:
                await self._write(_KEEPALIVE)
            except PeerUnreachable:
                self._broken = True

    async def _write(self, data: bytes) -> None:
        if self._broken:
            raise PeerUnreachable("the stream is broken")
        try:
            await self._raw.write(data)
        except BaseException:
            await self.reset()
            raise

    async def _peek(self, count: int) -> bytes:
        """The first `count` bytes of the buffer, which stay there until they are used."""
        while len(self._buffer) < count:
            if self._broken:
                raise PeerUnreachable("the stream is broken")
            with trio.move_on_after(STREAM_IDLE_TIMEOUT_S) as patience:
                data = await self._raw.read(_READ_BYTES)
            if patience.cancelled_caught:
                await self.reset()
                raise PeerUnreachable(f"the peer was silent for {STREAM_IDLE_TIMEOUT_S:.0f} s")
            if not data:
                await self.reset()
                raise PeerUnreachable("the peer broke off before the end")
            self._buffer += data
        return bytes(self._buffer[:count])

    async def _release_when_over(self) -> None:
        if self._sent_end and self._received_end:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RESET_TIMEOUT_S):
                await self._raw.release()
