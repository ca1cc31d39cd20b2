"""Cuts the bytes of a stream into frames. Pure: bytes in, frames and signals out.

A frame is a 4-byte big-endian length and that many bytes, at most FRAME_MAX_BYTES. Two lengths are signals instead:
END says that no more frames follow, KEEPALIVE that the sender still lives. A length that is neither ends the stream
before any of its body is kept, so what waits is never more than one frame and what came with it.
"""

from __future__ import annotations

from enum import Enum

from ..protocol.errors import RemoteError
from ..protocol.limits import FRAME_MAX_BYTES

HEADER_BYTES = 4


class Signal(Enum):
    """A length that announces no bytes."""

    END = (0xFFFF_FFFF).to_bytes(HEADER_BYTES, "big")
    KEEPALIVE = (0xFFFF_FFFE).to_bytes(HEADER_BYTES, "big")


_SIGNALS = {one.value: one for one in Signal}


def framed(data: bytes) -> bytes:
    """`data` as it travels."""
    return len(data).to_bytes(HEADER_BYTES, "big") + data


class FrameCutter:
    """The receiving end of one stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        """Bytes that were added and not taken."""
        return len(self._buffer)

    def add(self, data: bytes) -> None:
        """Bytes of the stream, in their order."""
        self._buffer += data

    def take(self) -> bytes | Signal | None:
        """The next frame or signal; None while it is not complete. RemoteError when it is larger than any may be."""
        if len(self._buffer) < HEADER_BYTES:
            return None
        header = bytes(self._buffer[:HEADER_BYTES])
        signal = _SIGNALS.get(header)
        if signal is not None:
            del self._buffer[:HEADER_BYTES]
            return signal
        length = int.from_bytes(header, "big")
        if length > FRAME_MAX_BYTES:
            raise RemoteError(f"the peer announced a frame of {length} bytes")
        end = HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[HEADER_BYTES:end])
        del self._buffer[:end]
        return frame
