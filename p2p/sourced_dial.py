"""TCP connections from a port of our choice: peers that see such connections see one port of a well-behaved NAT, so it
can be compared, and told to others as the place of a hole.

The port is never one that anybody listens on. SO_REUSEADDR lets several connections leave from it, to different peers.
"""

from __future__ import annotations

import errno
import ipaddress
import socket

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm

from ..protocol.errors import PeerUnreachable
from ..protocol.limits import SHUTDOWN_TIMEOUT_S
from ..protocol.units import NodeId
from .host import libp2p_id


class SourceTaken(PeerUnreachable):
    """The port cannot be used for this: an earlier connection from it to the same place has only just ended."""


def free_port() -> int:
    """A port that nothing uses now; 0, for any, when none can be had."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("0.0.0.0", 0))
            return int(probe.getsockname()[1])
    except OSError:
        return 0


async def dial_from(source_port: int, host: str, port: int, *, initiator: bool = True) -> RawConnection:
    """A TCP connection to an IP address that leaves from `source_port`, 0 for any; PeerUnreachable, or SourceTaken. Two
    such calls that cross make one connection: `initiator` says who speaks first on it. The caller bounds the time."""
    family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", source_port))
        await sock.connect((host, port))
    except OSError as error:
        sock.close()
        failure = SourceTaken if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL) else PeerUnreachable
        raise failure(f"{host}:{port} from port {source_port}: {error}") from error
    except BaseException:
        sock.close()
        raise
    return RawConnection(TrioTCPStream(trio.SocketStream(sock)), initiator)


async def upgrade(network: Swarm, raw: RawConnection, node: NodeId) -> None:
    """Make a connection with `node` of a socket, as the one who speaks first. Whatever the library raises passes, and
    the socket is closed then."""
    whole = False
    try:
        await network.upgrade_outbound_raw_conn(raw, libp2p_id(node))
        whole = True
    finally:
        if not whole:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S):
                await raw.close()
