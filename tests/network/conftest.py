"""A world of each kind of transport, and a local chain."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from cyxnode.ledger.chain_service import serve_chain
from transport_world import World, libp2p_world, memory_world


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("fast", "library"))])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """In memory, and over libp2p with the fast path for gossip and without it: what the port promises holds in all."""
    async with memory_world() if request.param == "memory" else libp2p_world(fast=request.param == "fast") as one:
        yield one


@pytest.fixture
async def url(nursery: trio.Nursery) -> AsyncIterator[str]:
    """Where a local chain answers."""
    started: str = await nursery.start(serve_chain, "127.0.0.1", 0, None)
    yield started
    nursery.cancel_scope.cancel()
