"""Peers that freeze, lines that swallow everything, and lives that begin anew: noticed in time, and then all goes on.

Real processes and real sockets, and the real bounds: the first test takes as long as the silence that it is about.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from cyxnode.protocol.errors import PeerUnreachable
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import CONNECTION_SILENCE_MAX_S, PULSE_INTERVAL_S, SUSPECT_AFTER_MS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p.host import libp2p_id
    from cyxnode.p2p.transport import Libp2pTransport
    from gossip_world import Wire, until

pytestmark = pytest.mark.slow
SUSPECT_AFTER_S = SUSPECT_AFTER_MS / 1000
PEER = """
import sys, trio
from cyxnode.p2p.host import libp2p_id
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.identity import KeyPair

transport = Libp2pTransport(KeyPair(bytes([int(sys.argv[1])]) * 32))

async def hold(stream):
    await stream.send(b"first")
    await trio.sleep_forever()

async def lines(peer, _payload):
    return b"%d" % len(transport._network.connections.get(libp2p_id(peer), ()))

async def main():
    transport.serve_stream("/hold", hold)
    transport.serve("/lines", lines)
    async with transport.run():
        print(transport.addresses()[0], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@contextmanager
def peer(number: int) -> Iterator[tuple[int, str]]:
    """A node in another process, and its address. `/lines` says how many connections it has with who asks."""
    command = [sys.executable, "-W", "ignore", "-c", PEER, str(number)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.kill()


async def lines(transport: Any, node: Any) -> int:
    """Of the other end: it may hold on to a connection that is none any more."""
    return int(await transport.request(node, "/lines", b"", timeout_s=5))


async def one_line(transport: Any, node: Any) -> None:
    with trio.fail_after(SUSPECT_AFTER_S):
        while await lines(transport, node) != 1:  # noqa: ASYNC110 -- it is another process's
            await trio.sleep(0.2)


async def test_hanging_connections_are_given_up_in_time_and_made_anew() -> None:
    with peer(2) as (frozen_pid, frozen_at), peer(3) as (_, swallowed_at), peer(4) as (_, healthy_at):
        async with Libp2pTransport(KeyPair(b"\1" * 32)).run() as me, trio.open_nursery() as nursery:
            wire = Wire(swallowed_at, lambda _passed: 65536)
            frozen, healthy = await me.connect(frozen_at), await me.connect(healthy_at)
            swallowed = await me.connect(await nursery.start(wire.serve))
            for node in (frozen, swallowed, healthy):
                assert await lines(me, node) == 1
            steady = me._network.connections[libp2p_id(healthy)]
            kept, held = list(steady), [await me.open_stream(node, "/hold") for node in (frozen, swallowed)]
            assert [await stream.receive() for stream in held] == [b"first", b"first"]

            os.kill(frozen_pid, signal.SIGSTOP)
            wire.hold = trio.Event()
            began = trio.current_time()
            with pytest.raises(PeerUnreachable), trio.fail_after(PULSE_INTERVAL_S):
                await me.request(frozen, "/lines", b"", timeout_s=1)
            assert me.connected() == {frozen, swallowed, healthy}
            await until(lambda: me.connected() == {healthy}, SUSPECT_AFTER_S + 2)
            assert trio.current_time() - began > CONNECTION_SILENCE_MAX_S - PULSE_INTERVAL_S, "patience was owed"
            for stream in held:
                with pytest.raises(PeerUnreachable), trio.fail_after(1):
                    await stream.receive()

            os.kill(frozen_pid, signal.SIGCONT)
            me.learn(swallowed, [swallowed_at])
            for node in (frozen, swallowed, healthy):
                await one_line(me, node)
            assert steady == kept and not kept[0].is_closed, "the connection with the healthy one was never touched"
            nursery.cancel_scope.cancel()


async def test_who_comes_back_is_served_while_its_last_connection_still_hangs() -> None:
    async def echo(_peer: object, payload: bytes) -> bytes:
        return payload

    async with Libp2pTransport(KeyPair(b"\1" * 32)).run() as me, trio.open_nursery() as nursery:
        wire = Wire(me.addresses()[0], lambda _passed: 65536)
        detour = await nursery.start(wire.serve)
        first = Libp2pTransport(KeyPair(b"\2" * 32))
        first.serve("/echo", echo)
        async with first.run():
            await first.connect(detour)
            held = await me.open_stream(first.node_id, "/echo")  # busy: it must not win for that
            assert await me.request(first.node_id, "/echo", b"1", timeout_s=5) == b"1"
            wire.hold = trio.Event()
            for end in (me, first):  # what is on its way keeps the line from seeing how either ends
                await trio.to_thread.run_sync(lambda: None)
                stale = end._network.connections[libp2p_id(first.node_id if end is me else me.node_id)][0]
                stale.muxed_conn.send_now(bytes(12))
        again = Libp2pTransport(KeyPair(b"\2" * 32))
        again.serve("/echo", echo)
        async with again.run():
            await again.connect(me.addresses()[0])
            await until(lambda: len(me._network.connections[libp2p_id(again.node_id)]) == 2)
            for _ in range(5):
                assert await me.request(again.node_id, "/echo", b"2", timeout_s=2) == b"2"
            assert not held.broken
        nursery.cancel_scope.cancel()
