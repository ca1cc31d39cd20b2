"""Streams, in memory and over libp2p: frames both ways, clean and broken ends, back pressure."""

from __future__ import annotations

import pytest
import trio

from cyxnode.protocol.errors import LocalError, PeerUnreachable
from cyxnode.protocol.limits import FRAME_MAX_BYTES
from cyxnode.protocol.ports import Stream
from transport_world import ECHO, SINK, World, echo, pair, until


async def test_stream_carries_frames_both_ways_and_ends_cleanly(world: World) -> None:
    near, far = await pair(world)
    received: list[bytes] = []

    async def serve(stream: Stream) -> None:
        while (frame := await stream.receive()) is not None:
            received.append(frame)
        await stream.send(b"thanks")

    far.serve_stream(SINK, serve)
    stream = await near.open_stream(far.node_id, SINK)
    assert stream.peer == far.node_id
    sent = [b"", b"one", bytes(FRAME_MAX_BYTES)]
    for frame in sent:
        await stream.send(frame)
    await stream.close()
    assert await stream.receive() == b"thanks"
    assert await stream.receive() is None
    assert await stream.receive() is None
    assert received == sent
    with pytest.raises(LocalError):
        await stream.send(b"after the end")


async def test_stream_that_breaks_is_told_apart_from_a_clean_end(world: World) -> None:
    near, far = await pair(world)

    async def serve(stream: Stream) -> None:
        await stream.send(b"first")
        await stream.receive()
        raise RuntimeError("a defect of the handler")

    far.serve_stream(SINK, serve)
    far.serve(ECHO, echo)
    stream = await near.open_stream(far.node_id, SINK)
    assert await stream.receive() == b"first"
    await stream.send(b"go on")
    with pytest.raises(PeerUnreachable), trio.fail_after(5):
        await stream.receive()
    assert await near.request(far.node_id, ECHO, b"still alive", timeout_s=5) == b"still alive"


async def test_reset_reaches_the_peer(world: World) -> None:
    near, far = await pair(world)
    ended: list[str] = []

    async def serve(stream: Stream) -> None:
        try:
            await stream.receive()
        except PeerUnreachable:
            ended.append("broken")

    far.serve_stream(SINK, serve)
    stream = await near.open_stream(far.node_id, SINK)
    await stream.reset()
    await until(lambda: ended)
    with pytest.raises(PeerUnreachable):
        await stream.send(b"x")
    await stream.reset()


async def test_peer_that_goes_away_breaks_its_streams(world: World) -> None:
    near, far = await pair(world)

    async def hold(stream: Stream) -> None:
        await stream.send(b"here")
        await trio.sleep_forever()

    far.serve_stream(SINK, hold)
    stream = await near.open_stream(far.node_id, SINK)
    assert await stream.receive() == b"here"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.stop, far)
        with pytest.raises(PeerUnreachable), trio.fail_after(5):
            await stream.receive()


async def test_oversized_frame_is_refused_before_it_is_sent(world: World) -> None:
    near, far = await pair(world)
    far.serve_stream(SINK, lambda stream: stream.receive())
    stream = await near.open_stream(far.node_id, SINK)
    with pytest.raises(LocalError, match="frame"):
        await stream.send(bytes(FRAME_MAX_BYTES + 1))
    await stream.reset()


async def test_reader_holds_its_sender_back(world: World) -> None:
    near, far = await pair(world)
    read_on, total = trio.Event(), 0

    async def serve(stream: Stream) -> None:
        nonlocal total
        await read_on.wait()
        while (frame := await stream.receive()) is not None:
            total += len(frame)

    far.serve_stream(SINK, serve)
    stream = await near.open_stream(far.node_id, SINK)
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(64):
            await stream.send(bytes(FRAME_MAX_BYTES // 2))
            sent += 1
        await stream.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(0.3)
        held_back_at = sent
        assert held_back_at < 32
        read_on.set()
    await until(lambda: total == 64 * (FRAME_MAX_BYTES // 2))


@pytest.mark.slow
async def test_reader_may_pause_for_eight_seconds(world: World) -> None:
    near, far = await pair(world)
    total = 0

    async def serve(stream: Stream) -> None:
        nonlocal total
        await trio.sleep(8)
        while (frame := await stream.receive()) is not None:
            total += len(frame)

    far.serve_stream(SINK, serve)
    stream = await near.open_stream(far.node_id, SINK)
    for _ in range(16):
        await stream.send(bytes(FRAME_MAX_BYTES))
    await stream.close()
    await until(lambda: total == 16 * FRAME_MAX_BYTES)
