"""Two members sign that a job went well, and that it failed. Somebody gossips the second; both lose their stakes."""

from __future__ import annotations

import msgspec
import pytest
import trio

from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.messages import Outcome
from cyxnode.protocol.settlement import Settlement, settle_message
from cyxnode.protocol.validation import market_topic
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.room import Room
from market_world import World, open_world, run_job

pytestmark = pytest.mark.slow


def rooms(world: World) -> list[Room]:
    return [room for node in world.nodes.values() for room in node.market.rooms.by_job.values()]


async def test_a_member_that_signs_both_ways_is_slashed_by_whoever_hears_it(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED
        room = next(room for room in rooms(world) if room.outcome is not None)
        terms, outcome = room.auction.terms, room.outcome
        assert terms is not None and outcome is not None
        keys = {world.key(f"node{number}").node_id: world.key(f"node{number}") for number in range(5)}
        liars: list[KeyPair] = [keys[member] for member, _ in outcome.message.signatures]  # type: ignore[index]
        other = Settlement(Verdict.FAILED, outcome.message.worker, 0, 0, bytes(32), 0)  # type: ignore[arg-type]
        message = settle_message(terms, outcome.message.round, other)
        forged = msgspec.structs.replace(
            outcome.message, verdict=Verdict.FAILED, price=0, units=0, result_hash=bytes(32), fee_mask=0,
            signatures=tuple((liar.node_id, liar.sign(message)) for liar in liars),
        )  # fmt: skip
        assert isinstance(forged, Outcome)
        await requester.wire.publish(market_topic(terms.announce.execution_class), forged)
        await trio.sleep(5)

        assert await world.slashed() == {liar.node_id: 100 * MICRO for liar in liars}
        ports = await world.ports("reader", micro_cyx=0)
        accounts = {account.node: account for account in await ports.chain.nodes()}
        assert {node for node, account in accounts.items() if account.retired} == {liar.node_id for liar in liars}
        assert all(accounts[liar.node_id].stake == 0 for liar in liars)
