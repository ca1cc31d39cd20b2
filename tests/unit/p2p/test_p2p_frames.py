"""Frames over a scripted byte stream: what a hostile or dying peer can write."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from cyxnode.p2p.frames import FramedStream
from cyxnode.protocol.errors import LocalError, PeerUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import FRAME_MAX_BYTES, STREAM_IDLE_TIMEOUT_S

PEER = KeyPair(bytes(32)).node_id
END = b"\xff\xff\xff\xff"
KEEPALIVE = b"\xff\xff\xff\xfe"


class Script:
    """A byte stream that reads `chunks` and records what is written; b'' ends it, None stays silent."""

    def __init__(self, *chunks: bytes | None) -> None:
        self.chunks, self.written, self.calls = list(chunks), bytearray(), list[str]()
        self.block_writes = self.broken = False

    async def read(self, _count: int) -> bytes:
        await trio.lowlevel.checkpoint()
        chunk = self.chunks.pop(0) if self.chunks else b""
        if chunk is None:
            await trio.sleep_forever()
        return chunk or b""

    async def write(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.block_writes:
            await trio.sleep_forever()
        self.written += data

    async def close_write(self) -> None:
        self.calls.append("close_write")

    async def release(self) -> None:
        self.calls.append("release")

    async def reset(self) -> None:
        self.calls.append("reset")


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


async def test_frames_may_arrive_in_any_pieces() -> None:
    whole = frame(b"one") + KEEPALIVE + frame(b"") + frame(b"three") + END
    for size in (1, 2, 5, 100):
        raw = Script(*(whole[start : start + size] for start in range(0, len(whole), size)))
        stream = FramedStream(PEER, raw)
        assert [await stream.receive() for _ in range(4)] == [b"one", b"", b"three", None]
        await stream.close()
        assert raw.written == END
        assert raw.calls == ["close_write", "release"]
        assert stream.over


@pytest.mark.parametrize("torn", [b"", b"\0", b"\0\0\0\5abc", frame(b"whole")])
async def test_end_without_the_marker_is_a_break(torn: bytes) -> None:
    raw = Script(torn) if torn else Script()
    stream = FramedStream(PEER, raw)
    if torn == frame(b"whole"):
        assert await stream.receive() == b"whole"
    with pytest.raises(PeerUnreachable, match="broke off"):
        await stream.receive()
    with pytest.raises(PeerUnreachable):
        await stream.send(b"x")
    assert "reset" in raw.calls


async def test_oversized_announcement_cuts_the_peer_off_without_reading_on() -> None:
    raw = Script((FRAME_MAX_BYTES + 1).to_bytes(4, "big"), None)
    stream = FramedStream(PEER, raw)
    with pytest.raises(PeerUnreachable, match=str(FRAME_MAX_BYTES + 1)):
        await stream.receive()
    assert raw.calls == ["reset"]


async def test_silent_peer_is_given_up(autojump_clock: MockClock) -> None:
    stream = FramedStream(PEER, Script(b"\0\0", None))
    start = trio.current_time()
    with pytest.raises(PeerUnreachable, match="silent"):
        await stream.receive()
    assert trio.current_time() - start == pytest.approx(STREAM_IDLE_TIMEOUT_S)


async def test_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    stream = FramedStream(PEER, Script(b"\0\0\0\3a", None, b"bc", END))
    with trio.move_on_after(1):
        await stream.receive()
    assert await stream.receive() == b"abc"
    assert await stream.receive() is None


async def test_cancelled_send_resets_since_half_a_frame_may_be_out(autojump_clock: MockClock) -> None:
    raw = Script(None)
    stream = FramedStream(PEER, raw)
    raw.block_writes = True
    with trio.move_on_after(1):
        await stream.send(b"x")
    assert raw.calls == ["reset"]
    with pytest.raises(PeerUnreachable):
        await stream.send(b"y")


async def test_keep_alive_is_sent_only_while_our_side_is_open() -> None:
    raw = Script(END)
    stream = FramedStream(PEER, raw)
    await stream.keep_alive()
    await stream.close()
    await stream.keep_alive()
    assert raw.written == KEEPALIVE + END
    with pytest.raises(LocalError):
        await stream.send(b"x")
