"""Imports libp2p without the deprecation warnings of its own dependencies, which are not ours to mend, and without the
parts of it that a node does not use (see postponed.py). Names come from the library's modules, not from its packages:
asking a package for one loads all that it holds."""

from __future__ import annotations

import warnings

from .postponed import postponed

PACKAGES = (
    "httpx",
    "libp2p",
    "libp2p.discovery.mdns",
    "libp2p.kad_dht",
    "libp2p.relay",
    "libp2p.relay.circuit_v2",
    "libp2p.security.tls",
    "libp2p.transport",
    "requests",
)
"""`httpx` and `requests` are wanted by its ACME client alone."""

with warnings.catch_warnings(), postponed(PACKAGES):
    warnings.simplefilter("ignore")
    import libp2p
    import libp2p.host.basic_host
    import libp2p.pubsub.gossipsub
    import libp2p.security.noise.transport
    import libp2p.tools.anyio_service

__all__ = ["libp2p"]
