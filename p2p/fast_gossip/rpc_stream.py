"""Cuts the bytes of a gossip stream into RPCs. Pure: bytes in, bytes out.

On the wire every RPC is preceded by its length, an unsigned varint. A length that is too large or too long ends the
stream before any of its body is kept.
"""

from __future__ import annotations

from ...protocol.errors import RemoteError

_VARINT_BYTES_MAX = 10
"""Of a 64-bit number."""


class RpcStream:
    """The receiving end of one stream; keeps at most `max_bytes` and one length of an unfinished RPC."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pending = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of an RPC that is not complete yet."""
        return len(self._pending)

    def feed(self, data: bytes | bytearray) -> list[bytes]:
        """The RPCs that `data` completes, without their lengths; RemoteError when one cannot be."""
        pending = self._pending
        pending += data
        complete: list[bytes] = []
        at = 0
        while (head := _read_length(pending, at)) is not None:
            length, start = head
            if length > self._max_bytes:
                raise RemoteError(f"a gossip RPC of {length} bytes is more than {self._max_bytes}")
            if len(pending) - start < length:
                break
            at = start + length
            complete.append(bytes(pending[start:at]))
        del pending[:at]
        return complete


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
