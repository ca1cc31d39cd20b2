"""A world of each kind of transport."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from transport_world import World, libp2p_world, memory_world


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("fast", "library"))])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """In memory, and over libp2p with the fast path for gossip and without it: what the port promises holds in all."""
    async with memory_world() if request.param == "memory" else libp2p_world(fast=request.param == "fast") as one:
        yield one
