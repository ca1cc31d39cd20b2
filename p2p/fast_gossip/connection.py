"""A yamux connection over Noise and TCP that reads and writes through `FrameReader` and `FrameWriter`.

Over anything else, a `FastYamux` is the library's Yamux and nothing more.
"""

from __future__ import annotations

import math
from typing import Any

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.io import NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux import yamux

from ...protocol.limits import CONNECTION_BACKLOG_BYTES, RESET_TIMEOUT_S
from .reader import HEADER, FrameReader
from .writer import FrameWriter

_DATA_MAX = yamux.MAX_MESSAGE_SIZE - yamux.HEADER_SIZE
_CONTROL_BACKLOG_BYTES = 4 * CONNECTION_BACKLOG_BYTES
"""Answers of the reading task wait later than data does: two nodes that fill each other's sockets must read on."""


class FastMuxer(MuxerMultistream):
    """Negotiates as the library does and makes a FastYamux of it."""

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        """A connection that is not started yet."""
        protocol, _ = await self._selector.select(conn, conn.is_initiator, self.negotiate_timeout)
        return self._annotate_connection(FastYamux(conn, peer_id, conn.is_initiator), conn, protocol)


class FastYamux(yamux.Yamux):
    """The library's connection, with another way to the socket and from it."""

    reader: FrameReader | None = None
    _writer: FrameWriter | None = None
    _socket: trio.socket.SocketType | None = None

    async def handle_incoming(self) -> None:
        """Serve frames until the connection ends."""
        self._take_over()
        try:
            await super().handle_incoming()
        finally:
            if self._socket is not None:
                self._socket.close()  # the library may be cancelled before it does so

    def _take_over(self) -> None:
        session: Any = self.secured_conn
        # A write that is under way would encrypt out of order; there is none before the connection is started.
        if type(session) is not SecureSession or self._write_lock.locked() or self._nursery is None:
            return
        noise = session.conn
        if (
            type(noise) is not NoiseTransportReadWriter
            or type(noise.read_writer.read_write_closer) is not RawConnection
        ):
            return
        tcp = noise.read_writer.read_write_closer.stream
        if type(tcp) is not TrioTCPStream or not isinstance(tcp.stream, trio.SocketStream):
            return
        self._socket = tcp.stream.socket
        self._writer = FrameWriter(noise.encrypt, self._socket, self._nursery.start_soon)
        self.reader = FrameReader(self, session, self._socket, noise.decrypt)
        self.secured_conn = self.reader  # type: ignore[assignment]

    @property
    def moved_at_s(self) -> float:
        """When the socket last took some of what had to wait for it."""
        return -math.inf if self._writer is None else self._writer.moved_at_s

    async def _write_frame(self, data: bytes) -> None:
        if self._writer is None:
            await super()._write_frame(data)
            return
        kind = data[1]
        backlog_max = CONNECTION_BACKLOG_BYTES if kind == yamux.TYPE_DATA else _CONTROL_BACKLOG_BYTES
        await self._writer.room(backlog_max)  # may be cancelled: nothing is encrypted yet
        self._writer.put(bytes(data))
        if kind == yamux.TYPE_GO_AWAY:  # the socket is closed next
            with trio.move_on_after(RESET_TIMEOUT_S):
                await self._writer.room(0)
        await trio.lowlevel.checkpoint()

    def send_now(self, frame: bytes) -> None:
        """Send a frame of control without waiting; a dead connection is left to its reader."""
        if self._writer is not None:
            try:
                self._writer.put(frame)
            except ConnectionClosedError:
                return

    def send_data_now(self, stream: Any, data: bytes) -> bool:
        """Send `data` on `stream` without waiting, whole; False when it has to wait."""
        writer = self._writer
        if writer is None or writer.backlog > CONNECTION_BACKLOG_BYTES or not 0 < len(data) <= _DATA_MAX:
            return False
        if stream.send_closed or stream.closed or stream.send_window < len(data):
            return False
        stream.send_window -= len(data)
        self.send_now(HEADER.pack(0, yamux.TYPE_DATA, 0, stream.stream_id, len(data)) + data)
        return True
