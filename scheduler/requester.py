"""A requester on the network: its services joined. Apart from `node.py`, since a node needs none of this in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from .known_peers import KnownPeers
from .node import Ports, open_presence
from .registry import Registry
from .requester_service import News, RequesterService
from .supervision import plain_nursery


@asynccontextmanager
async def open_requester(
    ports: Ports, bootstrap: tuple[str, ...], observe: Callable[[News], None]
) -> AsyncIterator[RequesterService]:
    """Join the network as a requester."""
    config = await ports.chain.config()
    kept = KnownPeers(ports.journal, ports.clock)
    async with open_presence(
        ports.key, ports.transport, config.genesis, ports.clock, ports.randomness, bootstrap, ports.opener, kept
    ) as presence:
        registry, wire, blobs = Registry(ports.chain, ports.clock), presence.wire, ports.blobs
        async with plain_nursery() as nursery:
            yield RequesterService(
                wire, ports.chain, registry, presence, blobs, ports.journal, ports.randomness, observe, nursery
            )
            nursery.cancel_scope.cancel()
