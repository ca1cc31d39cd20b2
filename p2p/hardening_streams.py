"""Cures for connections and streams: TCP, Noise, yamux and the swarm above them.

Rules: nothing that a peer does on one stream may reach the host; what is encrypted is written whole or the connection
is given up; waiting is bounded and memory per stream too.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
import trio
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network import swarm as swarm_module
from libp2p.network.connection import swarm_connection as swarm_connection_module
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.swarm import Swarm
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.tcp import tcp

from ..protocol.limits import (
    CONNECTION_WRITE_TIMEOUT_S,
    SHUTDOWN_TIMEOUT_S,
    STREAM_WINDOW_MAX_BYTES,
    WINDOW_WAIT_S,
)

if TYPE_CHECKING:
    from .hardening import Patches

_log = structlog.get_logger()
_CLOSED_POLL_S = 0.25


def contain_errors(patches: Patches) -> None:
    """An exception of one stream or connection ends there."""
    serve_stream: Any = SwarmConn._handle_muxed_stream
    run_muxer: Any = yamux.Yamux.start
    identify: Any = BasicHost._identify_peer

    async def contained_stream(self: Any, stream: Any) -> None:
        await _contained("stream", self.muxed_conn.peer_id, lambda: serve_stream(self, stream), stream.reset)

    async def contained_muxer(self: Any) -> None:
        await _contained("connection", self.peer_id, lambda: run_muxer(self), self._cleanup_on_error)

    async def contained_identify(self: Any, peer_id: Any, *, reason: str) -> None:
        await _contained("identify", peer_id, lambda: identify(self, peer_id, reason=reason), _nothing)

    patches.set(SwarmConn, "_handle_muxed_stream", contained_stream)
    patches.set(yamux.Yamux, "start", contained_muxer)
    patches.set(BasicHost, "_identify_peer", contained_identify)


async def _nothing() -> None: ...


async def _contained(
    what: str, peer: object, run: Callable[[], Awaitable[None]], give_up: Callable[[], Awaitable[None]]
) -> None:
    try:
        await run()
    except Exception as error:
        # Whatever it was, it belongs to one peer; the host must outlive it.
        _log.warning("libp2p_contained", what=what, peer=str(peer), cause=repr(error)[:200])
        with suppress(Exception):
            await give_up()


def whole_writes(patches: Patches) -> None:
    """A write reaches the socket whole, also when its task is cancelled; one that cannot ends the connection."""
    write: Any = TrioTCPStream.write

    async def whole_write(self: Any, data: bytes) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CONNECTION_WRITE_TIMEOUT_S) as patience:
            await write(self, data)
        if patience.cancelled_caught:
            await trio.aclose_forcefully(self.stream)
            raise ConnectionClosedError("the peer stopped reading", transport="tcp")

    async def whole_frame(self: Any, data: bytes) -> None:
        async with self._write_lock:  # may be cancelled: nothing is encrypted yet
            with trio.CancelScope(shield=True):  # bounded by whole_write
                await self.secured_conn.write(data)
        await trio.lowlevel.checkpoint()

    patches.set(TrioTCPStream, "write", whole_write)
    patches.set(yamux.Yamux, "_write_frame", whole_frame)


def patient_writes(patches: Patches) -> None:
    """A sender waits up to WINDOW_WAIT_S for a paused reader, and is woken by its window update."""

    def set_window(self: Any, value: int) -> None:
        grown = value > self.__dict__.get("_send_window", 0)
        self.__dict__["_send_window"] = value
        if grown and (waiting := self.__dict__.pop("_window_event", None)) is not None:
            waiting.set()

    async def patient_write(self: Any, data: bytes) -> None:
        # Two writers of one stream (gossip has them) must not mix the frames of their messages.
        async with self.__dict__.setdefault("_write_order", trio.Lock()):
            view, sent = memoryview(data), 0
            while sent < len(view):
                if self.send_closed or self.closed or self.conn.event_shutting_down.is_set():
                    raise MuxedStreamError("the stream is closed for sending")
                count = min(self.send_window, yamux.MAX_MESSAGE_SIZE - yamux.HEADER_SIZE, len(view) - sent)
                if count <= 0:
                    await _window(self)
                    continue
                self.send_window -= count
                header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, self.stream_id, count)
                await self.conn._write_frame(header + view[sent : sent + count])
                sent += count

    patches.set(yamux.YamuxStream, "send_window", property(lambda self: self.__dict__["_send_window"], set_window))
    patches.set(yamux.YamuxStream, "write", patient_write)


async def _window(stream: Any) -> None:
    """Return when the peer has opened the window or the stream has ended; raise after WINDOW_WAIT_S."""
    with trio.move_on_after(WINDOW_WAIT_S):
        while stream.send_window <= 0:
            if stream.closed or stream.send_closed or stream.conn.event_shutting_down.is_set():
                return
            event = stream.__dict__.setdefault("_window_event", trio.Event())
            with trio.move_on_after(_CLOSED_POLL_S):  # nothing wakes us when the stream is reset
                await event.wait()
        return
    raise MuxedStreamError("the peer did not read in time")


def fewer_updates(patches: Patches) -> None:
    """The window is given back when half of it was read, not after every read."""

    async def batched_update(self: Any, *, bytes_read: int = 0) -> None:
        self._pending_recv_release += bytes_read
        if self._pending_recv_release * 2 < self.target_recv_window:
            return
        increment, self._pending_recv_release = self._pending_recv_release, 0
        self.recv_window += increment
        increment += self._apply_autotune_epoch(len(self.conn.stream_buffers.get(self.stream_id, b"")))
        await self.send_window_update(increment, skip_lock=True)

    patches.set(yamux.YamuxStream, "_auto_tune_and_send_window_update", batched_update)


def enforce_window(patches: Patches) -> None:
    """Unread data per stream is bounded: the window grows to STREAM_WINDOW_MAX_BYTES, an overrun is thrown away."""

    def set_window(self: Any, value: int) -> None:
        self.__dict__["_recv_window"] = value
        if value < 0:
            _log.warning("window_overrun", peer=str(self.conn.peer_id), bytes=-value)
            self.conn.stream_buffers[self.stream_id].clear()
            self.closed = self.recv_closed = self.reset_received = True
            raise MuxedStreamError("the peer ignored the window")

    patches.set(yamux.YamuxStream, "recv_window", property(lambda self: self.__dict__["_recv_window"], set_window))
    patches.set(yamux, "MAX_WINDOW_SIZE", STREAM_WINDOW_MAX_BYTES)


def close_sockets(patches: Patches) -> None:
    """When the host ends, however it ends, its sockets are closed: no peer takes it for alive, its port is free."""
    run: Any = Swarm.run

    async def closing_run(self: Any) -> None:
        try:
            await run(self)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S):
                for listener in list(self.listeners.values()):
                    with suppress(Exception):
                        await listener.close()
                for connection in [one for group in self.connections.values() for one in group]:
                    with suppress(Exception):
                        await connection.muxed_conn.secured_conn.close()

    patches.set(Swarm, "run", closing_run)


def no_dial_wait(patches: Patches) -> None:
    """The head start of the first address is 0 s: it was waited for even after that address had answered."""
    patches.set(swarm_module, "_HAPPY_EYEBALLS_DELAY", 0.0)


def exclusive_port(patches: Patches) -> None:
    """A listening port belongs to one process: no SO_REUSEPORT, so an occupied port is an error."""

    def reuse_address(sock: Any) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    patches.set(tcp, "_set_reuse_flags", reuse_address)


def quiet_logs(patches: Patches) -> None:
    """The library logs to its own logger, which is off; what matters is logged here, as structured events."""
    library = logging.getLogger("libp2p")
    patches.set(swarm_connection_module, "logging", library)
    patches.set(library, "disabled", True)
    patches.set(library, "level", logging.CRITICAL + 1)
