"""Records that share a message: who posts within one window, what a cancelled poster loses, and what is heard twice."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio

from cyxnode.p2p.memory import MemoryTransport
from cyxnode.p2p.memory_network import MemoryNetwork
from cyxnode.protocol.bundle import pack, unpack
from cyxnode.protocol.envelope import Signed
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import GOSSIP_RECORDS_MAX, GOSSIP_WINDOW_S
from cyxnode.protocol.messages import Decline, DeclineReason
from cyxnode.protocol.validation import MARKET_KINDS
from cyxnode.scheduler.wire import Wire
from market_world import VirtualClock

GENESIS, TOPIC = bytes(32), "cyx/1/market/00"


def decline(number: int) -> Decline:
    return Decline(job=number.to_bytes(32, "big"), reason=DeclineReason.BUSY, hint="")


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Wire, Wire, list[int], list[int]]]:
    """A speaker and a listener; how many records each message held, and the jobs that were heard of."""
    network = MemoryNetwork(random.Random(1))
    keys = [KeyPair(bytes([number]) * 32) for number in (1, 2)]
    near, far = (MemoryTransport(network, key.node_id) for key in keys)
    messages: list[int] = []
    heard: list[int] = []
    network.traffic = lambda _kind, _from, _to, _topic, data: messages.append(len(unpack(data)))
    speaker, listener = (Wire(t, key, GENESIS, VirtualClock()) for t, key in zip((near, far), keys, strict=True))

    def hear(signed: Signed[msgspec.Struct]) -> None:
        assert isinstance(signed.message, Decline)
        heard.append(int.from_bytes(signed.message.job, "big"))

    async with network.run(), near.run(), far.run(), listener.attend(TOPIC, MARKET_KINDS, hear):
        await near.connect(far.addresses()[0])
        yield speaker, listener, messages, heard


async def test_records_of_one_turn_share_a_message(autojump_clock: object) -> None:
    async with two() as (speaker, _, messages, heard):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(speaker.publish, TOPIC, decline(number))
        await trio.sleep(1)
        await speaker.publish(TOPIC, decline(5))
        await trio.sleep(1)
        assert messages == [5, 1] and sorted(heard) == list(range(6))


async def test_a_record_in_no_hurry_goes_with_the_next_or_after_its_window(autojump_clock: object) -> None:
    async with two() as (speaker, _, messages, heard):
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(lambda n=number: speaker.publish(TOPIC, decline(n), window_s=GOSSIP_WINDOW_S))
            await trio.sleep(GOSSIP_WINDOW_S / 2)
            before = trio.current_time()
            await speaker.publish(TOPIC, decline(3))
            assert trio.current_time() == before, "nothing that is in a hurry waits"
        assert trio.current_time() == before + GOSSIP_WINDOW_S / 2
        await trio.sleep(1)
        assert messages == [4] and sorted(heard) == [0, 1, 2, 3]


async def test_many_records_make_several_messages(autojump_clock: object) -> None:
    async with two() as (speaker, _, messages, heard):
        records = [speaker.seal(decline(number)) for number in range(2 * GOSSIP_RECORDS_MAX + 1)]
        await speaker.post(TOPIC, *records)
        await trio.sleep(1)
        assert messages == [GOSSIP_RECORDS_MAX, GOSSIP_RECORDS_MAX, 1]
        assert heard == list(range(len(records)))


async def test_who_is_cancelled_loses_its_own_record_alone(autojump_clock: object) -> None:
    async with two() as (speaker, _, messages, heard):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: speaker.publish(TOPIC, decline(1), window_s=GOSSIP_WINDOW_S))
            with trio.move_on_after(GOSSIP_WINDOW_S / 2):
                await speaker.publish(TOPIC, decline(2), window_s=GOSSIP_WINDOW_S)
            with trio.CancelScope() as scope:
                scope.cancel()
                await speaker.publish(TOPIC, decline(3))
        await trio.sleep(1)
        assert heard == [1] and messages == [1]


async def test_a_record_that_comes_again_is_not_heard_again(autojump_clock: object) -> None:
    async with two() as (speaker, _, messages, heard):
        first, second = speaker.seal(decline(1)), speaker.seal(decline(2))
        for records in ([first], [first, second], [second]):
            await speaker.transport.publish(TOPIC, pack(records))
            await trio.sleep(1)
        assert messages == [1, 2, 1] and heard == [1, 2]


async def test_a_listener_hears_all_records_of_a_message_in_order_and_once(autojump_clock: object) -> None:
    async with two() as (speaker, listener, _, _):
        topic, jobs = TOPIC + "00", list[int]()

        async def follow() -> None:
            async with listener.listen(topic, MARKET_KINDS) as messages:
                async for signed in messages:
                    assert isinstance(signed.message, Decline)
                    jobs.append(int.from_bytes(signed.message.job, "big"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(1)
            await speaker.post(topic, *(speaker.seal(decline(number)) for number in range(4)))
            await speaker.publish(topic, decline(3))
            await speaker.publish(topic, decline(4))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert jobs == [0, 1, 2, 3, 4]
