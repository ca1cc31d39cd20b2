"""A small model server that speaks just enough of Ollama, and answers by a script."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from cyxnode.protocol.inference import ModelFiles, ModelManifest

DIGEST = bytes(range(32))
MANIFEST = ModelManifest(
    name="tiny", kind="ollama", digest=DIGEST, tokenizer="model", quantisation="Q4_1", context_length=128
)
MODEL = ModelFiles(MANIFEST)
Send = Callable[[object], Awaitable[None]]
Script = Callable[[dict[str, Any], Send], Awaitable[None]]


def part(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "created_at": "2026-01-01T00:00:00Z", "response": text, "done": False} | fields


END = part("", done=True, done_reason="stop", prompt_eval_count=9, eval_count=3)


async def says_good_day(_: dict[str, Any], send: Send) -> None:
    for text in ("Good", " day", "."):
        await send(part(text))
    await send(END)


class Server:
    """Speaks just enough HTTP. `script` writes the lines of an answer; `requests` are the bodies that came."""

    def __init__(self, script: Script = says_good_day, *, status: int = 200) -> None:
        self.script, self.status = script, status
        self.requests: list[dict[str, Any]] = []
        self.broken_off = trio.Event()
        self.version, self.tells, self.loaded = "0.99", True, False
        self.models = [{"model": "tiny:latest", "name": "tiny:latest", "digest": DIGEST.hex()}]

    async def serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive_some(4096)
            head, _, body = data.partition(b"\r\n\r\n")
            length = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
            )
            while len(body) < length:
                body += await stream.receive_some(4096)
            path = head.split()[1].decode()
            if path == "/api/version":
                await self._reply(stream, 200, json.dumps({"version": self.version}))
            elif path == "/api/tags":
                await self._reply(stream, 200, json.dumps({"models": self.models}))
            elif path == "/api/ps" and self.tells:
                loaded = self.models if self.loaded else []
                await self._reply(stream, 200, json.dumps({"models": loaded}))
            elif path == "/api/show" and self.tells:
                shown = {"details": {"quantization_level": "Q4_K_M"}, "model_info": {"tiny.context_length": 512}}
                await self._reply(stream, 200, json.dumps(shown))
            elif path in ("/api/ps", "/api/show"):
                await self._reply(stream, 404, "no such thing")
            elif self.status != 200:
                await self._reply(stream, self.status, json.dumps({"error": "no such thing"}))
            else:
                await self._generate(stream, json.loads(body))

    async def _reply(self, stream: trio.SocketStream, status: int, body: str) -> None:
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all((head + body).encode())

    async def _generate(self, stream: trio.SocketStream, request: dict[str, Any]) -> None:
        self.requests.append(request)
        self.loaded = True
        if not request["stream"]:
            await self._reply(stream, 200, json.dumps(part("", done=True, done_reason="load")))
            return

        async def send(line: object) -> None:
            data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
            await stream.send_all(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        try:
            await self.script(request, send)
        except trio.BrokenResourceError:
            self.broken_off.set()
            return
        except ConnectionAbortedError:
            return
        await stream.send_all(b"0\r\n\r\n")

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[str]:
        """Serve on loopback while the context is open; the URL."""
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")
            address = listener.socket.getsockname()
            nursery.start_soon(trio.serve_listeners, self.serve, [listener])
            yield f"http://127.0.0.1:{address[1]}"
            nursery.cancel_scope.cancel()
