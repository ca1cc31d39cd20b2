"""Metrics and health over HTTP, on loopback: `/metrics`, `/health` (the process lives, and what its operator should
know), `/ready` (it can work).

Loopback only, since who reads them learns what a node earns and whom it knows; whoever wants them elsewhere puts a
proxy with a password in front. Only GET; one request a connection; all bounds are in protocol/limits.py.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import h11
import structlog
import trio

from ..protocol.errors import LocalError
from ..protocol.limits import METRICS_CONNECTIONS_MAX, METRICS_HEADERS_MAX_BYTES, METRICS_TIMEOUT_S
from ..scheduler.supervision import plain_nursery
from .metrics import Gauges

log = structlog.get_logger()
_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
Answer = tuple[int, bytes, str]


@asynccontextmanager
async def open_metrics(listen: tuple[str, int] | None, gauges: Gauges) -> AsyncIterator[str]:
    """Serve a process's figures while the context is open; yields the URL, empty when `listen` is None."""
    if listen is None:
        yield ""
        return

    async def not_ready() -> str:
        await gauges.refresh()
        return gauges.not_ready()

    async with plain_nursery() as nursery:
        yield await nursery.start(serve_metrics, listen, gauges.text, not_ready, gauges.trouble)
        nursery.cancel_scope.cancel()


async def serve_metrics(
    listen: tuple[str, int],
    text: Callable[[], Awaitable[bytes]],
    not_ready: Callable[[], Awaitable[str]],
    trouble: Callable[[], str],
    *,
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started with the URL. LocalError (field 'metrics') when it cannot listen there."""
    limiter = trio.CapacityLimiter(METRICS_CONNECTIONS_MAX)

    async def answer(path: str) -> Answer:
        if path == "/metrics":
            return 200, await text(), _PROMETHEUS
        if path == "/health":
            warning = trouble()
            return 200, f"ok; warning: {warning}\n".encode() if warning else b"ok\n", _TEXT
        if path == "/ready":
            cause = await not_ready()
            return (503, f"not ready: {cause}\n".encode(), _TEXT) if cause else (200, b"ready\n", _TEXT)
        return 404, b"there are /metrics, /health and /ready\n", _TEXT

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                limiter.acquire_nowait()
            except trio.WouldBlock:
                return
            try:
                with trio.move_on_after(METRICS_TIMEOUT_S):
                    await _serve_one(stream, answer)
            except trio.BrokenResourceError:
                return  # the asker is gone
            except Exception:
                # A defect in a figure must cost this answer, not the node.
                log.exception("metrics_failed")
            finally:
                limiter.release()

    listeners = await _open(listen)
    host, port = listeners[0].socket.getsockname()[:2]
    task_status.started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    await trio.serve_listeners(handle, list(listeners))


async def _open(listen: tuple[str, int]) -> Sequence[trio.SocketListener]:
    host, port = listen
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        fix = "use 127.0.0.1, and a proxy with a password for other machines"
        raise LocalError(f"{host!r} is not loopback, and metrics have no guard", field="metrics", fix=fix)
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        cause = f"{port} is in use" if taken else f"cannot listen on {host}:{port}: {error.strerror or error}"
        raise LocalError(cause, field="metrics", fix="choose another port; 0 takes any free one") from None


async def _serve_one(stream: trio.SocketStream, answer: Callable[[str], Awaitable[Answer]]) -> None:
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=METRICS_HEADERS_MAX_BYTES)
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await stream.receive_some(METRICS_HEADERS_MAX_BYTES))
    except h11.RemoteProtocolError as error:
        await _respond(http, stream, (error.error_status_hint, b"bad request\n", _TEXT))
        return
    if not isinstance(event, h11.Request):
        return
    if event.method != b"GET":
        await _respond(http, stream, (405, b"use GET\n", _TEXT))
        return
    await _respond(http, stream, await answer(event.target.decode("ascii", "replace").partition("?")[0]))


async def _respond(http: h11.Connection, stream: trio.SocketStream, answer: Answer) -> None:
    if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    status, body, kind = answer
    headers = [("content-type", kind), ("content-length", str(len(body))), ("connection", "close")]
    head = http.send(h11.Response(status_code=status, headers=headers)) or b""
    await stream.send_all(head + body)
