"""A bootstrap node: a well-known address where newcomers learn whom else to call (DESIGN 1).

It hears presence and answers peer exchange; its transport calls nodes back, and relays to those that cannot be dialled.
It has no power over the market: it offers nothing, and what it hands on is signed by others. A network whose bootstrap
nodes are gone goes on among those who know one another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from ..protocol.identity import KeyPair
from ..protocol.ports import Clock, Randomness, Transport
from ..protocol.units import base58
from ..scheduler.node import open_presence
from ..scheduler.presence_service import PresenceService

log = structlog.get_logger()


@asynccontextmanager
async def open_bootstrap(
    key: KeyPair,
    transport: Transport,
    genesis: bytes,
    clock: Clock,
    randomness: Randomness,
    peers: tuple[str, ...] = (),
) -> AsyncIterator[PresenceService]:
    """Serve newcomers while the context is open; `peers` are other bootstrap nodes."""
    async with open_presence(key, transport, genesis, clock, randomness, peers) as presence:
        log.info("bootstrap ready", node=base58(key.node_id), addresses=transport.addresses())
        yield presence
