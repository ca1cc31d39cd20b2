"""The doctor's questions to chain and peers, in worlds of real nodes and the real program; each failure provoked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from cyxnode.cli.checks_network import ChainChecks, PeerChecks
from cyxnode.cli.checkup import Check, Finding, Level, examine
from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.ledger.direct_rpc import DirectRpc
from cyxnode.ledger.faucet import request_airdrop, request_tokens
from cyxnode.p2p.memory import MemoryTransport
from cyxnode.protocol.chain import RequestUnstake
from cyxnode.protocol.errors import ChainUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import CLOCK_SKEW_MS, MICRO, RPC_SLOW_S
from cyxnode.protocol.ports import Transport
from cyxnode.scheduler import node as scheduler_node
from market_world import VirtualClock, World, open_world

OK, WARNING, FAILURE = Level.OK, Level.WARNING, Level.FAILURE
pytestmark = pytest.mark.slow


@dataclass
class SkewedClock:
    skew_ms: int = 0

    def unix_ms(self) -> int:
        return VirtualClock().unix_ms() + self.skew_ms

    def monotonic_ms(self) -> int:
        return VirtualClock().monotonic_ms()


class Slow:
    """An RPC server that takes its time."""

    def __init__(self, rpc: DirectRpc) -> None:
        self._rpc = rpc

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rpc, name)

    async def time(self) -> Any:
        await trio.sleep(2 * RPC_SLOW_S)
        return await self._rpc.time()


def chain_checks(world: World, name: str | None = "node0", *, skew_ms: int = 0, rpc: Any = None) -> ChainChecks:
    @asynccontextmanager
    async def open_rpc() -> AsyncIterator[Any]:
        if world.chain_away:
            raise ChainUnreachable("the RPC server is away")
        yield rpc or DirectRpc(world.cluster)

    node = world.key(name).node_id if name else None
    return ChainChecks(open_rpc, LOCAL_PROGRAM_ID, SkewedClock(skew_ms), node)


def levels(found: Sequence[Finding]) -> list[Level]:
    for one in found:
        assert bool(one.fix) == (one.level is not OK) and "\n" not in one.text + one.fix
    return [one.level for one in found]


async def test_a_chain_that_is_well_slow_or_away(autojump_clock: object) -> None:
    async with open_world() as world:
        await trio.sleep(1)
        checks = chain_checks(world)
        assert levels(await checks.rpc()) == levels(await checks.genesis()) == levels(await checks.time()) == [OK]
        assert levels(await chain_checks(world, rpc=Slow(DirectRpc(world.cluster))).rpc()) == [WARNING]
        world.chain_away = True
        asked = [Check("rpc", checks.rpc), Check("genesis", checks.genesis), Check("wallet", checks.wallet)]
        found = await examine(asked)
        assert levels([one for _, one in found]) == [FAILURE] * 3 and found[0][1].text == "the RPC server is away"


async def test_a_program_of_another_cluster(autojump_clock: object) -> None:
    class Elsewhere(DirectRpc):
        async def genesis_hash(self) -> bytes:
            return bytes(32)

    async with open_world() as world:
        (found,) = await chain_checks(world, rpc=Elsewhere(world.cluster)).genesis()
        assert levels([found]) == [FAILURE] and "--rpc" in found.fix


@pytest.mark.parametrize(
    ("skew_ms", "level"),
    [(0, OK), (CLOCK_SKEW_MS // 2, WARNING), (-CLOCK_SKEW_MS // 2, WARNING), (2 * CLOCK_SKEW_MS, FAILURE)],
)
async def test_a_clock_that_is_wrong(autojump_clock: object, skew_ms: int, level: Level) -> None:
    async with open_world() as world:
        await trio.sleep(1)
        (found,) = await chain_checks(world, skew_ms=skew_ms).time()
        assert levels([found]) == [level]
        assert ("ahead of" in found.text) == (skew_ms > 0) or skew_ms == 0


async def test_a_wallet_from_empty_to_unbonding(autojump_clock: object) -> None:
    async with open_world() as world:
        checks, rpc, me = chain_checks(world), DirectRpc(world.cluster), world.key("node0").node_id
        assert levels(await chain_checks(world, None).wallet()) == [WARNING]
        assert levels(await checks.wallet()) == [FAILURE, FAILURE]
        await request_airdrop(rpc, me, 1_000_000)
        await request_tokens(rpc, me, 100 * MICRO)
        poor = await checks.wallet()
        assert levels(poor) == [WARNING, WARNING] and "cyxnode run" in poor[1].fix
        node = await world.add_node("node0")
        assert levels(await checks.wallet()) == [OK, OK]
        await node.context.chain.submit(RequestUnstake())
        leaving = await checks.wallet()
        assert levels(leaving) == [OK, FAILURE] and "--reactivate" in leaving[1].fix


def peer_checks(world: World, *addresses: str, skew_ms: int = 0) -> PeerChecks:
    @asynccontextmanager
    async def open_transport(key: KeyPair) -> AsyncIterator[Transport]:
        async with MemoryTransport(world.network, key.node_id).run() as transport:
            yield transport

    @asynccontextmanager
    async def genesis() -> AsyncIterator[bytes]:
        yield world.cluster.genesis_hash

    source: Callable[[], AbstractAsyncContextManager[bytes]] = genesis
    return PeerChecks(open_transport, SkewedClock(skew_ms), source, lambda: addresses)


async def test_peers_that_answer_and_peers_that_do_not(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(2)
        await trio.sleep(30)
        one, other = (node.context.wire.transport.addresses()[0] for node in world.nodes.values())
        found = await peer_checks(world, *world.bootstrap, one).peers()
        assert levels(found) == [OK, OK, OK] and "knows 2 nodes" in found[0].text and "version" in found[1].text
        world.kill(world.key("node1").node_id)
        found = await peer_checks(world, one, other).peers()
        assert levels(found) == [OK, WARNING, OK] and "does not answer" in found[1].text
        assert levels(await peer_checks(world, other).peers()) == [WARNING, FAILURE]
        assert levels(await peer_checks(world).peers()) == [WARNING]


async def test_a_peer_of_another_network_does_not_answer(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(1)
        world.cluster.genesis_hash = bytes(32)  # type: ignore[misc]
        assert levels(await peer_checks(world, *world.bootstrap).peers()) == [WARNING, FAILURE]


@pytest.mark.parametrize(("skew_ms", "level"), [(-25_000, WARNING), (3 * CLOCK_SKEW_MS, FAILURE)])
async def test_a_clock_beside_the_peers(autojump_clock: object, skew_ms: int, level: Level) -> None:
    async with open_world() as world:
        await world.add_nodes(3)
        await trio.sleep(10)
        addresses = [node.context.wire.transport.addresses()[0] for node in world.nodes.values()]
        assert levels(await peer_checks(world, *addresses, skew_ms=skew_ms).peers())[-1] is level


async def test_a_peer_of_another_version(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_node, "__version__", "0.0.9")
    async with open_world() as world:
        node = await world.add_node("old")
        found = await peer_checks(world, *node.context.wire.transport.addresses()).peers()
        assert levels(found)[0] is WARNING and "version 0.0.9" in found[0].text


async def test_peers_that_do_not_hear_one_another(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(6)
        await trio.sleep(60)
        addresses = [node.context.wire.transport.addresses()[0] for node in world.nodes.values()]
        found = await peer_checks(world, *world.bootstrap, *addresses).peers()
        assert levels(found) == [OK] * 8 and not any("split" in one.text for one in found)
        world.network.partition([list(world.nodes)[::2]])
        await trio.sleep(45)
        world.network.heal()
        found = await peer_checks(world, *addresses).peers()
        assert levels(found)[-1] is WARNING and "3 agree and 3 agree on who is there" in found[-1].text
