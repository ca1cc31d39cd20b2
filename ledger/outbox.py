"""What waits to be sent to one websocket: bounded in messages and in bytes, so that a slow reader costs no memory."""

from __future__ import annotations

from collections import deque

import trio

from ..protocol.limits import OUTBOX_MAX_BYTES, OUTBOX_MESSAGES_MAX


class Outbox:
    """A queue between the cluster, which never waits, and a socket, which may."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._wake = trio.Event()
        self.overflowed = False
        """The reader fell behind: what waited is gone, and nothing more is taken."""

    def put(self, message: bytes) -> None:
        """Queue a message. Beyond a bound everything is dropped at once and `overflowed` is set."""
        if self.overflowed:
            return
        self._messages.append(message)
        self._bytes += len(message)
        if len(self._messages) > OUTBOX_MESSAGES_MAX or self._bytes > OUTBOX_MAX_BYTES:
            self._messages.clear()
            self._bytes, self.overflowed = 0, True
        self._wake.set()

    async def take(self) -> bytes | None:
        """The next message; None once the outbox has overflowed."""
        while not self._messages and not self.overflowed:
            self._wake = trio.Event()
            await self._wake.wait()
        if self.overflowed:
            return None
        message = self._messages.popleft()
        self._bytes -= len(message)
        return message
