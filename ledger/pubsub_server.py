"""Solana's pub/sub over websockets: sockets and their limits; what a subscription means stands in `subscriptions`.

By convention the port is that of the RPC server plus one, as clients derive it; the RPC server hands upgrades on its
own port over to the same server. A reader that falls behind is disconnected with a reason instead of being queued for;
a page of another site is refused by its Origin.
"""

from __future__ import annotations

import http
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
import trio
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.trio.server import Server, ServerConnection, serve

from ..protocol.limits import (
    OUTBOX_MESSAGES_MAX,
    SOCKET_CLOSE_TIMEOUT_S,
    SOCKET_SEND_TIMEOUT_S,
    SOCKETS_MAX,
    SUBSCRIBE_REQUEST_MAX_BYTES,
)
from .outbox import Outbox
from .rpc_server import Durable, allowed_origin, answer
from .subscriptions import Subscriber, Subscriptions

if TYPE_CHECKING:
    from trio_typing import TaskStatus

_log = structlog.get_logger()
_POLICY_VIOLATION = 1008
_REQUESTS_QUEUED = 16
_TOO_SLOW = f"too slow: more than {OUTBOX_MESSAGES_MAX} messages were waiting"


async def serve_pubsub(
    subscriptions: Subscriptions,
    listeners: Sequence[trio.SocketListener],
    durable: Durable = trio.lowlevel.checkpoint,
    *,
    task_status: TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve websockets until cancelled; starts with the server, whose `handler` takes streams of other ports too.

    `durable` is awaited before anything is told.
    """
    sockets = trio.CapacityLimiter(SOCKETS_MAX)

    async def handle(socket: ServerConnection) -> None:
        try:
            sockets.acquire_on_behalf_of_nowait(socket)
        except trio.WouldBlock:
            _log.warning("chain.too_many_websockets", limit=SOCKETS_MAX)
            await socket.aclose(_POLICY_VIOLATION, f"more than {SOCKETS_MAX} websockets")
            return
        try:
            await _converse(socket, subscriptions, durable)
        finally:
            sockets.release_on_behalf_of(socket)

    quiet = logging.getLogger("cyxnode.websockets")
    quiet.setLevel(logging.CRITICAL)  # what a peer does wrong is no news; our own bugs are logged below
    await serve(
        handle,
        listeners=list(listeners),
        compression=None,
        process_request=_refuse_strangers,
        max_size=SUBSCRIBE_REQUEST_MAX_BYTES,
        max_queue=_REQUESTS_QUEUED,
        close_timeout=SOCKET_CLOSE_TIMEOUT_S,
        logger=quiet,
        task_status=task_status,
    )


def _refuse_strangers(socket: ServerConnection, request: Request) -> Response | None:
    origin = request.headers.get("Origin")
    if origin is None or allowed_origin(origin):
        return None
    return socket.respond(http.HTTPStatus.FORBIDDEN, "pages of other sites are refused\n")


async def _converse(socket: ServerConnection, subscriptions: Subscriptions, durable: Durable) -> None:
    outbox = Outbox()
    subscriber = Subscriber(subscriptions, outbox.put)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send, socket, outbox, durable, nursery.cancel_scope)
            async for message in socket:
                body = message if isinstance(message, bytes) else message.encode()
                reply = answer(subscriber.call, body)
                if reply:
                    outbox.put(reply)
            nursery.cancel_scope.cancel()
    except* ConnectionClosed:
        pass
    except* Exception:
        _log.exception("chain.websocket_failed")
    finally:
        subscriber.close()


async def _send(socket: ServerConnection, outbox: Outbox, durable: Durable, scope: trio.CancelScope) -> None:
    """Send what waits; ends the connection when the reader falls behind or takes nothing for SOCKET_SEND_TIMEOUT_S."""
    while (message := await outbox.take()) is not None:
        await durable()
        with trio.move_on_after(SOCKET_SEND_TIMEOUT_S) as patience:
            await socket.send(message.decode())
        if patience.cancelled_caught:
            break
    _log.warning("chain.websocket_too_slow")
    with trio.move_on_after(SOCKET_CLOSE_TIMEOUT_S):
        if message is None:
            await socket.aclose(_POLICY_VIOLATION, _TOO_SLOW)
    await trio.aclose_forcefully(socket.stream)
    scope.cancel()
