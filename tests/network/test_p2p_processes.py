"""Peers that are other processes, and die or freeze as processes do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from cyxnode.p2p.peer_id import node_of_text
from cyxnode.protocol.errors import LocalError, PeerUnreachable
from cyxnode.protocol.identity import KeyPair

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p.transport import Libp2pTransport

pytestmark = pytest.mark.slow
PEER = """
import trio
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.identity import KeyPair

async def serve(stream):
    await stream.send(b"first")
    await trio.sleep_forever()

async def echo(peer, payload):
    return payload

async def main():
    transport = Libp2pTransport(KeyPair(b"\\2" * 32))
    transport.serve_stream("/hold", serve)
    transport.serve("/echo", echo)
    async with transport.run():
        print(transport.addresses()[0], flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@contextmanager
def peer() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A node in another process, and its address."""
    with subprocess.Popen([sys.executable, "-c", PEER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


async def test_a_killed_peer_is_not_mistaken_for_a_clean_end() -> None:
    with peer() as (process, address):
        async with Libp2pTransport(KeyPair(b"\1" * 32)).run() as transport:
            node = await transport.connect(address)
            stream = await transport.open_stream(node, "/hold")
            assert await stream.receive() == b"first"
            process.kill()
            with pytest.raises(PeerUnreachable), trio.fail_after(5):
                await stream.receive()
            with trio.fail_after(5):
                while transport.connected():  # noqa: ASYNC110 -- the library has no event for it
                    await trio.sleep(0.02)
            with pytest.raises(PeerUnreachable):
                await transport.request(node, "/echo", b"", timeout_s=5)


async def test_a_frozen_peer_costs_no_more_than_the_timeout() -> None:
    with peer() as (process, address):
        async with Libp2pTransport(KeyPair(b"\1" * 32)).run() as transport:
            node = await transport.connect(address)
            assert await transport.request(node, "/echo", b"x", timeout_s=5) == b"x"
            os.kill(process.pid, signal.SIGSTOP)
            start = trio.current_time()
            with pytest.raises(PeerUnreachable):
                await transport.request(node, "/echo", b"x", timeout_s=1)
            assert trio.current_time() - start < 3


async def test_two_processes_cannot_listen_on_one_port() -> None:
    with peer() as (_, address):
        port = int(address.split("/")[4])
        assert node_of_text(address.split("/")[6]) == KeyPair(b"\2" * 32).node_id
        with pytest.raises(LocalError) as refused:
            async with Libp2pTransport(KeyPair(b"\1" * 32), port=port).run():
                pass
        assert refused.value.field == "port"
        assert refused.value.fix
