"""Real processes that find one another without a bootstrap node: on a LAN, and by the DHT after its death."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from commands import LOGGED, events, processes, ready_line, seen, until
from multicast import needs_multicast

pytestmark = pytest.mark.slow


@needs_multicast
def test_nodes_of_one_lan_need_no_bootstrap_node(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with processes(home, *LOGGED) as start:
        rpc = ready_line(start("chain", "chain", "run", "--in-memory", "--port", "0"))["url"]
        common = ("run", "--rpc", rpc, "--listen", "127.0.0.1:0", "--faucet", "--simulated-runner", "lan")
        alone = start("alone", *common, "--name", "alone")
        assert alone.wait(timeout=60) != 0, "without --mdns there is nobody to begin with"
        assert "no bootstrap node is known" in (home / "alone.log").read_text()
        nodes = {name: start(name, *common, "--mdns", "--name", name) for name in ("a", "b", "c")}
        ids = {name: ready_line(process)["node"] for name, process in nodes.items()}
        for name, own in ids.items():
            until(lambda n=name, o=own: set(ids.values()) - {o} <= seen(home / f"{n}.log"), 60, f"{name} sees all")
        assert all(events(home / f"{name}.log", "heard on the LAN") for name in ids)
        for process in nodes.values():
            process.terminate()
        assert [process.wait(timeout=15) for process in nodes.values()] == [0, 0, 0]


def test_who_knows_one_ordinary_node_finds_its_class_in_the_dht(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with processes(home, *LOGGED) as start:
        rpc = ready_line(start("chain", "chain", "run", "--in-memory", "--port", "0"))["url"]
        common = ("--rpc", rpc, "--listen", "127.0.0.1:0")
        lamp = start("bootstrap", "bootstrap", "run", *common)
        ready_line(lamp)
        run = ("run", *common, "--faucet", "--simulated-runner")
        other = ready_line(start("other", *run, "elsewhere", "--name", "other"))
        kin = [ready_line(start(name, *run, "here", "--name", name))["node"] for name in ("a", "b", "c")]
        for name in ("a", "b", "c", "other"):
            until(lambda n=name: events(home / f"{n}.log", "provided in the DHT"), 60, f"{name} provides its class")
        lamp.send_signal(signal.SIGKILL)
        lamp.wait()
        (home / "bootstrap.addresses").unlink()

        door = ("--bootstrap", other["addresses"][0])
        ready_line(start("new", *run, "here", *door, "--name", "new"))
        found = [0]
        until(lambda: found_most(home / "new.log", found) >= len(kin), 90, "the DHT names the class")
        until(lambda: set(kin) <= seen(home / "new.log"), 60, "the newcomer sees its class")


def found_most(log: Path, most: list[int]) -> int:
    """How many of its class a node found in one search of the DHT."""
    most[0] = max([most[0], *(record["found"] for record in events(log, "class searched for in the DHT"))])
    return most[0]
