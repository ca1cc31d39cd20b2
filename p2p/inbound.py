"""What happens to a stream that a peer opens: who serves it, and how many may be open at once.

Streams above the bounds (per peer and overall) are reset before a handler sees them. Whatever a handler raises ends at
this file: it costs the stream, never the node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

import structlog

from ..protocol.errors import CyxError, LocalError
from ..protocol.limits import INBOUND_STREAMS_MAX, PROTOCOL_MAX_CHARS, STREAMS_PER_PEER_MAX
from ..protocol.ports import RequestHandler, Stream, StreamHandler
from ..protocol.units import NodeId, base58
from . import requests

_log = structlog.get_logger()


class Inbound:
    """Handlers by protocol name, and the count of streams being served."""

    def __init__(self) -> None:
        self._handlers: dict[str, Callable[[Stream], Awaitable[None]]] = {}
        self._open: Counter[NodeId] = Counter()

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

    async def handle(self, protocol: str, stream: Stream) -> None:
        """Serve one inbound stream to its end; raises nothing but cancellation."""
        handler = self._handlers.get(protocol)
        if handler is None or not self._enter(stream.peer):
            _log.warning("stream_refused", peer=base58(stream.peer), protocol=protocol, known=handler is not None)
            await stream.reset()
            return
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

    def _enter(self, peer: NodeId) -> bool:
        if self._open.total() >= INBOUND_STREAMS_MAX or self._open[peer] >= STREAMS_PER_PEER_MAX:
            return False
        self._open[peer] += 1
        return True

    def _leave(self, peer: NodeId) -> None:
        self._open[peer] -= 1
        if not self._open[peer]:
            del self._open[peer]


def stream_over(stream: Stream) -> bool:
    """Whether both sides of a stream have ended, so that nothing is left to reset."""
    return bool(getattr(stream, "over", False))
