"""How soon the gossip of a new process is heard, and what a node costs that has nothing to do.

First a process that imports the transport, dials a listener here, joins its topic and publishes: the time from its
start until it is heard. Then a chain, a bootstrap node and a node, as processes; when the node has been ready for a
while, its CPU and its resident memory over `--seconds`, its children included.

    .venv/bin/python benchmarks/idle_node.py [--seconds 20] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import trio

from cyxnode.cli.processes import open_child
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.ports import GossipMessage, GossipVerdict

FIRST_GOSSIP_MAX_S, IDLE_CPU_MAX_PERCENT, IDLE_RSS_MAX_MB = 3.0, 1.0, 120.0
TOPIC, SETTLE_S = "cyx/1/benchmark", 5.0
NEWCOMER = """
import sys, trio
from cyxnode.p2p.transport import Libp2pTransport
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.ports import GossipVerdict

async def main():
    transport = Libp2pTransport(KeyPair.generate())
    async with transport.run(), transport.subscribe(sys.argv[1], lambda _message: GossipVerdict.ACCEPT):
        await transport.connect(sys.argv[2])
        while True:  # heard as soon as the listener's topics are known
            await transport.publish(sys.argv[1], b"here")
            await trio.sleep(0.02)

trio.run(main)
"""


async def first_gossip_s() -> float:
    """Seconds from the start of a process to its first message."""
    listener = Libp2pTransport(KeyPair.generate())

    def accept(_message: GossipMessage) -> GossipVerdict:
        return GossipVerdict.ACCEPT

    async with listener.run(), listener.subscribe(TOPIC, accept) as messages:
        began = time.monotonic()
        command = [sys.executable, "-c", NEWCOMER, TOPIC, listener.addresses()[0]]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: ASYNC220
            with trio.fail_after(60):
                await anext(messages)
            took = time.monotonic() - began
            process.kill()
    return took


async def idle_node(seconds: float) -> dict[str, float]:
    """CPU in percent of one core, and megabytes resident, of an idle node."""
    with tempfile.TemporaryDirectory(prefix="cyxnode-bench-") as folder:
        home = Path(folder)
        async with open_child("chain", ["chain", "run", "--in-memory", "--port", "0"], home) as chain:
            common = ["--rpc", chain.facts["url"], "--listen", "127.0.0.1:0"]
            async with (
                open_child("bootstrap", ["bootstrap", "run", *common], home),
                open_child("node", ["run", *common, "--faucet"], home) as node,
            ):
                await trio.sleep(SETTLE_S)
                process = psutil.Process(node.process.pid)
                family = [process, *process.children(recursive=True)]
                began = sum(sum(one.cpu_times()[:2]) for one in family)
                await trio.sleep(seconds)
                cpu = sum(sum(one.cpu_times()[:2]) for one in family) - began
                memory = [one.memory_full_info() for one in family]
    return {
        "processes": len(family),
        "cpu_percent": round(100 * cpu / seconds, 2),
        "rss_mb": round(sum(one.rss for one in memory) / 1e6, 1),
        "pss_mb": round(sum(one.pss for one in memory) / 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    first = [round(trio.run(first_gossip_s), 2) for _ in range(options.repetitions)]
    idle = trio.run(idle_node, options.seconds)
    passed = {
        f"first gossip within {FIRST_GOSSIP_MAX_S} s": sorted(first)[len(first) // 2] <= FIRST_GOSSIP_MAX_S,
        f"idle CPU at most {IDLE_CPU_MAX_PERCENT} %": idle["cpu_percent"] <= IDLE_CPU_MAX_PERCENT,
        f"idle memory at most {IDLE_RSS_MAX_MB} MB": idle["rss_mb"] <= IDLE_RSS_MAX_MB,
    }
    found: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load_average_1min": os.getloadavg()[0],
        "first_gossip_s": first,
        "idle": idle,
        "passed": passed,
    }
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"first gossip after {first} s; idle: {idle}")
        for target, reached in passed.items():
            print(f"{target}: {'pass' if reached else 'FAIL'}")
    return 0 if all(passed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
