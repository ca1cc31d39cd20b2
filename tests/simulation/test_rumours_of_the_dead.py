"""What others say of a dead node: it buys the dead no more time than their own last word, whoever lies about it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from cyxnode.protocol.envelope import open_any, seal
from cyxnode.protocol.limits import CLOCK_TRUST_MS, DEAD_AFTER_MS
from cyxnode.protocol.messages import PeersAnswer
from cyxnode.protocol.ports import RequestHandler, Transport
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.presence import Liveness
from cyxnode.scheduler.wire import PEERS
from market_world import World, open_world
from saboteurs import replaced

pytestmark = pytest.mark.slow
TICK_S = 2.0
"""More than the second by which a death may be noticed late, and the way of a message."""


class Liar:
    """A transport of a node that says of everybody that it has just been heard."""

    def __init__(self, honest: Transport, world: World) -> None:
        self._honest, self._world = honest, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._honest, name)

    def serve(self, protocol: str, handler: RequestHandler) -> None:
        """As the honest one, with every silence denied."""

        async def lie(peer: NodeId, payload: bytes) -> bytes:
            genesis = self._world.cluster.genesis_hash
            signed = open_any(await handler(peer, payload), genesis)
            assert isinstance(signed.message, PeersAnswer)
            denied = replaced(signed.message, silent_ms=(0,) * len(signed.message.records))
            key = next(self._world.key(name) for name in NAMES if self._world.key(name).node_id == signed.sender)
            return seal(key, genesis, denied)

        self._honest.serve(protocol, lie if protocol == PEERS else handler)


NAMES = ("a", "b", "c", "d")


async def killed_node(world: World) -> NodeId:
    """Four nodes that know one another, one of which dies."""
    nodes = [await world.add_node(name) for name in NAMES]
    await trio.sleep(60)
    dead = nodes[-1].context.wire.me
    assert all(dead in node.presence.alive() for node in nodes[:-1])
    world.kill(dead)
    return dead


async def test_who_joins_after_a_death_buries_the_dead_with_the_others(autojump_clock: object) -> None:
    async with open_world() as world:
        dead = await killed_node(world)
        await trio.sleep(18)
        late = await world.add_node("late")
        requester = await world.add_requester()
        await trio.sleep(2)
        assert dead in late.presence.state.members, "it is told of"
        await trio.sleep(DEAD_AFTER_MS / 1000 - 20 + TICK_S)
        await requester.presence.exchange.survey(late.presence.cell.execution_class)  # type: ignore[union-attr]
        believers = [late.presence, requester.presence, *(world.nodes[n].presence for n in world.nodes if n != dead)]
        assert [dead in presence.alive() for presence in believers] == [False] * len(believers)


async def test_the_dead_are_known_to_be_silent_as_soon_as_one_is_told(autojump_clock: object) -> None:
    async with open_world() as world:
        dead = await killed_node(world)
        witness = world.nodes[world.key("a").node_id].presence
        await trio.sleep_until(witness.state.members[dead].seen_at_ms / 1000 + 24)
        late = await world.add_node("late")
        await trio.sleep(2)
        assert late.presence.state.members[dead].liveness is Liveness.SUSPECT


async def test_a_lie_buys_the_dead_no_more_than_the_trust_in_a_clock(autojump_clock: object) -> None:
    async with open_world() as world:
        world.tamper = lambda transport: Liar(transport, world)  # type: ignore[assignment, return-value]
        dead = await killed_node(world)
        world.tamper = lambda transport: transport
        await trio.sleep(15)
        late = await world.add_node("late")
        witness = world.nodes[world.key("a").node_id].presence
        while dead in witness.alive():  # noqa: ASYNC110
            await trio.sleep(0.5)
        assert dead in late.presence.alive(), "the lie is believed"
        await trio.sleep(CLOCK_TRUST_MS / 1000 + TICK_S)
        assert dead not in late.presence.alive()
