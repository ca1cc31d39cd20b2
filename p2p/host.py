"""The libp2p host of a node: TCP, Noise and yamux, and nothing else.

The defaults of the library also accept TLS, secio and plaintext, mplex, automatic dialling of strangers and limits that
shrink when they are hit; all of that is switched off here.
"""

from __future__ import annotations

from . import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence

import psutil
import trio
from libp2p.abc import IHost, IMuxedConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.rcmgr import ResourceLimits, ResourceManager
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_ID
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_ID
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.manager import TransportManager
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from ..protocol.identity import KeyPair
from ..protocol.limits import DIAL_TIMEOUT_S, INBOUND_STREAMS_MAX, PEERS_CONNECTED_MAX, SHUTDOWN_TIMEOUT_S
from ..protocol.units import NodeId
from .fast_gossip.connection import FastMuxer
from .peer_id import node_of_bytes, peer_id_bytes
from .peer_table import PeerTable

_CONNECTIONS_MAX = 2 * PEERS_CONNECTED_MAX
"""Two peers that dial each other at once keep two connections for a while."""
_STREAMS_PER_PEER = 4
"""Streams of the library itself: gossip both ways, identify both ways."""


def listen_address(host: str, port: int) -> Multiaddr:
    """The multiaddr of an IP address and a TCP port (0: any free port)."""
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}")


def build_host(key: KeyPair, announce: Sequence[str], *, fast: bool = False) -> tuple[IHost, Swarm]:
    """A host that is not running yet, and its network: what the library's `new_host` builds, from its modules alone.
    `announce` replaces the listening addresses, if given; `fast` gives it the connections of the fast path."""
    pair, peer, resources = create_new_key_pair(key.seed), libp2p_id(key.node_id), _resource_manager()
    noise = NoiseTransport(pair, noise_privkey=create_noise_key_pair().private_key)
    upgrader = TransportUpgrader({NOISE_ID: noise}, {TProtocol(YAMUX_ID): Yamux})
    if fast:
        upgrader.muxer_multistream = FastMuxer({TProtocol(YAMUX_ID): Yamux})
    network = Swarm(
        peer,
        PeerTable(peer, pair),
        upgrader,
        transports=[TCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=_connection_config(),
        transport_manager=TransportManager(),
    )
    network.set_resource_manager(resources)
    network.auto_connector.maybe_connect = _dial_nobody  # type: ignore[method-assign]
    network.auto_connector.record_disconnect = _remember_nobody  # type: ignore[method-assign]
    host = BasicHost(
        network,
        resource_manager=resources,
        announce_addrs=[Multiaddr(address) for address in announce] or None,
        disable_identify_address_discovery=True,
    )
    return host, network


def forget_strangers(network: Swarm) -> None:
    """Keep the library's table of peers within its bound."""
    assert isinstance(network.peerstore, PeerTable)
    network.peerstore.make_room(network.connections)


async def _dial_nobody() -> None:
    """The library would dial whoever it has heard of until half of `high_watermark` connections stand."""


def _remember_nobody(peer_id: ID) -> None:
    """The library would note who has gone, so as not to dial it at once, for ever."""


def refuse_peers(network: Swarm, refused: Callable[[NodeId], bool]) -> None:
    """Let no connection with a refused peer stand, whoever dialled. It is closed when the peer has proven who it is,
    which is the first moment at which that is known, and before any stream of it is served."""
    plain = network.add_conn

    async def admit(muxed_conn: IMuxedConn, direction: str = "unknown") -> SwarmConn:
        node = node_of(muxed_conn.peer_id)
        if node is not None and refused(node):
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S):
                await muxed_conn.close()
            raise SwarmException("the peer is refused here")
        return await plain(muxed_conn, direction)

    network.add_conn = admit  # type: ignore[method-assign]


def reachable_addresses(address: str) -> Iterator[str]:
    """`address`, or, where it names every interface (0.0.0.0 or ::), one for each address of this machine."""
    network, wild = address.split("/")[1:3]
    if wild not in ("0.0.0.0", "::"):
        yield address
        return
    family = socket.AF_INET if network == "ip4" else socket.AF_INET6
    hosts = [one.address for interface in psutil.net_if_addrs().values() for one in interface if one.family == family]
    usable = [host for host in hosts if "%" not in host and not ipaddress.ip_address(host).is_link_local]
    for host in sorted(usable, key=lambda host: ipaddress.ip_address(host).is_loopback):
        yield address.replace(wild, host, 1)


def libp2p_id(node: NodeId) -> ID:
    """The library's name of a node."""
    return ID(peer_id_bytes(node))


def node_of(peer: ID) -> NodeId | None:
    """The node that a library's peer id names; None when its key is not ed25519."""
    return node_of_bytes(peer.to_bytes())


def _connection_config() -> ConnectionConfig:
    return ConnectionConfig(
        max_connections=_CONNECTIONS_MAX,
        min_connections=0,
        low_watermark=0,
        high_watermark=_CONNECTIONS_MAX,
        dial_timeout=DIAL_TIMEOUT_S,
        inbound_upgrade_timeout=DIAL_TIMEOUT_S,
        outbound_upgrade_timeout=DIAL_TIMEOUT_S,
        outbound_stream_protocol_negotiation_timeout=DIAL_TIMEOUT_S,
        inbound_stream_protocol_negotiation_timeout=DIAL_TIMEOUT_S,
    )


def _resource_manager() -> ResourceManager:
    # Every connection is counted twice while it is upgraded; our own bounds are reached first.
    return ResourceManager(
        limits=ResourceLimits(
            max_connections=4 * _CONNECTIONS_MAX,
            max_streams=4 * INBOUND_STREAMS_MAX + _STREAMS_PER_PEER * _CONNECTIONS_MAX,
        ),
        enable_metrics=False,
        enable_memory_limits=False,
        enable_graceful_degradation=False,
        enable_circuit_breaker=False,
    )
