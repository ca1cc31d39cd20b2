"""Staked bidders that break the rules of the auction: none of them wins, and the auction goes on without them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import trio

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.protocol import codec
from cyxnode.protocol.hashing import bid_commitment
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.messages import Bid, BidCommit, BidReveal, Capability, JobAnnounce, least_price
from cyxnode.protocol.units import JobId, NodeId, base58
from cyxnode.protocol.validation import MARKET_KINDS, market_topic, presence_topic
from cyxnode.scheduler.context import NodeSettings
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.node import ensure_registered
from cyxnode.scheduler.wire import Wire
from market_world import World, open_world, run_job

pytestmark = pytest.mark.slow
CHEAP = Bid(price=1_000, estimated_ms=1000, device="cpu", memory_mb=0, queue_length=0, region="", datasets=())
SALT = bytes(32)


@dataclass
class Bidder:
    """A registered key that speaks the wire by hand."""

    wire: Wire
    topic: str
    job: JobId

    def commitment(self, bid: Bid, salt: bytes = SALT) -> bytes:
        return bid_commitment(self.job, self.wire.me, salt, codec.encode(bid))

    async def commit(self, bid: Bid) -> None:
        await self.wire.publish(self.topic, BidCommit(job=self.job, commitment=self.commitment(bid)))

    async def reveal(self, bid: Bid) -> None:
        await self.wire.publish(self.topic, BidReveal(job=self.job, bid=codec.encode(bid), salt=SALT))


Play = Callable[[Bidder], Awaitable[None]]


async def add_bidder(world: World, play: Play) -> NodeId:
    """A bidder that plays when it hears of a job."""
    ports = await world.ports("bidder", micro_cyx=200 * MICRO)
    runner = SimulatedRunner()
    config = await ports.chain.config()
    wire = Wire(ports.transport, ports.key, config.genesis, ports.clock)
    topic = market_topic(runner.execution_class)

    async def live(task_status: Any) -> None:
        async with ports.transport.run():  # type: ignore[attr-defined]
            await ensure_registered(ports, runner, NodeSettings())
            for address in world.bootstrap:
                await wire.transport.connect(address)
            for node in world.nodes.values():
                await wire.transport.connect(node.context.wire.transport.addresses()[0])
            async with wire.listen(topic, MARKET_KINDS) as messages:
                await wire.publish(presence_topic(runner.execution_class), offer_of(world, wire))
                task_status.started()
                async for signed in messages:
                    if isinstance(signed.message, JobAnnounce):
                        await play(Bidder(wire, topic, JobId(signed.message.job)))

    await world.nursery.start(live)
    return wire.me


def offer_of(world: World, wire: Wire) -> Capability:
    """The record of another node, with our addresses; so that everybody waits for our bid. It sits on no committee."""
    offer = next(iter(world.nodes.values())).presence.offer
    assert offer is not None
    like = offer(1, wire.clock.unix_ms())
    return msgspec.structs.replace(like, addresses=wire.transport.addresses(), verifier=False)


async def bidders_of_the_award(play: Play) -> tuple[NodeId, set[bytes]]:
    """The odd bidder's id, and whose bids counted."""
    async with open_world() as world:
        await world.add_nodes(5)
        bidder = await add_bidder(world, play)
        requester = await world.add_requester()
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED
        assert result.receipt is not None
        assert result.receipt["worker"] != base58(bidder)
        room = next(iter(next(iter(world.nodes.values())).market.rooms.by_job.values()))
        assert room.awarded is not None
        return bidder, {candidate.bidder for candidate in room.awarded.certified.award.ranking}


async def test_a_commit_after_the_window(autojump_clock: object) -> None:
    async def late(bidder: Bidder) -> None:
        await trio.sleep(0.3)
        await bidder.commit(CHEAP)
        await bidder.reveal(CHEAP)

    bidder, counted = await bidders_of_the_award(late)
    assert bidder not in counted
    assert counted


async def test_a_reveal_of_another_bid_than_was_sealed(autojump_clock: object) -> None:
    async def switch(bidder: Bidder) -> None:
        await bidder.commit(msgspec.structs.replace(CHEAP, price=2_000))
        await trio.sleep(0.1)
        await bidder.reveal(CHEAP)

    bidder, counted = await bidders_of_the_award(switch)
    assert bidder not in counted


@pytest.mark.parametrize("price", [6 * MICRO, least_price(3) - 1])
async def test_a_reveal_beyond_the_limits(autojump_clock: object, price: int) -> None:
    async def beyond(bidder: Bidder) -> None:
        await bidder.commit(msgspec.structs.replace(CHEAP, price=price))
        await trio.sleep(0.1)
        await bidder.reveal(msgspec.structs.replace(CHEAP, price=price))

    bidder, counted = await bidders_of_the_award(beyond)
    assert bidder not in counted


async def test_a_commit_that_is_never_revealed_only_costs_the_window(autojump_clock: object) -> None:
    async def silent(bidder: Bidder) -> None:
        await bidder.commit(CHEAP)

    bidder, counted = await bidders_of_the_award(silent)
    assert bidder not in counted
    assert counted


async def test_a_bid_that_is_as_large_as_a_message_allows(autojump_clock: object) -> None:
    async def huge(bidder: Bidder) -> None:
        bid = msgspec.structs.replace(CHEAP, datasets=("bafkreie" + "a" * 100,) * 32)
        await bidder.commit(bid)
        await trio.sleep(0.1)
        await bidder.reveal(bid)

    bidder, counted = await bidders_of_the_award(huge)
    assert bidder not in counted


async def test_an_honest_bidder_by_hand_wins_and_that_is_why_the_others_count_for_nothing(
    autojump_clock: object,
) -> None:
    async def honest(bidder: Bidder) -> None:
        await bidder.commit(CHEAP)
        await trio.sleep(0.1)
        await bidder.reveal(CHEAP)

    async with open_world() as world:
        await world.add_nodes(5)
        bidder = await add_bidder(world, honest)
        requester = await world.add_requester()
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED, "by the next in the ranking: the bidder by hand does not work"
        rooms = [room for node in world.nodes.values() for room in node.market.rooms.by_job.values()]
        assert {room.awarded.certified.award.winner for room in rooms if room.awarded} == {bidder}


async def test_the_bids_of_members_are_void(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        for _ in range(4):
            await run_job(requester)
        for node in world.nodes.values():
            for room in node.market.rooms.by_job.values():
                assert room.awarded is not None
                ranking = room.awarded.certified.award.ranking
                assert not {one.bidder for one in ranking} & set(room.awarded.terms.committee)
                assert all(one.bid.price <= room.announce.message.price_limit for one in ranking)


@pytest.mark.parametrize("after_s", [0.0, 0.12])
async def test_an_unreadable_bid_before_and_after_the_escrow_was_looked_up(
    autojump_clock: object, after_s: float
) -> None:
    async with open_world() as world:
        await world.add_nodes(5)

        async def garbage(bidder: Bidder) -> None:
            await trio.sleep(after_s)
            await bidder.wire.publish(bidder.topic, BidReveal(job=bidder.job, bid=b"garbage", salt=SALT))

        await add_bidder(world, garbage)
        requester = await world.add_requester()
        world.chain_latency_s = 0.05
        result = await run_job(requester)
        assert result.phase is JobPhase.SETTLED, result
