"""Who may open a connection to us: bounds for all, for each host, and for how often a host may knock. Pure.

Programs of this machine (loopback) share one host and are bounded only together with all others. An IPv6 host is its
/64: whoever has one address of it has them all.
"""

from __future__ import annotations

import ipaddress
from collections import Counter

from ..protocol.limits import CONNECTIONS_PER_HOST, CONNECTIONS_PER_HOST_MAX, INBOUND_CONNECTIONS_MAX
from .buckets import Buckets


class Doors:
    """The inbound connections of one node that stand or are being made, by host."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._knocks = Buckets[str](CONNECTIONS_PER_HOST)
        self.refused: Counter[str] = Counter()
        """How many were refused, by cause."""
        self.draining = False
        """Whether nobody is let in any more."""

    @property
    def open(self) -> int:
        """Inbound connections that stand or are being made."""
        return self._open.total()

    def enter(self, host: str, now_s: float) -> str:
        """Let `host` in, which is to `leave` later: empty; or why it may not come in now."""
        cause = self._refusal(host, now_s)
        if cause:
            self.refused[cause] += 1
        else:
            self._open[host] += 1
        return cause

    def leave(self, host: str) -> None:
        """A connection of `host` has ended."""
        self._open[host] -= 1
        if self._open[host] <= 0:
            del self._open[host]

    def _refusal(self, host: str, now_s: float) -> str:
        if self.draining:
            return "draining"
        if self._open.total() >= INBOUND_CONNECTIONS_MAX:
            return "total"
        if is_own_machine(host):
            return ""
        if self._open[host] >= CONNECTIONS_PER_HOST_MAX:
            return "host"
        return "" if self._knocks.take(host, now_s) else "rate"


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
