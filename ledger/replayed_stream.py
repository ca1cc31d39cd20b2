"""A stream whose first bytes were read already, for the server that takes the connection over."""

from __future__ import annotations

import trio


class ReplayedStream(trio.abc.HalfCloseableStream):
    """Gives `head` back first, then what `inner` receives; sending and closing are those of `inner`."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, head: bytes) -> None:
        self._inner, self._head = inner, head

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See trio.abc.ReceiveStream."""
        if not self._head:
            return await self._inner.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        size = len(self._head) if max_bytes is None else max_bytes
        taken, self._head = self._head[:size], self._head[size:]
        return taken

    async def send_all(self, data: bytes | memoryview) -> None:
        """See trio.abc.SendStream."""
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """See trio.abc.HalfCloseableStream."""
        await self._inner.send_eof()

    async def aclose(self) -> None:
        """See trio.abc.AsyncResource."""
        await self._inner.aclose()
