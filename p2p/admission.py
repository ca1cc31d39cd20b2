"""Lets connections in by the rules of doors.py, in place of the library.

The library bounds inbound connections by their number since the start, not by those that stand: its handler waits for
the end of the network, not of the connection, and after 128 of them a node accepts nobody any more. This handler
replaces it.
"""

from __future__ import annotations

from typing import Any

import structlog
import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm

from ..protocol.limits import SHUTDOWN_TIMEOUT_S
from .doors import Doors, host_of

_log = structlog.get_logger()


class Admission:
    """The inbound connections of one network, from the first byte of a handshake to their end."""

    def __init__(self, network: Swarm) -> None:
        self._network = network
        self.doors = Doors()
        network._handle_inbound_connection = self.handle  # type: ignore[assignment,method-assign]

    async def handle(self, raw: Any, listened: Any) -> None:
        """Serve one accepted socket until its connection ends; raises nothing but cancellation."""
        host = host_of(raw.get_remote_address())
        cause = self.doors.enter(host, trio.current_time())
        if cause:
            _log.info("connection_refused", host=host, cause=cause)
            await self._close(raw)
            return
        try:
            await self._serve(raw, listened)
        finally:
            self.doors.leave(host)

    async def _serve(self, raw: Any, listened: Any) -> None:
        try:
            connection: Any = await self._network.upgrade_inbound_raw_conn(RawConnection(raw, False), listened)
            await connection.event_shutting_down.wait()
            with trio.move_on_after(SHUTDOWN_TIMEOUT_S):
                await connection.event_closed.wait()
        except Exception as error:
            # Whatever a stranger's handshake provokes in the library ends the connection, never the node.
            _log.debug("connection_failed", cause=repr(error)[:200])
        finally:
            await self._close(raw)

    async def _close(self, raw: Any) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S):
            try:
                await raw.close()
            except Exception as error:
                # The socket is gone already, in one of the library's many ways.
                _log.debug("connection_gone", cause=repr(error)[:200])
