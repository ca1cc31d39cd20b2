"""Frames on a byte stream: how messages stay whole, and how a clean end differs from a broken one.

The format stands in frame_cutter.py. A byte stream that stops without END was broken off (the peer died, or reset it),
which no muxer tells us reliably. Silence for STREAM_IDLE_TIMEOUT_S breaks a stream as well; the transport sends
keep-alives, so a healthy peer is never that silent.
"""

from __future__ import annotations

from typing import Protocol

import structlog
import trio

from ..protocol.errors import LocalError, PeerUnreachable, RemoteError
from ..protocol.limits import FRAME_MAX_BYTES, RESET_TIMEOUT_S, STREAM_IDLE_TIMEOUT_S
from ..protocol.units import NodeId, base58
from .frame_cutter import FrameCutter, Signal, framed

_log = structlog.get_logger()
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
        self._cutter = FrameCutter()
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
            await self._write(framed(frame))

    async def receive(self) -> bytes | None:
        """The next frame, or None after the peer's clean end."""
        while not self._received_end:
            match await self._next():
                case Signal.END:
                    self._received_end = True
                    await self._release_when_over()
                case Signal.KEEPALIVE:
                    pass
                case frame:
                    return frame
        return None

    async def close(self) -> None:
        """End our side cleanly; a stream that is already broken stays so, silently."""
        async with self._sending:
            if self._sent_end or self._broken:
                return
            try:
                await self._write(Signal.END.value)
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
                await self._write(Signal.KEEPALIVE.value)
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

    async def _next(self) -> bytes | Signal:
        try:
            while (found := self._cutter.take()) is None:
                self._cutter.add(await self._read())
        except RemoteError as error:
            _log.warning("frame_oversized", peer=base58(self._peer), cause=str(error))
            await self.reset()
            raise PeerUnreachable(f"{error} and was cut off") from None
        return found

    async def _read(self) -> bytes:
        """At least one byte."""
        if self._broken:
            raise PeerUnreachable("the stream is broken")
        with trio.move_on_after(STREAM_IDLE_TIMEOUT_S) as patience:
            data = await self._raw.read(_READ_BYTES)
        if not patience.cancelled_caught and data:
            return data
        await self.reset()
        if patience.cancelled_caught:
            raise PeerUnreachable(f"the peer was silent for {STREAM_IDLE_TIMEOUT_S:.0f} s")
        raise PeerUnreachable("the peer broke off before the end")

    async def _release_when_over(self) -> None:
        if self._sent_end and self._received_end:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RESET_TIMEOUT_S):
                await self._raw.release()
