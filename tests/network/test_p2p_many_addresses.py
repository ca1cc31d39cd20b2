"""A node that is told at several addresses is reached at the one that works, whatever the others do."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.errors import PeerUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import DIAL_TIMEOUT_S
from cyxnode.protocol.units import NodeId

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p.transport import Libp2pTransport

pytestmark = pytest.mark.slow
ECHO = "/cyx/1/echo"


async def echo(_peer: NodeId, payload: bytes) -> bytes:
    return payload


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Libp2pTransport, Libp2pTransport]]:
    near, far = (Libp2pTransport(KeyPair(bytes([number]) * 32)) for number in (1, 2))
    far.serve(ECHO, echo)
    async with near.run(), far.run():
        yield near, far


@asynccontextmanager
async def silence(node: NodeId) -> AsyncIterator[str]:
    """An address where a machine takes calls and says nothing, as another one with a node's address may."""
    with trio.socket.socket() as silent:
        await silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{peer_id_text(node)}"


async def test_an_address_where_nobody_speaks_does_not_hide_a_node() -> None:
    async with two() as (near, far), silence(far.node_id) as nowhere:
        near.learn(far.node_id, [nowhere, *far.addresses()])
        with trio.fail_after(DIAL_TIMEOUT_S / 4):
            assert await near.request(far.node_id, ECHO, b"hello", timeout_s=DIAL_TIMEOUT_S) == b"hello"


async def test_an_address_that_is_learnt_during_the_attempt_is_tried_at_once() -> None:
    async with two() as (near, far), silence(far.node_id) as nowhere, trio.open_nursery() as nursery:
        near.learn(far.node_id, [nowhere])
        nursery.start_soon(near.open_stream, far.node_id, ECHO)
        await trio.testing.wait_all_tasks_blocked()
        near.learn(far.node_id, far.addresses())
        with trio.fail_after(DIAL_TIMEOUT_S / 4):
            while far.node_id not in near.connected():  # noqa: ASYNC110 -- another task dials
                await trio.sleep(0.02)


async def test_who_is_nowhere_is_unreachable_when_all_have_failed() -> None:
    async with two() as (near, far):
        gone = [f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id_text(far.node_id)}" for port in (1, 2, 3)]
        near.learn(far.node_id, gone)
        with trio.fail_after(DIAL_TIMEOUT_S), pytest.raises(PeerUnreachable, match="cannot be reached"):
            await near.request(far.node_id, ECHO, b"", timeout_s=DIAL_TIMEOUT_S)
