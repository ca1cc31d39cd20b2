"""What bytes of strangers must never do to the machines that read streams: gossip, yamux, requests, blobs, RPC answers.

The machines are the real ones; only the socket below them is a script. See targets.py.
"""

from __future__ import annotations

from cyxnode.p2p import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import httpx2
import trio
from google.protobuf.message import DecodeError
from libp2p.stream_muxer.exceptions import MuxedStreamError
from libp2p.stream_muxer.yamux import yamux
from solana.rpc.async_api import AsyncClient

from cyxnode.ledger.http_rpc import HttpRpc
from cyxnode.ledger.send_policy import SendPolicy
from cyxnode.p2p import requests
from cyxnode.p2p.blob_store import MemoryBlobs
from cyxnode.p2p.fast_gossip import pubsub as fast_pubsub
from cyxnode.p2p.fast_gossip.reader import HEADER, FrameReader
from cyxnode.p2p.fast_gossip.rpc_stream import RpcStream
from cyxnode.p2p.frames import FramedStream
from cyxnode.p2p.gossip import Gossip
from cyxnode.p2p.hardening_gossip import _bounded
from cyxnode.p2p.host import build_host, libp2p_id
from cyxnode.protocol.errors import CyxError, PeerUnreachable, RemoteError
from cyxnode.protocol.limits import (
    GOSSIP_ANSWER_MAX_BYTES,
    GOSSIP_CACHE_MAX_BYTES,
    GOSSIP_CONTROL_ENTRIES_MAX,
    GOSSIP_CONTROL_IDS_MAX,
    GOSSIP_SEEN_IDS_MAX,
    RESPONSE_MAX_BYTES,
    TOPIC_MAX_CHARS,
)
from cyxnode.protocol.ports import GossipVerdict
from cyxnode.scheduler.data_service import DataService
from gossip_world import TOPIC, key

PEER = key(5).node_id
RPC_MAX_BYTES = 1 << 20


class Script:
    """A byte stream that says `data` in pieces of `size` bytes and then ends."""

    broken = False

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = data, size

    async def read(self, count: int) -> bytes:
        taken, self._data = self._data[: min(count, self._size)], self._data[min(count, self._size) :]
        return taken

    async def write(self, data: bytes) -> None:
        """Nobody reads it."""

    async def close_write(self) -> None:
        """Nobody sees it."""

    release = reset = close_write


def _stream(data: bytes) -> FramedStream:
    """The first byte says how the rest is split."""
    return FramedStream(PEER, Script(data[1:], 1 + (data[0] if data else 0)))


def _run(action: Callable[[], Awaitable[Any]], *errors: type[Exception]) -> Any:
    """Like `refused`, for what waits."""

    async def contained() -> Any:
        try:
            return await action()
        except errors as error:
            assert len(str(error)) < 1_000
            return None

    return trio.run(contained)


def answer(data: bytes) -> None:
    """Whatever a peer answers: bytes, a refusal, or a break."""

    async def opened(_node: Any, _protocol: str) -> FramedStream:
        return _stream(data)

    found = _run(lambda: requests.ask(opened, PEER, "/p", b"?", 5.0), RemoteError, PeerUnreachable)
    assert found is None or len(found) <= RESPONSE_MAX_BYTES


def question(data: bytes) -> None:
    """Whatever a peer asks: the handler gets a bounded question, or the stream breaks."""

    async def handler(_peer: Any, payload: bytes) -> bytes:
        assert len(payload) <= requests.REQUEST_MAX_BYTES
        return payload

    _run(lambda: requests.answer(_stream(data), "/p", handler), CyxError)


def blob(data: bytes) -> None:
    """Whatever a peer sends for a blob, and whatever it asks for."""

    async def opened(_node: Any, _protocol: str) -> FramedStream:
        return _stream(data)

    wire: Any = SimpleNamespace(transport=SimpleNamespace(open_stream=opened))
    service = DataService(wire, MemoryBlobs(1 << 20))
    found = _run(lambda: service.fetch(PEER, "bafkreie" + "a" * 51, max_bytes=4096), RemoteError, PeerUnreachable)
    assert found is None
    _run(lambda: service._serve(_stream(data)), CyxError)


@cache
def _gossip() -> Any:
    """The real pubsub of a host that does not run, and which has joined TOPIC."""

    async def build() -> Any:
        host, _ = build_host(key(1), (), fast=True)
        gossip = Gossip(host, lambda _node: None, fast=True)
        gossip._subscriptions.open(TOPIC, lambda _message: GossipVerdict.ACCEPT).__enter__()
        gossip._pubsub.set_topic_validator(TOPIC, gossip._validate, False)
        gossip._pubsub.subscribed_topics_receive[TOPIC] = mock.Mock()
        gossip._pubsub._manager = SimpleNamespace(is_running=False)
        return gossip._pubsub

    return trio.run(build)


def gossip(data: bytes) -> None:
    """A gossip stream: RPCs are cut, parsed, judged and their control messages cut down, without an error but those
    that end the stream. After an odd first byte signatures count as right: what lies behind them is reached, too."""
    odd, size = (data[0] % 2 == 1, 1 + data[0] // 2) if data else (False, 1)
    pubsub = _gossip()
    stream = RpcStream(RPC_MAX_BYTES)

    async def feed() -> None:
        for start in range(1, len(data), size):
            stream.add(data[start : start + size])
            try:
                for raw in iter(stream.take, None):
                    rpc = fast_pubsub.rpc_pb2.RPC.FromString(raw)
                    pubsub.take_rpc(libp2p_id(PEER), rpc)
                    _check_control(_bounded(rpc.control, {TOPIC}, pubsub.router.mcache))
            except (RemoteError, DecodeError):
                return
            assert len(stream) <= RPC_MAX_BYTES + 10

    errors: list[Any] = []
    with (
        mock.patch.object(fast_pubsub, "_signed", lambda _message: True) if odd else nullcontext(),
        mock.patch.object(fast_pubsub._log, "warning", lambda *_words, **facts: errors.append(facts)),
    ):
        trio.run(feed)
    assert not errors, f"a message raised: {errors}"
    assert pubsub.seen_messages.length() <= GOSSIP_SEEN_IDS_MAX
    assert pubsub.router.mcache._bytes <= GOSSIP_CACHE_MAX_BYTES
    assert all(len(topic) <= TOPIC_MAX_CHARS for topic in pubsub.peer_topics)
    pubsub._forget_all_subscriptions(libp2p_id(PEER))


def _check_control(control: Any) -> None:
    assert max(len(control.graft), len(control.prune), len(control.ihave)) <= GOSSIP_CONTROL_ENTRIES_MAX
    assert sum(len(one.messageIDs) for one in control.ihave) <= GOSSIP_CONTROL_IDS_MAX
    wanted = [name for one in control.iwant for name in one.messageIDs]
    assert len(set(wanted)) == len(wanted) <= GOSSIP_ANSWER_MAX_BYTES
    assert not any(one.peers for one in control.prune)


class _Muxed:
    """As much of a yamux stream as a reader touches; the window is enforced as the cure does."""

    def __init__(self, stream_id: int) -> None:
        self.stream_id, self.send_window, self._left = stream_id, 1 << 18, 1 << 18

    @property
    def recv_window(self) -> int:
        return self._left

    @recv_window.setter
    def recv_window(self, value: int) -> None:
        self._left = value
        if value < 0:
            raise MuxedStreamError("the peer ignored the window")


def frame_reader(data: bytes) -> None:
    """Plain yamux frames go to their streams and the others to the library: every byte once, however it is split."""
    size, data = (data[0] + 1 if data else 1), data[1:]
    connection: Any = SimpleNamespace(
        streams={number: _Muxed(number) for number in (1, 2, 3)},
        stream_buffers={number: bytearray() for number in (1, 2)},
        stream_events=defaultdict(lambda: SimpleNamespace(set=lambda: None)),
    )
    sunk = bytearray()
    session: Any = SimpleNamespace(_drain=lambda _count: b"")
    reader = FrameReader(connection, session, None, bytes)  # type: ignore[arg-type]
    reader._sinks[3] = sunk.extend
    foreign = 0
    for start in range(0, len(data), size):
        reader._plain += data[start : start + size]
        reader._take_frames()
        while reader._foreign and len(reader._plain) >= HEADER.size:
            reader._foreign = False
            _, kind, flags, _, length = HEADER.unpack(reader._take(HEADER.size))
            foreign += 1
            assert flags or kind not in (yamux.TYPE_DATA, yamux.TYPE_WINDOW_UPDATE) or length > 1 << 16
            if kind == yamux.TYPE_DATA:
                return  # its body is the library's, read by `read`
            reader._take_frames()
        assert len(reader._plain) <= 2 * yamux.MAX_MESSAGE_SIZE + HEADER.size + size
    held = len(sunk) + sum(map(len, connection.stream_buffers.values()))
    assert held <= len(data) and all(len(one) <= 1 << 18 for one in (sunk, *connection.stream_buffers.values()))


_ANSWER: dict[str, bytes] = {"body": b""}


@cache
def _rpc() -> HttpRpc:
    client = AsyncClient("http://127.0.0.1:1", timeout=5)
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(200, content=_ANSWER["body"]))
    client._provider.session = httpx2.AsyncClient(transport=transport)
    return HttpRpc(client, "server", SendPolicy())


_ASKED: tuple[Callable[[HttpRpc], Awaitable[Any]], ...] = (
    lambda rpc: rpc.get_account(bytes(32)),
    lambda rpc: rpc.get_accounts([bytes(32), bytes(32)]),
    lambda rpc: rpc.get_program_accounts(bytes(32), tag=1, size=8),
    lambda rpc: rpc.time(),
    lambda rpc: rpc.genesis_hash(),
    lambda rpc: rpc.rent(100),
    lambda rpc: rpc.latest_blockhash(),
    lambda rpc: rpc.blockhash_expired(SimpleNamespace(value=bytes(32), slot=5)),  # type: ignore[arg-type]
    lambda rpc: rpc.send(b"transaction"),
    lambda rpc: rpc.status("1" * 64),
    lambda rpc: rpc.prioritization_fees([bytes(32)]),
    lambda rpc: rpc.signatures(bytes(32), limit=5),
    lambda rpc: rpc.transaction("1" * 64),
)


def rpc_answer(data: bytes) -> None:
    """Whatever an RPC server answers to any of our calls: a value, or an error of ours."""
    _ANSWER["body"] = data[1:]
    asked = _ASKED[data[0] % len(_ASKED)] if data else _ASKED[0]
    _run(lambda: asked(_rpc()), CyxError)
