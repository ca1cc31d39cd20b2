"""Requests: one stream each, the question as frames, then the answer as frames.

The answer's first frame opens with a status byte: OK and the payload, REFUSED and the reason as text, or INTERNAL.
Question and answer are bounded (REQUEST_MAX_BYTES, RESPONSE_MAX_BYTES) on both sides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from enum import IntEnum

import structlog
import trio

from ..protocol.errors import CyxError, LocalError, PeerUnreachable, Refusal
from ..protocol.limits import (
    FRAME_MAX_BYTES,
    REQUEST_HANDLER_TIMEOUT_S,
    REQUEST_MAX_BYTES,
    REQUEST_TIMEOUT_S,
    REQUEST_WATCH_S,
    RESPONSE_MAX_BYTES,
    TEXT_MAX_CHARS,
)
from ..protocol.ports import RequestHandler, Stream
from ..protocol.units import NodeId, base58

_log = structlog.get_logger()
_INTERNAL_TEXT = "internal error"


class _Status(IntEnum):
    OK = 0
    REFUSED = 1
    INTERNAL = 2


async def ask(
    open_stream: Callable[[NodeId, str], Awaitable[Stream]],
    node: NodeId,
    protocol: str,
    payload: bytes,
    timeout_s: float,
) -> bytes:
    """Ask `node` and return its answer; PeerUnreachable (also on timeout), Refusal, or LocalError on our misuse."""
    if len(payload) > REQUEST_MAX_BYTES:
        raise LocalError(f"{len(payload)} bytes are more than {REQUEST_MAX_BYTES}", field="request", fix="split it")
    with trio.move_on_after(timeout_s):
        stream = await open_stream(node, protocol)
        whole = False
        try:
            await _send_all(stream, payload)
            status, answer = await _receive_answer(stream)
            whole = True
        finally:
            if not whole:
                await stream.reset()
        if status == _Status.OK:
            return answer
        text = answer.decode(errors="replace")[:TEXT_MAX_CHARS] if status == _Status.REFUSED else _INTERNAL_TEXT
        raise Refusal(text, peer=node)
    raise PeerUnreachable(f"{base58(node)} did not answer {protocol} within {timeout_s:g} s")


async def answer(stream: Stream, protocol: str, handler: RequestHandler) -> None:
    """Serve one request on an inbound stream; resets the stream when the asker misbehaves."""
    question: bytes | None = None
    with trio.move_on_after(REQUEST_TIMEOUT_S):
        question = await _receive_all(stream, REQUEST_MAX_BYTES)
    if question is None:
        await stream.reset()
        return
    reply: tuple[_Status, bytes] | None = None
    with trio.move_on_after(REQUEST_HANDLER_TIMEOUT_S) as patience:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, stream, nursery.cancel_scope)
            reply = await _handle(stream.peer, protocol, question, handler)
            nursery.cancel_scope.cancel()
    if patience.cancelled_caught:
        _log.error("request_handler_slow", peer=base58(stream.peer), protocol=protocol)
        reply = _Status.INTERNAL, b""
    if reply is None:
        return  # the asker went away: nobody is left to tell
    status, body = reply
    await _send_all(stream, bytes([status]) + body)


async def _watch(stream: Stream, work: trio.CancelScope) -> None:
    """Cancel the handler when its asker has given up, so that it does not hold one of the peer's streams."""
    while not getattr(stream, "broken", False):  # noqa: ASYNC110 -- the muxer has no event for it
        await trio.sleep(REQUEST_WATCH_S)
    work.cancel()


async def _handle(peer: NodeId, protocol: str, question: bytes, handler: RequestHandler) -> tuple[_Status, bytes]:
    try:
        reply = await handler(peer, question)
    except Refusal as refusal:
        return _Status.REFUSED, str(refusal)[:TEXT_MAX_CHARS].encode()
    except CyxError as error:
        _log.warning("request_failed", peer=base58(peer), protocol=protocol, cause=str(error))
        return _Status.INTERNAL, b""
    except Exception:
        # A handler's defect must cost this request, not the node.
        _log.exception("request_handler_raised", peer=base58(peer), protocol=protocol)
        return _Status.INTERNAL, b""
    if len(reply) > RESPONSE_MAX_BYTES:
        _log.error("response_oversized", peer=base58(peer), protocol=protocol, bytes=len(reply))
        return _Status.INTERNAL, b""
    return _Status.OK, reply


async def _send_all(stream: Stream, data: bytes) -> None:
    for frame in _frames(data):
        await stream.send(frame)
    await stream.close()


def _frames(data: bytes) -> Iterator[bytes]:
    for start in range(0, max(1, len(data)), FRAME_MAX_BYTES):
        yield data[start : start + FRAME_MAX_BYTES]


async def _receive_answer(stream: Stream) -> tuple[int, bytes]:
    data = await _receive_all(stream, RESPONSE_MAX_BYTES + 1)
    if not data:
        raise PeerUnreachable("the peer ended without an answer")
    return data[0], data[1:]


async def _receive_all(stream: Stream, maximum: int) -> bytes:
    collected = bytearray()
    while (frame := await stream.receive()) is not None:
        collected += frame
        if len(collected) > maximum:
            await stream.reset()
            raise PeerUnreachable(f"the peer sent more than {maximum} bytes and was cut off")
    return bytes(collected)
