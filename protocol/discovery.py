"""How peers find one another: the names under which a network, its classes and its nodes are looked for.

Every name holds the genesis hash, so that two networks on the same machines, LAN or bootstrap nodes do not mix.
"""

from __future__ import annotations

from hashlib import sha256

from .units import NodeId, base58

RECORD_NAMESPACE = "cyx"


def class_key(genesis: bytes, execution_class: bytes) -> bytes:
    """The key in the DHT (32 bytes) whose providers are the nodes of an execution class."""
    return sha256(b"cyx/1/class" + genesis + execution_class[:8]).digest()


def class_namespace(genesis: bytes, execution_class: bytes) -> str:
    """Where the nodes of an execution class register at a rendezvous point."""
    return f"{namespace_prefix(genesis)}{execution_class[:8].hex()}"


def namespace_prefix(genesis: bytes) -> str:
    """With which every namespace of a network begins; 16 hexadecimal digits follow."""
    return f"cyx/1/class/{genesis[:8].hex()}/"


def record_key(node: NodeId) -> bytes:
    """The key in the DHT of a node's own capability record."""
    return f"/{RECORD_NAMESPACE}/{base58(node)}".encode()


def dht_protocol(genesis: bytes) -> str:
    """The protocol of a network's DHT; its frames are those of libp2p's kad-DHT."""
    return f"/cyx/1/{genesis[:8].hex()}/kad/1.0.0"


def rendezvous_protocol(genesis: bytes) -> str:
    """The protocol of a network's rendezvous points; its frames are libp2p's."""
    return f"/cyx/1/{genesis[:8].hex()}/rendezvous/1.0.0"


def lan_service(genesis: bytes) -> str:
    """The DNS-SD service type of a network's nodes on a LAN; a label has 15 characters at most."""
    return f"_cyx-{genesis[:4].hex()}._udp.local."
