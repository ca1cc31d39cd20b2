"""The local chain under token transfers through JSON-RPC: throughput, and latency at a steady rate.

The chain runs in a process of its own with a data directory, so every transfer is on disk before it is answered. The
clients, in this process, sign beforehand and send over keep-alive connections; every signature is then asked for.

    .venv/bin/python benchmarks/chain.py [--json] [--transfers N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import psutil
import trio
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from cyxnode.cli.processes import open_child
from cyxnode.ledger.escrow_layout import associated_token_address
from cyxnode.ledger.http_rpc import open_http_rpc
from cyxnode.ledger.sender import sign
from cyxnode.ledger.token import transfer_tokens

THROUGHPUT_MIN_PER_S = 300
LATENCY_P99_MAX_MS = 50
STEADY_RATE_PER_S = 100
CLIENTS = 8
"""Connections that send as fast as they are answered."""
STATUSES_PER_CALL = 100


class Connection:
    """One keep-alive connection, without the cost of a full client."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self._buffer = stream, b""

    async def call(self, method: str, *params: Any) -> Any:
        """The result of one call."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        await self._stream.send_all(head.encode() + body)
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += await self._stream.receive_some(65536)
        headers, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        length = int(headers.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(self._buffer) < length:
            self._buffer += await self._stream.receive_some(65536)
        answer, self._buffer = json.loads(self._buffer[:length]), self._buffer[length:]
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


async def connect(url: str) -> Connection:
    host, port = url.removeprefix("http://").split(":")
    return Connection(await trio.open_tcp_stream(host, int(port)))


class Transfers:
    """Signs token transfers that all differ: the amount does."""

    def __init__(self, mint: bytes) -> None:
        self._mint = Pubkey.from_bytes(mint)
        self._payer, self._receiver = Keypair(), Keypair().pubkey()
        self._amount = 0

    async def fund(self, url: str) -> None:
        """SOL for fees, tokens to send, and the receiver's account."""
        async with open_http_rpc(url) as rpc:
            await rpc.request_airdrop(bytes(self._payer.pubkey()), 100 * 10**9)
            await rpc.request_tokens(bytes(self._payer.pubkey()), 10**12)
            await rpc.request_tokens(bytes(self._receiver), 1)

    async def signed(self, connection: Connection, count: int) -> list[str]:
        """Base64 of `count` transfers on the latest blockhash."""
        latest = await connection.call("getLatestBlockhash")
        blockhash = bytes(Pubkey.from_string(latest["value"]["blockhash"]))
        owner = self._payer.pubkey()
        source = associated_token_address(owner, self._mint)
        destination = associated_token_address(self._receiver, self._mint)
        texts = []
        for _ in range(count):
            self._amount += 1
            wish = transfer_tokens(source, self._mint, destination, owner, self._amount)
            texts.append(b64encode(sign([wish], [self._payer], blockhash)).decode())
        return texts


async def throughput(url: str, transfers: Transfers, count: int) -> tuple[float, list[str]]:
    """(Seconds for `count` transfers over CLIENTS connections, signatures)."""
    texts = await transfers.signed(await connect(url), count)
    signatures: list[str] = []

    async def send() -> None:
        connection = await connect(url)
        while texts:
            signatures.append(await connection.call("sendTransaction", texts.pop(), {"encoding": "base64"}))

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(send)
    return time.perf_counter() - began, signatures


async def latency(url: str, transfers: Transfers, count: int) -> tuple[list[float], list[str]]:
    """(Milliseconds of each transfer at STEADY_RATE_PER_S, from when it was due, signatures)."""
    texts = await transfers.signed(await connect(url), count)
    idle = [await connect(url) for _ in range(CLIENTS)]
    took_ms: list[float] = []
    signatures: list[str] = []

    async def send(text: str, due: float) -> None:
        connection = idle.pop() if idle else await connect(url)
        signatures.append(await connection.call("sendTransaction", text, {"encoding": "base64"}))
        took_ms.append(1000 * (trio.current_time() - due))
        idle.append(connection)

    due = trio.current_time()
    async with trio.open_nursery() as nursery:
        for text in texts:
            due += 1 / STEADY_RATE_PER_S
            await trio.sleep_until(due)
            nursery.start_soon(send, text, due)
    return took_ms, signatures


async def landed(url: str, signatures: list[str]) -> int:
    """How many of `signatures` succeeded on the chain."""
    connection, found = await connect(url), 0
    for at in range(0, len(signatures), STATUSES_PER_CALL):
        statuses = await connection.call("getSignatureStatuses", signatures[at : at + STATUSES_PER_CALL])
        found += sum(status is not None and status["err"] is None for status in statuses["value"])
    return found


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    return sorted(values)[max(0, -(-int(share * 1000) * len(values) // 1000) - 1)]


async def measure(count: int) -> dict[str, Any]:
    """Run a chain and both loads."""
    with tempfile.TemporaryDirectory(prefix="cyxnode-bench-") as folder:
        async with open_child("chain", ["chain", "run", "--port", "0"], Path(folder)) as chain:
            url, server = chain.facts["url"], psutil.Process(chain.process.pid)
            transfers = Transfers(bytes(Pubkey.from_string(chain.facts["mint"])))
            await transfers.fund(url)
            before = server.cpu_times()
            seconds, fast = await throughput(url, transfers, count)
            after = server.cpu_times()
            took_ms, steady = await latency(url, transfers, count)
            found = await landed(url, fast + steady)
    cpu_ms = 1000 * (after.user + after.system - before.user - before.system) / count
    per_s, p99 = count / seconds, percentile(took_ms, 0.99)
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average_1min": os.getloadavg()[0],
        "transfers": count,
        "clients": CLIENTS,
        "transfers_per_s": round(per_s, 1),
        "server_cpu_ms_per_transfer": round(cpu_ms, 3),
        "steady_rate_per_s": STEADY_RATE_PER_S,
        "latency_ms": {f"p{share}": round(percentile(took_ms, share / 100), 2) for share in (50, 90, 99)},
        "landed": found,
        "passed": per_s >= THROUGHPUT_MIN_PER_S and p99 < LATENCY_P99_MAX_MS and found == 2 * count,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--transfers", type=int, default=1500, help="of each load; the chain remembers 5000 in all")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = trio.run(measure, arguments.transfers)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        verdict = "pass" if found["passed"] else "FAIL"
        print(f"{found['transfers_per_s']} transfers/s (at least {THROUGHPUT_MIN_PER_S})")
        print(
            f"p99 {found['latency_ms']['p99']} ms at {STEADY_RATE_PER_S}/s (less than {LATENCY_P99_MAX_MS}) {verdict}"
        )
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
