"""Who may open a connection to us: bounds for all, for each host, and for how often a host may knock.

The library bounds inbound connections by their number since the start, not by those that stand: its handler waits for
the end of the network, not of the connection, and after 128 of them a node accepts nobody any more. This handler
replaces it. Programs of this machine (loopback) share one host and are bounded only together with all others. An IPv6
host is its /64: whoever has one address of it has them all.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Any

import structlog
import trio
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm

from ..protocol.limits import (
    CONNECTIONS_PER_HOST,
    CONNECTIONS_PER_HOST_MAX,
    INBOUND_CONNECTIONS_MAX,
    SHUTDOWN_TIMEOUT_S,
)
from ..protocol.units import NodeId
from .gossip_rates import Buckets

_log = structlog.get_logger()


class Admission:
    """The inbound connections of one network, from the first byte of a handshake to their end."""

    def __init__(self, network: Swarm) -> None:
        self._network = network
        self._open: Counter[str] = Counter()
        self._knocks = Buckets(CONNECTIONS_PER_HOST)
        self.refused: Counter[str] = Counter()
        """How many were refused, by cause."""
        self.draining = False
        """Whether nobody is let in any more."""
        network._handle_inbound_connection = self.handle  # type: ignore[assignment,method-assign]

    @property
    def open(self) -> int:
        """Inbound connections that stand or are being made."""
        return self._open.total()

    async def handle(self, raw: Any, listened: Any) -> None:
        """Serve one accepted socket until its connection ends; raises nothing but cancellation."""
        host = host_of(raw.get_remote_address())
        cause = self._refusal(host)
        if cause:
            self.refused[cause] += 1
            _log.info("connection_refused", host=host, cause=cause)
            await self._close(raw)
            return
        self._open[host] += 1
        try:
            await self._serve(raw, listened)
        finally:
            self._open[host] -= 1
            if not self._open[host]:
                del self._open[host]

    def _refusal(self, host: str) -> str:
        """Why `host` may not come in now; empty when it may."""
        if self.draining:
            return "draining"
        if self._open.total() >= INBOUND_CONNECTIONS_MAX:
            return "total"
        if is_own_machine(host):
            return ""
        if self._open[host] >= CONNECTIONS_PER_HOST_MAX:
            return "host"
        return "" if self._knocks.take(NodeId(host.encode()), trio.current_time()) else "rate"

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


def host_of(remote: tuple[str, int] | None) -> str:
    """The host that a remote socket address counts for."""
    try:
        address = ipaddress.ip_address((remote or ("", 0))[0].partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def is_own_machine(host: str) -> bool:
    """Whether a host is loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
