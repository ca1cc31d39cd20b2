"""One libp2p stream as a `ByteStream`: every way in which the library says 'broken' becomes PeerUnreachable."""

from __future__ import annotations

from contextlib import suppress

from libp2p.network.stream.exceptions import StreamEOF
from libp2p.network.stream.net_stream import NetStream

from ..protocol.errors import PeerUnreachable


class MuxedStream:
    """Adapter of a negotiated stream."""

    def __init__(self, stream: NetStream) -> None:
        self._stream = stream

    @property
    def broken(self) -> bool:
        """Whether a reset has arrived or the connection has ended."""
        muxed = self._stream.muxed_stream
        return bool(getattr(muxed, "reset_received", False)) or self._stream.muxed_conn.is_closed

    async def read(self, count: int) -> bytes:
        """Between 1 and `count` bytes; b'' at the end."""
        try:
            return await self._stream.read(count)
        except StreamEOF:
            return b""
        except Exception as error:
            # Reset, closed connection, failed decryption: the library has a dozen types for it.
            raise PeerUnreachable(f"the stream broke: {error!r}"[:200]) from error

    async def write(self, data: bytes) -> None:
        """Write all of `data`, waiting for the reader at most WINDOW_WAIT_S."""
        try:
            await self._stream.write(data)
        except Exception as error:
            raise PeerUnreachable(f"the stream broke: {error!r}"[:200]) from error

    async def close_write(self) -> None:
        """Half-close."""
        try:
            await self._stream.close_write()
        except Exception as error:
            raise PeerUnreachable(f"the stream broke: {error!r}"[:200]) from error

    async def release(self) -> None:
        """Give the stream's slot back after both sides have ended."""
        with suppress(Exception):
            await self._stream.close()

    async def reset(self) -> None:
        """Break the stream; what cannot be reset is broken already."""
        with suppress(Exception):
            await self._stream.reset()
