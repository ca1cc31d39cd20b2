"""The door of the library's DHT and rendezvous: what a stranger asks is read, bounded and judged before they see it.

The library's handlers read up to 4 MiB a request, wait for ever for its end, check signatures that prove nothing here,
and hold one of a dozen places while a slow reader takes the answer. Behind this door a handler gets one whole request
that was judged to be what an honest peer sends, and its answer is sent after it has ended.
"""

from __future__ import annotations

from . import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
import trio
import varint  # type: ignore[import-untyped]
from libp2p.exceptions import ParseError
from libp2p.io.exceptions import MessageTooLarge
from libp2p.network.stream.net_stream import NetStream
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from ..protocol.limits import (
    DHT_ANSWER_MAX_BYTES,
    DHT_REQUEST_TIMEOUT_S,
    DISCOVERY_REJECTS_MAX,
    DISCOVERY_REQUESTS_PER_PEER,
    DISCOVERY_STREAMS_MAX,
    DISCOVERY_STREAMS_PER_PEER_MAX,
    PEERS_KNOWN_MAX,
    SHUTDOWN_TIMEOUT_S,
)
from ..protocol.units import NodeId, base58
from .buckets import Buckets

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that may be served: what it is, and its bytes without what is of no use to us."""

    kind: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not served. Nobody sends a `malformed` one by accident."""

    cause: str
    malformed: bool = True


Judge = Callable[[NodeId, bytes], Passed | Refused]


class Gate:
    """Of one protocol: `judge` decides about a request (its frame without the length), `serve` is the library's
    handler, `ban` shuts out who sends DISCOVERY_REJECTS_MAX malformed ones."""

    def __init__(
        self,
        judge: Judge,
        serve: Callable[[Any], Awaitable[None]],
        *,
        request_max_bytes: int,
        ban: Callable[[NodeId], None],
    ) -> None:
        self._judge, self._serve, self._max_bytes, self._ban = judge, serve, request_max_bytes, ban
        self._open: Counter[NodeId] = Counter()
        self._rates: Buckets[NodeId] = Buckets(DISCOVERY_REQUESTS_PER_PEER)
        self._malformed: Counter[NodeId] = Counter()
        self.served: Counter[str] = Counter()
        """Requests that were given to the handler, by kind."""
        self.refused: Counter[str] = Counter()
        """Requests that were not, by cause."""

    async def handle(self, peer: NodeId, stream: NetStream) -> None:
        """Serve the one request of a stream; raises nothing but cancellation."""
        cause = self._crowded(peer)
        if cause:
            self.refused[cause] += 1
            await _reset(stream)
            return
        self._open[peer] += 1
        answered = False
        try:
            with trio.move_on_after(DHT_REQUEST_TIMEOUT_S) as patience:
                answered = await self._one(peer, stream)
            if patience.cancelled_caught:
                self.refused["slow"] += 1
        except Exception as error:
            # Whatever a stranger's bytes provoke in the library ends its stream, never the node.
            self.refused["broken"] += 1
            _log.info("discovery_request_broke", peer=base58(peer), cause=repr(error)[:200])
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]
            if not answered:
                await _reset(stream)

    async def _one(self, peer: NodeId, stream: NetStream) -> bool:
        """Whether the request was answered."""
        try:
            raw = await read_varint_prefixed_bytes_limited(stream, self._max_bytes)
        except (MessageTooLarge, ParseError):
            self._blame(peer, "oversized")
            return False
        judged = self._judge(peer, raw)
        if isinstance(judged, Refused):
            if judged.malformed:
                self._blame(peer, judged.cause)
            else:
                self.refused[judged.cause] += 1
            return False
        exchange = Exchange(stream, judged.raw)
        await self._serve(exchange)
        if exchange.given_up:
            self.refused["handler"] += 1
            return False
        self.served[judged.kind] += 1
        if exchange.answer:
            await stream.write(bytes(exchange.answer))
        await stream.close()
        return True

    def _crowded(self, peer: NodeId) -> str:
        """Why no stream of a peer is served now; empty when it is."""
        if self._open.total() >= DISCOVERY_STREAMS_MAX:
            return "total"
        if self._open[peer] >= DISCOVERY_STREAMS_PER_PEER_MAX:
            return "peer"
        return "" if self._rates.take(peer, trio.current_time()) else "rate"

    def _blame(self, peer: NodeId, cause: str) -> None:
        self.refused[cause] += 1
        self._malformed[peer] += 1
        _log.info("discovery_request_refused", peer=base58(peer), cause=cause)
        if self._malformed[peer] >= DISCOVERY_REJECTS_MAX:
            del self._malformed[peer]
            self._ban(peer)
        if len(self._malformed) > PEERS_KNOWN_MAX:
            del self._malformed[next(iter(self._malformed))]


class Exchange:
    """What a handler of the library sees of a stream: one request, then its end; it writes into memory."""

    metric_send_channel = None

    def __init__(self, stream: NetStream, request: bytes) -> None:
        self.muxed_conn = stream.muxed_conn
        self._unread = memoryview(varint.encode(len(request)) + request)
        self.answer = bytearray()
        self.given_up = False

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes of the request; b'' at its end."""
        count = len(self._unread) if n is None else n
        part, self._unread = bytes(self._unread[:count]), self._unread[count:]
        return part

    async def write(self, data: bytes) -> None:
        """Part of the answer, which is bounded."""
        self.answer += data
        if len(self.answer) > DHT_ANSWER_MAX_BYTES:
            raise ValueError("the answer is too large")

    async def close(self) -> None:
        """The handler has ended."""

    async def reset(self) -> None:
        """The handler refuses."""
        self.given_up = True


async def _reset(stream: NetStream) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S), suppress(Exception):
        await stream.reset()
