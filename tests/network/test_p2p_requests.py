"""Requests, in memory and over libp2p: answers, refusals, bounds."""

from __future__ import annotations

import random

import pytest
import trio

from cyxnode.protocol.errors import LocalError, PeerUnreachable, Refusal
from cyxnode.protocol.limits import FRAME_MAX_BYTES, REQUEST_MAX_BYTES, STREAMS_PER_PEER_MAX, TEXT_MAX_CHARS
from cyxnode.protocol.ports import Stream
from cyxnode.protocol.units import NodeId
from transport_world import ECHO, SINK, World, echo, pair, until


async def test_request_returns_the_answer_of_the_handler(world: World) -> None:
    near, far = await pair(world)
    far.serve(ECHO, echo)
    for payload in (b"", b"hello", random.Random(1).randbytes(3 * FRAME_MAX_BYTES + 5), bytes(REQUEST_MAX_BYTES)):
        assert await near.request(far.node_id, ECHO, payload, timeout_s=5) == payload
    assert near.connected() == {far.node_id}
    assert far.connected() == {near.node_id}


async def test_request_tells_the_handler_who_asks(world: World) -> None:
    near, far = await pair(world)

    async def who(peer: NodeId, _payload: bytes) -> bytes:
        return peer

    far.serve(ECHO, who)
    assert await near.request(far.node_id, ECHO, b"", timeout_s=5) == near.node_id


async def test_refusal_travels_as_its_text_and_a_defect_as_internal_error(world: World) -> None:
    near, far = await pair(world)

    async def refuse(_peer: NodeId, payload: bytes) -> bytes:
        if payload:
            raise ValueError("a secret of the server")
        raise Refusal("not today: " + "x" * 2 * TEXT_MAX_CHARS)

    far.serve(ECHO, refuse)
    with pytest.raises(Refusal, match="not today") as refused:
        await near.request(far.node_id, ECHO, b"", timeout_s=5)
    assert len(str(refused.value)) == TEXT_MAX_CHARS
    assert refused.value.peer == far.node_id
    with pytest.raises(Refusal, match=r"^internal error$"):
        await near.request(far.node_id, ECHO, b"bug", timeout_s=5)
    with pytest.raises(Refusal):
        await near.request(far.node_id, ECHO, b"", timeout_s=5)


async def test_request_that_is_not_answered_in_time_is_unreachable(world: World) -> None:
    near, far = await pair(world)

    async def never(_peer: NodeId, _payload: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    far.serve(ECHO, never)
    with pytest.raises(PeerUnreachable, match="did not answer"):
        await near.request(far.node_id, ECHO, b"", timeout_s=0.3)


async def test_handler_is_cancelled_when_its_asker_gives_up(world: World) -> None:
    near, far = await pair(world)
    cancelled = 0

    async def never(_peer: NodeId, _payload: bytes) -> bytes:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        finally:
            cancelled += 1
        raise AssertionError

    async def ask() -> None:
        with pytest.raises(PeerUnreachable):
            await near.request(far.node_id, ECHO, b"", timeout_s=0.5)

    far.serve(ECHO, never)
    await near.connect(far.addresses()[0])
    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS_PER_PEER_MAX // 2):
            nursery.start_soon(ask)
    await until(lambda: cancelled)
    await until(lambda: cancelled == STREAMS_PER_PEER_MAX // 2)


async def test_oversized_requests_and_answers_are_refused(world: World) -> None:
    near, far = await pair(world)

    async def bloat(_peer: NodeId, _payload: bytes) -> bytes:
        return bytes(4 * 1024 * 1024 + 1)

    far.serve(ECHO, bloat)
    with pytest.raises(LocalError):
        await near.request(far.node_id, ECHO, bytes(REQUEST_MAX_BYTES + 1), timeout_s=5)
    with pytest.raises(Refusal, match="internal error"):
        await near.request(far.node_id, ECHO, b"", timeout_s=5)


async def test_many_requests_at_once_are_all_answered(world: World) -> None:
    near, far = await pair(world)
    far.serve(ECHO, echo)
    answers: list[bytes] = []

    async def ask(number: int) -> None:
        answers.append(await near.request(far.node_id, ECHO, bytes([number]), timeout_s=8))

    async with trio.open_nursery() as nursery:
        for number in range(STREAMS_PER_PEER_MAX // 2):
            nursery.start_soon(ask, number)
    assert sorted(answers) == [bytes([number]) for number in range(STREAMS_PER_PEER_MAX // 2)]


async def test_a_peer_may_not_open_more_streams_than_its_share(world: World) -> None:
    near, far = await pair(world)
    served: list[Stream] = []

    async def hold(stream: Stream) -> None:
        served.append(stream)
        await trio.sleep_forever()

    far.serve_stream(SINK, hold)
    streams = [await near.open_stream(far.node_id, SINK) for _ in range(STREAMS_PER_PEER_MAX)]
    await until(lambda: len(served) == STREAMS_PER_PEER_MAX)
    one_too_many = await near.open_stream(far.node_id, SINK)
    with pytest.raises(PeerUnreachable), trio.fail_after(5):
        await one_too_many.receive()
    assert len(served) == STREAMS_PER_PEER_MAX
    for stream in streams:
        await stream.reset()
