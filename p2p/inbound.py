"""What happens to a stream that a peer opens: who serves it, and how many may be open at once.

Streams above the bounds (open ones per peer and overall, new ones per peer and protocol) are reset before a handler
sees them. Whatever a handler raises ends at this file: it costs the stream, never the node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import structlog
import trio

from ..protocol.errors import CyxError, LocalError
from ..protocol.limits import (
    INBOUND_STREAMS_MAX,
    PROTOCOL_MAX_CHARS,
    STREAMS_PER_PEER,
    STREAMS_PER_PEER_ELSEWHERE,
    STREAMS_PER_PEER_MAX,
)
from ..protocol.ports import RequestHandler, Stream, StreamHandler
from ..protocol.units import NodeId, base58
from . import requests
from .buckets import Buckets

_log = structlog.get_logger()


class Inbound:
    """Handlers by protocol name, and the count of streams being served."""

    def __init__(self) -> None:
        self._handlers: dict[str, Callable[[Stream], Awaitable[None]]] = {}
        self._open: Counter[NodeId] = Counter()
        self._rates: dict[str, Buckets[NodeId]] = {}
        self.served: Counter[str] = Counter()
        """Streams that were given to a handler, by protocol."""
        self.refused: Counter[str] = Counter()
        """Streams that were not, by cause."""

    @property
    def open(self) -> int:
        """Streams being served."""
        return self._open.total()

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names in the order in which they were served."""
        return tuple(self._handlers)

    def serve(self, protocol: str, handler: RequestHandler) -> None:
        """Answer requests of `protocol` with `handler`; LocalError when it is taken or malformed."""

        async def answer(stream: Stream) -> None:
            await requests.answer(stream, protocol, handler)

        self.serve_stream(protocol, answer)

    def serve_stream(self, protocol: str, handler: StreamHandler) -> None:
        """Give streams of `protocol` to `handler`; LocalError when it is taken or malformed."""
        if not protocol.startswith("/") or len(protocol) > PROTOCOL_MAX_CHARS or not protocol.isascii():
            raise LocalError(f"{protocol[:64]!r} is not a protocol name", field="protocol", fix="use '/cyx/1/name'")
        if protocol in self._handlers:
            raise LocalError(f"{protocol} is served already", field="protocol", fix="serve it once")
        self._handlers[protocol] = handler
        self._rates[protocol] = Buckets(STREAMS_PER_PEER.get(protocol, STREAMS_PER_PEER_ELSEWHERE))

    async def handle(self, protocol: str, stream: Stream) -> None:
        """Serve one inbound stream to its end; raises nothing but cancellation."""
        handler, cause = self._handlers.get(protocol), self._refusal(protocol, stream.peer)
        if handler is None or cause:
            self.refused[cause] += 1
            _log.warning("stream_refused", peer=base58(stream.peer), protocol=protocol, cause=cause)
            await stream.reset()
            return
        self.served[protocol] += 1
        self._open[stream.peer] += 1
        served = False
        try:
            await handler(stream)
            await stream.close()
            served = True
        except CyxError as error:
            _log.info("stream_failed", peer=base58(stream.peer), protocol=protocol, cause=str(error))
        except Exception:
            # The handler's defect: it must cost this stream, not the node.
            _log.exception("stream_handler_raised", peer=base58(stream.peer), protocol=protocol)
        finally:
            self._leave(stream.peer)
            if not (served and stream_over(stream)):
                await stream.reset()

    def _refusal(self, protocol: str, peer: NodeId) -> str:
        """Why a stream is not served; empty when it is."""
        if protocol not in self._handlers:
            return "protocol"
        if self._open.total() >= INBOUND_STREAMS_MAX:
            return "total"
        if self._open[peer] >= STREAMS_PER_PEER_MAX:
            return "peer"
        return "" if self._rates[protocol].take(peer, trio.current_time()) else "rate"

    def _leave(self, peer: NodeId) -> None:
        self._open[peer] -= 1
        if not self._open[peer]:
            del self._open[peer]


def stream_over(stream: Stream) -> bool:
    """Whether both sides of a stream have ended, so that nothing is left to reset."""
    return bool(getattr(stream, "over", False))
