"""Bootstrap and node as an operator runs them: figures over HTTP, a stop in good order, one identity over restarts."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from commands import assert_one_line, cyxnode, processes, ready_line, until

pytestmark = pytest.mark.slow


def read(url: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def figure(url: str, name: str) -> float:
    """A metric without labels."""
    (line,) = [line for line in read(f"{url}/metrics")[1].splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_an_operator_watches_and_stops_a_bootstrap_node_and_a_node(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with processes(home) as start:
        rpc = ready_line(start("chain", "chain", "run", "--in-memory", "--port", "0"))["url"]
        common = ("--rpc", rpc, "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
        lamp = start("lamp", "bootstrap", "run", *common)
        lit = ready_line(lamp)
        assert read(f"{lit['metrics']}/health") == (200, "ok\n") and read(f"{lit['metrics']}/ready")[0] == 200
        node = start("node", "run", *common, "--faucet")
        running = ready_line(node)
        until(lambda: read(f"{running['metrics']}/ready")[0] == 200, 30, "the node is ready")
        assert figure(running["metrics"], "cyxnode_stake_micro_cyx") == 100_000_000
        until(lambda: figure(lit["metrics"], "cyxnode_peers_live") == 1, 30, "the bootstrap node knows the node")

        examined = cyxnode(home, "doctor", "--rpc", rpc, "--json")
        findings = json.loads(examined.stdout)
        assert examined.returncode == 0, findings
        told = {one["check"]: one["text"] for one in findings}
        assert "active, stake 100" in told["wallet"] and "in use by a running process" in told["journal"]
        assert "knows 1 nodes" in told["peers"]
        ill = cyxnode(home, "doctor", "--rpc", "http://127.0.0.1:1", "--name", "nobody")
        assert ill.returncode == 9 and "failure  rpc" in ill.stdout and "ok       python" in ill.stdout
        assert not (home / "nobody").exists()

        port = lit["metrics"].rsplit(":", 1)[1]
        late = cyxnode(home, "bootstrap", "run", "--name", "late", *common[:-1], f"127.0.0.1:{port}")
        assert_one_line(late, "metrics", 2)
        assert_one_line(cyxnode(home, "bootstrap", "run", "--name", "late", *common[:-1], "0.0.0.0:0"), "metrics", 2)
        assert_one_line(cyxnode(home, "bootstrap", "run", *common), "data dir", 2)

        begun = time.monotonic()
        lamp.send_signal(signal.SIGTERM)
        assert lamp.wait(timeout=15) == 0
        assert time.monotonic() - begun < 5
        assert (home / "lamp.log").read_text() == ""
        until(
            lambda: read(f"{running['metrics']}/ready") == (503, "not ready: no peer is connected\n"), 30, "it is told"
        )

        again = ready_line(start("again", "bootstrap", "run", *common))
        assert again["addresses"][0].split("/p2p/")[1] == lit["addresses"][0].split("/p2p/")[1]
        node.terminate()
        assert node.wait(timeout=15) == 0
