"""The sending half of a fast connection: yamux frames are encrypted and given to the socket at once, without waiting.

A frame is either on its way whole or not at all, whatever is cancelled: nothing between encrypting and sending waits.
What the socket does not take at once is finished by one task, in order, which sends everything that came meanwhile as
few packets as possible. A socket that takes nothing for CONNECTION_WRITE_TIMEOUT_S ends the connection.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Awaitable, Callable

import structlog
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH

from ...protocol.limits import CONNECTION_WRITE_TIMEOUT_S

_log = structlog.get_logger()
_COALESCED_BYTES = 4 * MAX_PLAINTEXT_LENGTH


class FrameWriter:
    """Frames of one connection. `encrypt` makes one Noise packet of at most MAX_PLAINTEXT_LENGTH bytes; `spawn`
    starts a task that lives no longer than the connection."""

    def __init__(
        self,
        encrypt: Callable[[bytes], bytes],
        socket: trio.socket.SocketType,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._encrypt, self._socket, self._spawn = encrypt, socket, spawn
        self._unsent = b""
        self._frames: deque[bytes] = deque()
        self._frame_bytes = 0
        self._flushing = self._broken = False
        self.moved_at_s = -math.inf
        """When the socket last took some of what had to wait for it."""
        self._progress = trio.Event()

    @property
    def backlog(self) -> int:
        """Bytes that wait for the socket."""
        return len(self._unsent) + self._frame_bytes

    def put(self, frame: bytes) -> None:
        """Send `frame`, now or as soon as the socket takes it; ConnectionClosedError when it never will."""
        if self._broken:
            raise ConnectionClosedError("the connection is closed for sending", transport="tcp")
        if self._flushing:
            self._frames.append(frame)
            self._frame_bytes += len(frame)
            return
        self._unsent = self._send(self._seal(frame))
        if self._unsent:
            self._flushing = True
            self._spawn(self._flush)

    async def room(self, backlog_max: int) -> None:
        """Return when at most `backlog_max` bytes wait, or none ever will be sent."""
        while self.backlog > backlog_max and not self._broken:
            await self._progress.wait()

    def _seal(self, plain: bytes) -> bytes:
        if len(plain) <= MAX_PLAINTEXT_LENGTH:
            packet = self._encrypt(plain)
            return len(packet).to_bytes(2, "big") + packet
        pieces = range(0, len(plain), MAX_PLAINTEXT_LENGTH)
        return b"".join(self._seal(plain[start : start + MAX_PLAINTEXT_LENGTH]) for start in pieces)

    def _send(self, packets: bytes) -> bytes:
        """What the socket did not take."""
        try:
            return packets[os.write(self._socket.fileno(), packets) :]
        except BlockingIOError:
            return packets
        except OSError as error:
            self._break()
            raise ConnectionClosedError(f"could not send: {error}", transport="tcp") from error

    async def _flush(self) -> None:
        try:
            while self.backlog:
                if not self._unsent:
                    self._unsent = self._send(self._seal(self._coalesced()))
                    self._wake()
                    continue
                with trio.fail_after(CONNECTION_WRITE_TIMEOUT_S):
                    await trio.lowlevel.wait_writable(self._socket.fileno())
                self._unsent = self._send(self._unsent)
                self.moved_at_s = trio.current_time()
                self._wake()
            self._flushing = False
        except trio.TooSlowError:
            _log.warning("peer_stopped_reading", waiting_bytes=self.backlog)
            self._socket.close()  # wakes the reader, which ends the connection
        except (ConnectionClosedError, OSError, trio.ClosedResourceError):
            pass  # the reader sees the same end and cleans up
        finally:
            if self._flushing:
                self._break()

    def _coalesced(self) -> bytes:
        taken, size = [], 0
        while self._frames and size < _COALESCED_BYTES:
            frame = self._frames.popleft()
            size += len(frame)
            taken.append(frame)
        self._frame_bytes -= size
        return b"".join(taken)

    def _break(self) -> None:
        self._broken = True
        self._unsent, self._frame_bytes = b"", 0
        self._frames.clear()
        self._wake()

    def _wake(self) -> None:
        self._progress.set()
        self._progress = trio.Event()
