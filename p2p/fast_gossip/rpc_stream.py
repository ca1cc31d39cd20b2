"""Cuts the bytes of a gossip stream into RPCs. Pure: bytes in, bytes out.

On the wire every RPC is preceded by its length, an unsigned varint. A length that is too large or too long ends the
stream before any of its body is kept.
"""

from __future__ import annotations

from ...protocol.errors import RemoteError

_VARINT_BYTES_MAX = 10
"""Of a 64-bit number."""


class RpcStream:
    """The receiving end of one stream, for RPCs of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pending, self._at = bytearray(), 0

    def __len__(self) -> int:
        """Bytes that were added and not taken."""
        return len(self._pending) - self._at

    def add(self, data: bytes) -> None:
        """Bytes of the stream, in their order."""
        self._pending += data

    def take(self) -> bytes | None:
        """The next RPC, without its length; None while it is not complete. RemoteError when it cannot be one."""
        pending = self._pending
        head = _read_length(pending, self._at)
        if head is not None:
            length, start = head
            if length > self._max_bytes:
                raise RemoteError(f"a gossip RPC of {length} bytes is more than {self._max_bytes}")
            if len(pending) - start >= length:
                self._at = start + length
                return bytes(pending[start : self._at])
        if self._at:
            del pending[: self._at]
            self._at = 0
        return None


def _read_length(data: bytearray, at: int) -> tuple[int, int] | None:
    """The varint at `at` and the place after it; None while it is incomplete."""
    length = 0
    for place, byte in enumerate(data[at : at + _VARINT_BYTES_MAX]):
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return length, at + place + 1
    if len(data) - at >= _VARINT_BYTES_MAX:
        raise RemoteError("the length of a gossip RPC has more than 64 bits")
    return None
