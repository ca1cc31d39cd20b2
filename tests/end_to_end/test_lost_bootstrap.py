"""Real processes: the bootstrap node is killed, a node restarts from its disk, another joins through a node."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest

from commands import LOGGED, cyxnode, order_file, processes, ready_line, seen, until

pytestmark = pytest.mark.slow
NODES = ("a", "b", "c", "d")


def test_the_network_outlives_its_bootstrap_node(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with processes(home, *LOGGED) as start:
        rpc = ready_line(start("chain", "chain", "run", "--in-memory", "--port", "0"))["url"]
        common = ("--rpc", rpc, "--listen", "127.0.0.1:0")
        lamp = start("bootstrap", "bootstrap", "run", *common)
        ready_line(lamp)
        watched = ("--metrics", "127.0.0.1:0")
        nodes = {name: start(name, "run", *common, *watched, "--name", name, "--faucet") for name in NODES}
        ready = {name: ready_line(process) for name, process in nodes.items()}
        ids = {facts["node"] for facts in ready.values()}
        for name in NODES:
            others = ids - {ready[name]["node"]}
            until(lambda name=name, others=others: others <= seen(home / f"{name}.log"), 60, f"{name} sees all")
        until(lambda: kept(ready["a"]["metrics"]) > 0, 60, "the first node keeps a peer on disk")

        lamp.send_signal(signal.SIGKILL)
        lamp.wait()
        nodes["a"].terminate()
        assert nodes["a"].wait(timeout=15) == 0
        (home / "bootstrap.addresses").unlink()

        ready_line(start("a2", "run", *common, "--name", "a"))
        until(lambda: ids - {ready["a"]["node"]} <= seen(home / "a2.log"), 60, "the restarted node sees all")

        door = ("--bootstrap", ready["b"]["addresses"][0])
        newcomer = ready_line(start("e", "run", *common, *door, "--name", "e", "--faucet"))["node"]
        until(lambda: newcomer in seen(home / "a2.log"), 60, "the newcomer is seen by the restarted node")

        assert cyxnode(home, "chain", "airdrop", "--cyx", "50", "--rpc", rpc).returncode == 0
        order = str(order_file(tmp_path, epochs="20"))
        ended = cyxnode(
            home, "submit", "train", order, "--rpc", rpc, *door, "--allow-unsandboxed", "--json", within_s=120
        )
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["status"] == "settled"


def kept(url: str) -> float:
    """How many peers a node has on disk."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("cyxnode_peers_kept "))
