"""What stands behind the library's connections: the remote socket, and whether a relay lies between."""

from __future__ import annotations

import ipaddress
from typing import Any

from libp2p.connection_types import ConnectionType
from libp2p.network.swarm import Swarm

from ..protocol.units import NodeId
from .host import libp2p_id


def links(network: Swarm, node: NodeId) -> list[Any]:
    """The live connections with `node`."""
    return [one for one in network.connections.get(libp2p_id(node), ()) if not one.is_closed]


def is_relayed(link: Any) -> bool:
    """Whether a relay carries this connection."""
    return link.get_connection_type() is ConnectionType.RELAYED


def has_direct(network: Swarm, node: NodeId) -> bool:
    """Whether there is a connection with `node` that no relay carries."""
    return any(not is_relayed(link) for link in links(network, node))


def remote_of(link: Any) -> tuple[str, int] | None:
    """The remote socket of a direct connection, an IPv4 address inside IPv6 unwrapped; None of a relayed one."""
    if is_relayed(link):
        return None
    remote = link.muxed_conn.get_remote_address()
    return None if remote is None else (plain_host(remote[0]), int(remote[1]))


def plain_host(host: str) -> str:
    """An IP address in its one canonical form; anything else as it is."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
