"""Which of a node's addresses to dial first, and for how long.

A node behind a router tells the address that it has at home, too. From elsewhere nobody answers there, and a call to it
waits for its whole time limit; or somebody else does, who has the same address in our own network, and fails the
handshake. What cannot be told from outside is tried last and briefly: private networks may be routed to one another.
Pure, but for `own_networks`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from enum import IntEnum

import psutil

from ..protocol.limits import DIAL_FAR_TIMEOUT_S, DIAL_TIMEOUT_S
from .addresses import PeerAddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Nearness(IntEnum):
    """What an address is to us; the least is dialled first."""

    OPEN = 0
    """Of the internet, a name, or of a network that this machine is in."""
    RELAYED = 1
    FAR = 2
    """Private, of a network that this machine is not in; or loopback, which every machine has."""


def nearness(address: PeerAddress, networks: Sequence[Network]) -> Nearness:
    """What `address` is to a machine in these networks."""
    if address.relay is not None:
        return Nearness.RELAYED
    try:
        host = ipaddress.ip_address(address.host)
    except ValueError:
        return Nearness.OPEN
    if host.is_loopback:
        return Nearness.FAR
    return Nearness.OPEN if host.is_global or any(host in network for network in networks) else Nearness.FAR


def likeliest_first(addresses: Iterable[PeerAddress], networks: Sequence[Network]) -> list[PeerAddress]:
    """In the order in which they should be dialled; of equals, the one that was told first."""
    return sorted(addresses, key=lambda address: nearness(address, networks))


def patience_s(address: PeerAddress, networks: Sequence[Network]) -> float:
    """How long an attempt may take."""
    return DIAL_FAR_TIMEOUT_S if nearness(address, networks) is Nearness.FAR else DIAL_TIMEOUT_S


def own_networks() -> list[Network]:
    """The networks that this machine has an interface in."""
    found: list[Network] = []
    for interface in psutil.net_if_addrs().values():
        for one in interface:
            try:
                host = one.address.partition("%")[0]
                found.append(ipaddress.ip_interface(f"{host}/{_prefix(one.netmask)}").network)
            except ValueError:
                continue  # a hardware address, or an interface without a mask
    return found


def _prefix(netmask: str | None) -> str:
    """The length of a mask, which psutil tells as an address."""
    if netmask is None:
        return "none"
    bits = int(ipaddress.ip_address(netmask))
    return str(bits.bit_count())
