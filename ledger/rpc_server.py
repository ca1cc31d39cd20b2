"""JSON-RPC 2.0 over HTTP/1.1 on loopback: sockets, framing and limits; what a method does stands in `rpc_methods`.

Bounded: body, headers, connections, batch, idle time. A browser page of another site cannot call it: only
`application/json` is taken, and the preflight that this forces on a browser is refused. A handler that breaks answers
-32603 and costs nobody else anything. Subscriptions over websockets are not served: clients poll.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

import h11
import msgspec
import structlog
import trio

from ..protocol.errors import LocalError
from ..protocol.limits import (
    RPC_BATCH_MAX,
    RPC_BODY_MAX_BYTES,
    RPC_CONNECTIONS_MAX,
    RPC_HEADERS_MAX_BYTES,
    RPC_IDLE_TIMEOUT_S,
)
from .rpc_params import INTERNAL_ERROR, INVALID_REQUEST, PARSE_ERROR, RpcFault

_log = structlog.get_logger()
_RECEIVE_BYTES = 64 * 1024
Call = Callable[[str, Any], Any]


class _BadRequest(Exception):
    """Answered with an HTTP status; the connection closes."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        super().__init__(text)


def answer(call: Call, body: bytes) -> bytes:
    """The JSON-RPC response to one request body, single or batch. Never raises."""
    try:
        request = msgspec.json.decode(body)
    except (ValueError, msgspec.DecodeError, RecursionError):
        return msgspec.json.encode(_error(None, PARSE_ERROR, "Parse error"))
    if not isinstance(request, list):
        return msgspec.json.encode(_answer_one(call, request))
    if not 0 < len(request) <= RPC_BATCH_MAX:
        text = f"a batch has 1 to {RPC_BATCH_MAX} requests"
        return msgspec.json.encode(_error(None, INVALID_REQUEST, text))
    return msgspec.json.encode([_answer_one(call, one) for one in request])


def _answer_one(call: Call, request: Any) -> dict[str, Any]:
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return _error(None, INVALID_REQUEST, "Invalid request")
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


async def open_rpc_listeners(host: str, port: int) -> tuple[Sequence[trio.SocketListener], int]:
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


async def serve_rpc(call: Call, listeners: Sequence[trio.SocketListener]) -> None:
    """Serve connections until cancelled; closes the listeners."""
    limiter = trio.CapacityLimiter(RPC_CONNECTIONS_MAX)

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                limiter.acquire_nowait()
            except trio.WouldBlock:
                _log.warning("chain.too_many_connections", limit=RPC_CONNECTIONS_MAX)
                return
            try:
                await _Connection(stream, call).run()
            except Exception:
                _log.exception("chain.connection_failed")  # our bug, not to be paid for by other connections
            finally:
                limiter.release()

    await trio.serve_listeners(handle, listeners)


def _require_loopback(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise LocalError(f"{host!r} is not loopback; the faucet has no guard", field="host", fix="use 127.0.0.1")


class _Connection:
    """One HTTP/1.1 connection, kept alive."""

    def __init__(self, stream: trio.SocketStream, call: Call) -> None:
        self._stream, self._call = stream, call
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=RPC_HEADERS_MAX_BYTES)

    async def run(self) -> None:
        """Serve requests until the peer leaves, errs, or is silent for RPC_IDLE_TIMEOUT_S."""
        try:
            while True:
                with trio.fail_after(RPC_IDLE_TIMEOUT_S):
                    body = await self._request()
                    if body is None:
                        return
                    await self._respond(200, answer(self._call, body), "application/json")
                if self._http.our_state is h11.MUST_CLOSE:
                    return
                self._http.start_next_cycle()
        except _BadRequest as bad:
            await self._refuse(bad.status, bad.text)
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
        kind = next((value for name, value in event.headers if name == b"content-type"), b"")
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
        return b"".join(parts)

    async def _refuse(self, status: int, text: str) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        with trio.move_on_after(1):
            try:
                await self._respond(status, text.encode(), "text/plain", close=True)
            except (trio.BrokenResourceError, h11.LocalProtocolError):
                return  # gone, or a HEAD, whose answer has no body

    async def _respond(self, status: int, body: bytes, kind: str, *, close: bool = False) -> None:
        headers = [("content-type", kind), ("content-length", str(len(body)))]
        if close:
            headers.append(("connection", "close"))
        head = self._http.send(h11.Response(status_code=status, headers=headers)) or b""
        tail = self._http.send(h11.Data(data=body)) or b""
        end = self._http.send(h11.EndOfMessage()) or b""
        await self._stream.send_all(head + tail + end)
