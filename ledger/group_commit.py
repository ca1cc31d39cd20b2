"""One disk sync for all transactions that were accepted while the last one was under way.

A sync takes milliseconds, and a chain that waited for one per transaction would do little else. Transactions are
executed at once; what they changed is written in batches by a thread, and nobody is told anything - no signature, no
status, no notification - before the batch that it may rest on is on disk. So kill -9 loses nothing that was told.
"""

from __future__ import annotations

import trio

from ..protocol.errors import LocalError
from .cluster_store import ClusterStore


class GroupCommit:
    """Makes the transactions of `store` durable; None is a chain without a disk, on which all is durable at once."""

    def __init__(self, store: ClusterStore | None) -> None:
        self._store = store
        self._written = store.accepted if store is not None else 0
        self._wanted, self._round = trio.Event(), trio.Event()
        if store is not None:
            store.deferring = True

    async def durable(self) -> None:
        """Return once every transaction that has been accepted by now is on disk."""
        await trio.lowlevel.checkpoint()
        if self._store is None:
            return
        accepted = self._store.accepted
        while self._written < accepted:
            self._wanted.set()
            await self._round.wait()

    async def run(self) -> None:
        """Write batches until cancelled. LocalError when the disk refuses: the chain must end then."""
        while self._store is not None:
            await self._wanted.wait()
            self._wanted = trio.Event()
            accepted, batch = self._store.accepted, self._store.take_pending()
            try:
                await trio.to_thread.run_sync(self._store.write, batch)
            except LocalError:
                self._store.deferring = False  # what is in the batch is lost, and nobody was told of it
                raise
            self._written = accepted
            finished, self._round = self._round, trio.Event()
            finished.set()
