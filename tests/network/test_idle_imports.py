"""What a node's process loads: not what it never uses, and all of it when somebody asks."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
NODE = """
import json, sys, trio
import cyxnode.cli.main
import cyxnode.cli.run, cyxnode.cli.compose, cyxnode.scheduler.node, cyxnode.executor.process
from cyxnode.p2p.libp2p_quiet import PACKAGES
from cyxnode.p2p.postponed import is_loaded
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.identity import KeyPair

async def echo(_peer, payload):
    return payload

async def main():
    async with Libp2pTransport(KeyPair.generate()).run() as one, Libp2pTransport(KeyPair.generate()).run() as two:
        two.serve("/echo", echo)
        node = await one.connect(two.addresses()[0])
        assert await one.request(node, "/echo", b"x", timeout_s=10) == b"x"

trio.run(main)
unwanted = ("torch", "numpy", "rich", "pygments", "libp2p.transport.quic.connection", "websockets.asyncio.server",
            "libp2p.transport.websocket.transport", "libp2p.kad_dht.kad_dht", "libp2p.relay.circuit_v2.protocol")
loaded = [name for name in (*PACKAGES, *unwanted) if is_loaded(name)]
import libp2p, httpx
import libp2p.kad_dht, libp2p.relay.circuit_v2, libp2p.transport.websocket.transport
late = [libp2p.new_host, libp2p.kad_dht.KadDHT, libp2p.relay.circuit_v2.CircuitV2Protocol, libp2p.transport.TCP,
        httpx.Client]
try:
    libp2p.no_such_name
except AttributeError as error:
    missing = str(error)
print(json.dumps({"loaded": loaded, "late": [one.__module__ for one in late], "missing": missing}))
"""


def test_a_node_loads_only_what_it_uses() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", NODE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["loaded"] == []
    assert found["late"][0] == "libp2p" and found["late"][1] == "libp2p.kad_dht.kad_dht"
    assert "no_such_name" in found["missing"]
