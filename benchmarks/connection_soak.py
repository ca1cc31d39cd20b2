"""Thousands of connections come and go, well and badly, and leave nothing behind.

A node here is met by strangers of another process, each with an identity of its own: most dial, ask, gossip and hang
up; some vanish, some open a socket and say nothing, some say garbage, some break off in the handshake, some fall
silent for good. Memory, file descriptors, tasks and every table that can be reached from the transport are compared
between the first tenth (in which caches fill) and the end. Exits with 1 when something has grown with the connections.

    .venv/bin/python benchmarks/connection_soak.py [--connections 10000] [--json]
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import random
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import structlog
import trio

from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.errors import CyxError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import (
    DIAL_TIMEOUT_S,
    GOSSIP_BACKOFFS_MAX,
    GOSSIP_SEEN_IDS_MAX,
    PEERS_KNOWN_MAX,
    PEERS_REMEMBERED_MAX,
    SUSPECT_AFTER_MS,
)
from cyxnode.protocol.ports import GossipMessage, GossipVerdict

TOPIC, ECHO = "cyx/1/benchmark", "/cyx/1/echo"
AT_ONCE = 40
KINDS = ("well",) * 6 + ("vanish", "silent socket", "garbage", "half a handshake")
SILENT_FOR_GOOD = 0.005
"""Share of the connections whose peer stays, and never says a word again."""
RSS_GROWTH_MAX_BYTES, COUNT_GROWTH_MAX, TABLE_GROWTH_SHARE = 8_000_000, 8, 0.02
PEERS = PEERS_REMEMBERED_MAX + 512
"""That the library's table may hold: it is cut down every few seconds."""
BOUNDED = {
    "Buckets._tokens": 4 * PEERS_KNOWN_MAX,
    "SeenIds._new": GOSSIP_SEEN_IDS_MAX // 2,
    "SeenIds._old": GOSSIP_SEEN_IDS_MAX // 2,
    "FastRouter.back_off[]": GOSSIP_BACKOFFS_MAX,
    "RateLimiter._token_buckets": 1_000,
    "RateLimiter._last_request_times": 1_000,
    "TokenBucket._request_history": 10_000,
    "PeerTable.peer_data_map": PEERS,
    "PeerTable.peer_record_map": PEERS,
    "PeerData.protocols": 8 * PEERS,
    "PeerData.addrs": 4 * PEERS,
    "PeerData.addrs[]": 16 * PEERS,
    "PeerRecord.addrs": 4 * PEERS,
    "PeerRecord.addrs[]": 16 * PEERS,
}
"""Tables that are meant to fill, up to a bound of their own."""


# strangers ------------------------------------------------------------------------------------------------------------


def accept(_message: GossipMessage) -> GossipVerdict:
    return GossipVerdict.ACCEPT


async def stranger(address: str, kind: str, for_good: bool) -> None:
    """One connection, of one kind."""
    if kind in ("well", "vanish"):
        await _known(address, kind, for_good)
        return
    with trio.move_on_after(DIAL_TIMEOUT_S + 2):
        async with await trio.open_tcp_stream("127.0.0.1", int(address.split("/")[4])) as socket:
            if kind == "garbage":
                await socket.send_all(random.randbytes(200))
            elif kind == "half a handshake":
                await socket.send_all(b"\x13/multistream/1.0.0\n\x07/noise\n\0\x20" + random.randbytes(20))
            while await socket.receive_some(4096):  # until the node has had enough of us
                pass


async def _known(address: str, kind: str, for_good: bool) -> None:
    transport: Any = Libp2pTransport(KeyPair.generate())
    async with transport.run(), transport.subscribe(TOPIC, accept):
        node = await transport.connect(address)
        assert await transport.request(node, ECHO, b"x", timeout_s=10) == b"x"
        await transport.publish(TOPIC, random.randbytes(64))
        (connection,) = [one for group in transport._network.connections.values() for one in group]
        muxed = connection.muxed_conn
        if for_good:
            muxed._write_frame, muxed.send_data_now, muxed.send_now = _nothing, lambda *_: True, lambda _frame: None
            await muxed.event_shutting_down.wait()
        elif kind == "vanish":
            muxed._socket.close()


async def _nothing(_frame: bytes) -> None:
    await trio.lowlevel.checkpoint()


async def crowd(address: str, count: int) -> None:
    """`count` strangers, AT_ONCE at a time; a line on standard output for every tenth of them."""
    seats, draw = trio.CapacityLimiter(AT_ONCE), random.Random(count)
    failed: Counter[str] = Counter()

    async def visit(number: int) -> None:
        kind, for_good = KINDS[number % len(KINDS)], draw.random() < SILENT_FOR_GOOD
        try:
            await stranger(address, kind, for_good and kind == "well")
        except (CyxError, OSError, trio.BrokenResourceError) as error:
            failed[f"{kind}: {type(error).__name__}"] += 1

    async with trio.open_nursery() as nursery:
        for number in range(count):
            await seats.acquire_on_behalf_of(number)

            async def one(number: int = number) -> None:
                try:
                    await visit(number)
                finally:
                    seats.release_on_behalf_of(number)

            nursery.start_soon(one)
    print(json.dumps(failed), flush=True)


# the node -------------------------------------------------------------------------------------------------------------


def tables(root: object) -> Counter[str]:
    """Lengths of the containers of objects, ours or the library's, reachable from `root`, by their names."""
    sizes: Counter[str] = Counter()
    seen, waiting = {id(root)}, deque([root])
    while waiting:
        one = waiting.popleft()
        for name, value in _attributes(one):
            parts: list[Any] = [value]
            if isinstance(value, Mapping | set | frozenset | list | deque):
                sizes[f"{type(one).__name__}.{name}"] += len(value)
                parts = [*value.values()] if isinstance(value, Mapping) else [*value]
                for part in [part for part in parts if isinstance(part, Mapping | set | list | deque)]:
                    sizes[f"{type(one).__name__}.{name}[]"] += len(part)
                    parts += part.values() if isinstance(part, Mapping) else part
            for part in parts:
                if type(part).__module__.partition(".")[0] in ("libp2p", "cyxnode") and id(part) not in seen:
                    seen.add(id(part))
                    waiting.append(part)
    return sizes


def _attributes(one: object) -> Iterator[tuple[str, Any]]:
    yield from getattr(one, "__dict__", {}).items()
    for kind in type(one).__mro__:
        slots = getattr(kind, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(one, name) and name not in ("__dict__", "__weakref__"):
                yield name, getattr(one, name)


def measure(transport: Libp2pTransport) -> dict[str, Any]:
    """What the node holds now."""
    gc.collect()
    process = psutil.Process()
    return {
        "rss_bytes": process.memory_info().rss,
        "fds": process.num_fds(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "tables": dict(tables(transport)),
    }


async def visited(transport: Libp2pTransport, count: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Let `count` strangers in, wait until all have gone, and measure."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--crowd",
        transport.addresses()[0],
        "--connections",
        str(count),
    ]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    said = b"".join([part async for part in process.stdout])
    assert await process.wait() == 0, "the strangers failed"
    with trio.move_on_after(SUSPECT_AFTER_MS / 1000 + 2 * DIAL_TIMEOUT_S):
        while transport.figures().inbound_open or transport.connected():  # noqa: ASYNC110
            await trio.sleep(0.1)
    await trio.sleep(1)
    return measure(transport), json.loads(said)


async def soak(count: int) -> dict[str, Any]:
    """The whole run: what was held after a tenth, and at the end."""
    transport: Any = Libp2pTransport(KeyPair.generate())

    async def echo(_peer: object, payload: bytes) -> bytes:
        return payload

    async def listen(messages: Any) -> None:
        async for _ in messages:
            pass

    transport.serve(ECHO, echo)
    async with transport.run(), transport.subscribe(TOPIC, accept) as messages, trio.open_nursery() as nursery:
        nursery.start_soon(listen, messages)
        began, cpu = time.monotonic(), time.process_time()
        early, failed_early = await visited(transport, count // 10)
        late, failed_late = await visited(transport, count - count // 10)
        nursery.cancel_scope.cancel()
        return {
            "connections": count,
            "seconds": round(time.monotonic() - began, 1),
            "cpu_ms_per_connection": round(1000 * (time.process_time() - cpu) / count, 2),
            "figures": {name: value for name, value in vars_of(transport.figures()).items() if value},
            "failed": dict(Counter(failed_early) + Counter(failed_late)),
            "after_a_tenth": early,
            "at_the_end": late,
            "grown": grown(early, late, count),
        }


def vars_of(figures: Any) -> dict[str, Any]:
    """Of a slotted record."""
    return {name: str(getattr(figures, name)) for name in type(figures).__slots__}


def grown(early: dict[str, Any], late: dict[str, Any], count: int) -> list[str]:
    """What is larger at the end than connections that have gone can explain."""
    found = []
    if late["rss_bytes"] - early["rss_bytes"] > RSS_GROWTH_MAX_BYTES:
        found.append(f"rss: {early['rss_bytes'] / 1e6:.1f} -> {late['rss_bytes'] / 1e6:.1f} MB")
    found += [
        f"{name}: {early[name]} -> {late[name]}"
        for name in ("fds", "tasks")
        if late[name] > early[name] + COUNT_GROWTH_MAX
    ]
    for name, size in late["tables"].items():
        bound = BOUNDED.get(name)
        allowed = (
            early["tables"].get(name, 0) + COUNT_GROWTH_MAX + TABLE_GROWTH_SHARE * count if bound is None else bound
        )
        if size > allowed:
            found.append(f"{name}: {early['tables'].get(name, 0)} -> {size}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--crowd", help=argparse.SUPPRESS)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if options.crowd:
        trio.run(crowd, options.crowd, options.connections)
        return 0
    found = trio.run(soak, options.connections)
    found["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for when in ("after_a_tenth", "at_the_end"):
            one = found[when]
            print(f"{when}: {one['rss_bytes'] / 1e6:.1f} MB, {one['fds']} fds, {one['tasks']} tasks")
        print(
            f"{found['connections']} connections in {found['seconds']} s, {found['cpu_ms_per_connection']} ms CPU each"
        )
        print(f"figures: {found['figures']}; failed: {found['failed']}")
        print("grown: " + ("; ".join(found["grown"]) or "nothing"))
    return 1 if found["grown"] else 0


if __name__ == "__main__":
    sys.exit(main())
