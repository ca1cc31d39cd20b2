"""JSON-RPC 2.0 over HTTP/1.1 on loopback: sockets, framing and limits; what a method does stands in `rpc_methods`.

Bounded: body, headers, connections, batch, idle time. A page that this machine serves to a browser may call it (CORS);
one of another site cannot: only `application/json` is taken, and the preflight that this forces on a browser is then
refused. A handler that breaks answers -32603 and costs nobody else anything. A websocket upgrade is handed to
`pubsub_server`.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import h11
import msgspec
import structlog
import trio

from ..protocol.errors import LocalError
from ..protocol.limits import (
    PORT_PAIR_TRIES_MAX,
    RPC_BATCH_MAX,
    RPC_BODY_MAX_BYTES,
    RPC_CONNECTIONS_MAX,
    RPC_HEADERS_MAX_BYTES,
    RPC_IDLE_TIMEOUT_S,
)
from .replayed_stream import ReplayedStream
from .rpc_params import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, RpcFault

_log = structlog.get_logger()
_RECEIVE_BYTES = 64 * 1024
_CORS = (
    ("access-control-allow-methods", "POST"),
    ("access-control-allow-headers", "content-type, solana-client"),
    ("access-control-max-age", "86400"),
)
Call = Callable[[str, Any], Any]
Listening = tuple[Sequence[trio.SocketListener], int]
"""Listeners and the port that they are bound to."""
Upgrade = Callable[[trio.abc.Stream], Awaitable[None]]
Durable = Callable[[], Awaitable[None]]
"""Returns once all that was accepted is on disk."""


class _Upgraded(Exception):
    """The peer wants a websocket; `head` is all that it has sent."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        super().__init__()


class _BadRequest(Exception):
    """Answered with an HTTP status; the connection closes."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        super().__init__(text)


def answer(call: Call, body: bytes) -> bytes:
    """The JSON-RPC response to one request body, single or batch; empty for notifications. Never raises."""
    try:
        request = msgspec.json.decode(body)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return msgspec.json.encode(_error(None, PARSE_ERROR, "Parse error"))
    if not isinstance(request, list):
        reply = _answer_one(call, request)
        return b"" if reply is None else msgspec.json.encode(reply)
    if not 0 < len(request) <= RPC_BATCH_MAX:
        text = f"a batch has 1 to {RPC_BATCH_MAX} requests"
        return msgspec.json.encode(_error(None, INVALID_REQUEST, text))
    replies = [reply for one in request if (reply := _answer_one(call, one)) is not None]
    return msgspec.json.encode(replies) if replies else b""


def _answer_one(call: Call, request: Any) -> dict[str, Any] | None:
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return _error(None, INVALID_REQUEST, "Invalid request")
    if "id" not in request:
        return None  # a notification: clients send "ping" to keep a connection alive
    name = request.get("id")
    if not isinstance(name, str | int | None) or (isinstance(name, int) and abs(name) >= 2**63):
        return _error(None, INVALID_REQUEST, "Invalid request")
    try:
        return {"jsonrpc": "2.0", "result": call(request["method"], request.get("params")), "id": name}
    except RpcFault as fault:
        return _error(name, fault.code, str(fault), fault.data)
    except Exception as error:
        _log.exception("chain.rpc_failed", method=request["method"][:64])
        return _error(name, INTERNAL_ERROR, f"Internal error: {error}"[:200])


def _error(name: Any, code: int, message: str, data: Any = None) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "error": error, "id": name}


def allowed_origin(origin: str) -> bool:
    """Whether a browser's page comes from this machine."""
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and _is_loopback(parts.hostname or "")


def _request_bytes(request: h11.Request) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in request.headers.raw_items()]
    return b"%b %b HTTP/%b\r\n%b\r\n" % (request.method, request.target, request.http_version, b"".join(lines))


async def open_rpc_listeners(host: str, port: int) -> Listening:
    """Bind; returns the listeners and the port. LocalError when `host` is not loopback or the port is taken."""
    _require_loopback(host)
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = f"stop what listens there, or choose another port: --port {port + 1}"
            raise LocalError(f"{port} is in use on {host}", field="port", fix=fix) from None
        fix = "choose a port between 1024 and 65535"
        raise LocalError(f"cannot listen on {host}:{port}: {error.strerror or error}", field="port", fix=fix) from None
    return listeners, int(listeners[0].socket.getsockname()[1])


async def open_port_pair(host: str, port: int) -> tuple[Listening, Listening]:
    """Bind two neighbouring ports, for RPC and for websockets; port 0 picks them. LocalError as above."""
    for attempt in range(PORT_PAIR_TRIES_MAX):
        first = await open_rpc_listeners(host, port)
        try:
            return first, await open_rpc_listeners(host, first[1] + 1)
        except LocalError:
            for listener in first[0]:
                await listener.aclose()
            if port or attempt == PORT_PAIR_TRIES_MAX - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


async def serve_rpc(
    call: Call,
    listeners: Sequence[trio.SocketListener],
    upgrade: Upgrade | None = None,
    durable: Durable = trio.lowlevel.checkpoint,
) -> None:
    """Serve connections until cancelled; closes the listeners.

    `upgrade` takes connections that become websockets; `durable` is awaited before an answer is sent.
    """
    limiter = trio.CapacityLimiter(RPC_CONNECTIONS_MAX)

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                limiter.acquire_nowait()
            except trio.WouldBlock:
                _log.warning("chain.too_many_connections", limit=RPC_CONNECTIONS_MAX)
                return
            try:
                await _Connection(stream, call, upgrade, durable).run()
            except Exception:
                _log.exception("chain.connection_failed")  # our bug, not to be paid for by other connections
            finally:
                limiter.release()

    await trio.serve_listeners(handle, listeners)


def _require_loopback(host: str) -> None:
    if not _is_loopback(host):
        raise LocalError(f"{host!r} is not loopback; the faucet has no guard", field="host", fix="use 127.0.0.1")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Connection:
    """One HTTP/1.1 connection, kept alive."""

    def __init__(self, stream: trio.SocketStream, call: Call, upgrade: Upgrade | None, durable: Durable) -> None:
        self._stream, self._call, self._upgrade, self._durable = stream, call, upgrade, durable
        self._origin = ""
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=RPC_HEADERS_MAX_BYTES)

    async def run(self) -> None:
        """Serve requests until the peer leaves, errs, or is silent for RPC_IDLE_TIMEOUT_S."""
        try:
            while True:
                with trio.fail_after(RPC_IDLE_TIMEOUT_S):
                    body = await self._request()
                    if body is None:
                        return
                    reply = answer(self._call, body) if body else b""
                    await self._durable()
                    await self._respond(200 if reply else 204, reply, "application/json")
                if self._http.our_state is h11.MUST_CLOSE:
                    return
                self._http.start_next_cycle()
        except _BadRequest as bad:
            await self._refuse(bad.status, bad.text)
        except _Upgraded as upgraded:
            assert self._upgrade is not None
            await self._upgrade(ReplayedStream(self._stream, upgraded.head))
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint, "bad request")
        except (trio.BrokenResourceError, trio.TooSlowError, h11.LocalProtocolError):
            return  # gone, silent, or asking for what this server cannot say, like a tunnel

    async def _event(self) -> Any:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                await self._stream.send_all(
                    self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                )
            self._http.receive_data(await self._stream.receive_some(_RECEIVE_BYTES))

    async def _request(self) -> bytes | None:
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        headers = dict(event.headers)
        origin = headers.get(b"origin", b"").decode("latin-1")
        self._origin = origin if allowed_origin(origin) else ""
        if headers.get(b"upgrade", b"").lower() == b"websocket" and self._upgrade is not None:
            raise _Upgraded(_request_bytes(event) + self._http.trailing_data[0])
        if event.method == b"OPTIONS" and self._origin:
            return b"" if isinstance(await self._event(), h11.EndOfMessage) else None
        kind = headers.get(b"content-type", b"")
        if event.method != b"POST":
            raise _BadRequest(405, "use POST")
        if not kind.lower().startswith(b"application/json"):
            raise _BadRequest(415, "use content-type: application/json")
        parts, size = [], 0
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                return None
            size += len(event.data)
            if size > RPC_BODY_MAX_BYTES:
                raise _BadRequest(413, f"at most {RPC_BODY_MAX_BYTES} bytes")
            parts.append(bytes(event.data))
        return b"".join(parts) or b" "

    async def _refuse(self, status: int, text: str) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        with trio.move_on_after(1):
            try:
                await self._respond(status, text.encode(), "text/plain", close=True)
            except (trio.BrokenResourceError, h11.LocalProtocolError):
                return  # gone, or a HEAD, whose answer has no body

    async def _respond(self, status: int, body: bytes, kind: str, *, close: bool = False) -> None:
        headers: list[tuple[str, str]] = [("content-length", str(len(body)))] if status != 204 else []
        if body:
            headers.append(("content-type", kind))
        if self._origin:
            headers += [("access-control-allow-origin", self._origin), ("vary", "Origin"), *_CORS]
        if close:
            headers.append(("connection", "close"))
        head = self._http.send(h11.Response(status_code=status, headers=headers)) or b""
        tail = (self._http.send(h11.Data(data=body)) or b"") if body else b""
        end = self._http.send(h11.EndOfMessage()) or b""
        await self._stream.send_all(head + tail + end)
