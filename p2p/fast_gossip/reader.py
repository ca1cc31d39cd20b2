"""The receiving half of a fast connection: all that the socket holds is decrypted and handled at once.

Stands where the library has the secure session of a yamux connection, and serves its reader: plain data and window
updates are handled here and never seen by it, every other frame is handed on unchanged. A stream with a sink gives its
data to that function, in this task, and the function gives the window back; the data of other streams goes into the
library's buffers.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio
from libp2p.io.exceptions import IncompleteReadError
from libp2p.network.connection.exceptions import RawConnError
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux

from ...protocol.limits import CONNECTION_READ_BYTES, WINDOW_WAIT_S

if TYPE_CHECKING:
    from .connection import FastYamux

Sink = Callable[[bytes], None]
HEADER = struct.Struct(yamux.YAMUX_HEADER_FORMAT)
_DATA_MAX = 2 * yamux.MAX_MESSAGE_SIZE
"""Larger data frames are legal but rare: the library takes them."""
_TURNS_MAX = 64


class FrameReader:
    """Frames of one connection. `decrypt` opens one Noise packet and raises when it is forged."""

    def __init__(
        self, connection: FastYamux, session: Any, socket: trio.socket.SocketType, decrypt: Callable[[bytes], bytes]
    ) -> None:
        self._connection, self._session, self._socket, self._decrypt = connection, session, socket, decrypt
        self._cipher = bytearray()
        self._plain = bytearray(session._drain(None))
        self._body = 0
        self._foreign = False
        self._deadline = math.inf
        self._heard_at_s = -math.inf
        self._sinks: dict[int, Sink] = {}

    @property
    def heard_at_s(self) -> float:
        """When the peer last said something, or took more of a backlog."""
        return max(self._heard_at_s, self._connection.moved_at_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    @contextmanager
    def sink(self, stream: Any, sink: Sink) -> Iterator[None]:
        """Give the data of `stream` to `sink`, what has arrived already first. `sink` must not raise."""
        waiting = self._connection.stream_buffers.get(stream.stream_id)
        if waiting:
            data = bytes(waiting)
            waiting.clear()
            sink(data)
        self._sinks[stream.stream_id] = sink
        try:
            yield
        finally:
            del self._sinks[stream.stream_id]

    async def read(self, n: int) -> bytes:
        """`n` bytes of a frame that is for the library: its header first, then its body."""
        while True:
            if self._body:
                if len(self._plain) >= (count := min(n, self._body)):
                    self._body -= count
                    return self._take(count)
            else:
                self._take_frames()
                if self._foreign:
                    self._foreign = False
                    header = self._take(HEADER.size)
                    _, kind, flags, stream_id, length = HEADER.unpack(header)
                    self._body = length if kind == yamux.TYPE_DATA else 0
                    if flags & yamux.FLAG_RST or kind == yamux.TYPE_GO_AWAY:
                        await self._let_read(stream_id)
                    return header
            await self._receive()

    async def _let_read(self, stream_id: int) -> None:
        """Give readers a few turns to take what has arrived: the library throws it away with the stream (all streams:
        0), and here both may have come in one packet."""
        buffers = self._connection.stream_buffers
        for _ in range(_TURNS_MAX):
            if not (any(buffers.values()) if stream_id == 0 else buffers.get(stream_id)):
                return
            await trio.lowlevel.checkpoint()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._plain[:count])
        del self._plain[:count]
        self._deadline = math.inf
        return taken

    def _take_frames(self) -> None:
        """Handle whole plain frames, as far as they go; `_foreign` says that one for the library comes next."""
        buffer, at, streams = self._plain, 0, self._connection.streams
        while len(buffer) - at >= HEADER.size:
            _, kind, flags, stream_id, length = HEADER.unpack_from(buffer, at)
            body = at + HEADER.size
            if kind == yamux.TYPE_DATA and not flags and length <= _DATA_MAX:
                if len(buffer) - body < length:
                    break
                if (stream := streams.get(stream_id)) is not None:
                    self._deliver(stream, bytes(buffer[body : body + length]))
                at = body + length
            elif kind == yamux.TYPE_WINDOW_UPDATE and not flags:
                if (stream := streams.get(stream_id)) is not None:
                    stream.send_window += length
                at = body
            else:
                self._foreign = True
                break
        if at:
            del buffer[:at]
            self._deadline = math.inf

    def _deliver(self, stream: Any, data: bytes) -> None:
        connection, stream_id = self._connection, stream.stream_id
        try:
            stream.recv_window -= len(data)
        except MuxedStreamError:  # the cure `window_overrun`: the stream is broken, its reader must notice
            if (event := connection.stream_events.get(stream_id)) is not None:
                event.set()
            return
        sink = self._sinks.get(stream_id)
        if sink is not None:
            sink(data)
        elif stream_id in connection.stream_buffers:
            connection.stream_buffers[stream_id].extend(data)
            connection.stream_events[stream_id].set()

    def give_back(self, stream: Any, count: int) -> None:
        """Open the window again for `count` bytes that a sink has handled, half a window at a time."""
        stream._pending_recv_release += count
        if stream._pending_recv_release * 2 >= stream.target_recv_window:
            increment, stream._pending_recv_release = stream._pending_recv_release, 0
            stream.recv_window += increment
            self._connection.send_now(HEADER.pack(0, yamux.TYPE_WINDOW_UPDATE, 0, stream.stream_id, increment))

    async def _receive(self) -> None:
        """Wait for bytes of the socket and decrypt all packets that they complete. A frame that has begun must be
        whole after WINDOW_WAIT_S (TooSlowError)."""
        if self._deadline == math.inf and (self._cipher or self._plain or self._body):
            self._deadline = trio.current_time() + WINDOW_WAIT_S
        try:
            with trio.fail_at(self._deadline):
                await trio.lowlevel.wait_readable(self._socket.fileno())
            received = os.read(self._socket.fileno(), CONNECTION_READ_BYTES)
        except BlockingIOError:
            return
        except (OSError, trio.ClosedResourceError) as error:
            raise RawConnError(f"connection closed: {error}") from error
        if not received:
            await self._let_read(0)
            unfinished = len(self._cipher) + len(self._plain) + self._body
            raise IncompleteReadError("the peer has closed the connection", HEADER.size, unfinished)
        self._heard_at_s = trio.current_time()
        cipher, at = self._cipher, 0
        cipher += received
        while len(cipher) - at > 2:
            end = at + 2 + (cipher[at] << 8 | cipher[at + 1])
            if end > len(cipher):
                break
            self._plain += self._decrypt(bytes(cipher[at + 2 : end]))
            at = end
        del cipher[:at]
