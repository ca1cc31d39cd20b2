"""Transports in one process, of which some cannot be dialled: they listen at an address of loopback from which nothing
ever leaves, so that whoever calls back where they are seen finds nobody."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.units import NodeId

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p.links import is_relayed, links
    from cyxnode.p2p.transport import Libp2pTransport

ECHO = "/cyx/1/echo"
HIDDEN = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


def key(number: int) -> KeyPair:
    return KeyPair(number.to_bytes(32, "big"))


async def echo(_peer: NodeId, payload: bytes) -> bytes:
    return payload


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- any state of any object
            await trio.sleep(0.02)


def kinds(one: Libp2pTransport, other: Libp2pTransport) -> list[str]:
    """The connections between two, as the first of them sees them."""
    return sorted("relayed" if is_relayed(link) else "direct" for link in links(one._network, other.node_id))


def through(transport: Libp2pTransport) -> list[str]:
    """The addresses that lead through relays."""
    return [one for one in transport.addresses() if "/p2p-circuit/" in one]


@asynccontextmanager
async def reach_world(
    *, relays: int = 2, public: int = 0, hidden: int = 0, joined: bool = True, **options: Any
) -> AsyncIterator[tuple[list[Libp2pTransport], list[Libp2pTransport], list[Libp2pTransport]]]:
    """Relays, nodes that can be dialled, and nodes that cannot; the latter two know the relays, when `joined`."""
    made = [Libp2pTransport(key(1 + n), relay=True, **options) for n in range(relays)]
    seen = [Libp2pTransport(key(11 + n), **options) for n in range(public)]
    unseen = [Libp2pTransport(key(21 + n), host=HIDDEN[n], **options) for n in range(hidden)]
    async with AsyncExitStack() as stack:
        for transport in (*made, *seen, *unseen):
            await stack.enter_async_context(transport.run())
            transport.serve(ECHO, echo)
        for transport in (*seen, *unseen) if joined else ():
            for relay in made:
                await transport.connect(relay.addresses()[0])
        if joined:
            for transport in unseen:
                await until(lambda transport=transport: len(transport.reach_report.relays) == relays)
        yield made, seen, unseen
