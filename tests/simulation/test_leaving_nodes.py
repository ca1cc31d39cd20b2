"""Who asked to leave does not come back by accident, and no order outlasts the stakes that stand behind it."""

from __future__ import annotations

import pytest
import trio

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.ledger.genesis import GRACE_S, UNBONDING_S
from cyxnode.protocol.chain import Register, RequestUnstake, WithdrawStake
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import MicroCyx
from cyxnode.scheduler.context import NodeSettings
from cyxnode.scheduler.node import Ports, ensure_registered
from cyxnode.scheduler.orders import News
from cyxnode.simulation.plan import Plan
from cyxnode.simulation.world import open_world as open_simulated
from market_world import World, open_world, run_job


async def refusal(ports: Ports) -> LocalError:
    """What a restart of the node says."""
    with pytest.raises(LocalError) as caught:
        await ensure_registered(ports, SimulatedRunner(), NodeSettings())
    return caught.value


async def leaving(world: World) -> Ports:
    """A registered node that has asked for its stake."""
    ports = await world.ports("leaver", micro_cyx=200 * MICRO)
    await ensure_registered(ports, SimulatedRunner(), NodeSettings())
    await ports.chain.submit(RequestUnstake())
    return ports


async def test_an_unbonding_node_is_not_registered_again_by_its_restart(autojump_clock: object) -> None:
    async with open_world() as world:
        ports = await leaving(world)
        before = await ports.chain.node(ports.key.node_id)
        error = await refusal(ports)
        assert error.field == "stake" and "unbonding until 20" in str(error) and "--reactivate" in error.fix
        assert await ports.chain.node(ports.key.node_id) == before, "nothing was sent"


async def test_a_node_without_stake_says_how_to_come_back(autojump_clock: object) -> None:
    async with open_world() as world:
        ports, runner = await leaving(world), SimulatedRunner()
        world.cluster.advance(world.cluster.unix_s + UNBONDING_S)
        assert "waits to be withdrawn" in str(await refusal(ports))
        await ports.chain.submit(WithdrawStake(ports.key.node_id))
        assert "wallet stake 100.000000" in (await refusal(ports)).fix
        await ports.chain.submit(Register(runner.execution_class, MicroCyx(100 * MICRO), ports.key.node_id))
        assert (await ensure_registered(ports, runner, NodeSettings())).stake == 100 * MICRO


async def test_an_order_that_outlasts_the_stakes_is_refused_before_anything_is_sent(autojump_clock: object) -> None:
    heard: list[News] = []
    async with open_world() as world:
        await world.add_nodes(4)
        requester = await world.add_requester(observe=heard.append)
        longest_s = UNBONDING_S - GRACE_S - 31
        with pytest.raises(LocalError, match=f"outlast the {UNBONDING_S} s") as caught:
            await run_job(requester, work_seconds=longest_s + 1)
        assert caught.value.field == "work_seconds" and caught.value.fix == f"at most {longest_s}"
        assert heard == [] and await world.balance(requester.wire.me) == 50 * MICRO
        with trio.move_on_after(60):
            await run_job(requester, work_seconds=longest_s)
        assert any(getattr(news, "name", "") == "funded" for news in heard), "the chain takes the longest order"


async def test_a_crashed_node_that_may_not_serve_stays_down_in_a_simulated_world(autojump_clock: object) -> None:
    async with open_simulated(Plan(seed=1)) as world:
        peer = world.new_peer("leaver", micro_cyx=200 * MICRO)
        await world.start(peer)
        world.kill(peer)
        await world.start(peer)
        assert peer.node is not None and peer.lives == 2
        await world.ports(peer).chain.submit(RequestUnstake())
        world.kill(peer)
        await world.start(peer)
        assert peer.node is None and peer.lives == 2
