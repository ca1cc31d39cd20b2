"""The commands of a network one by one, as in separate terminals: a job, its watcher, and what goes wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from psutil import Process

from commands import (
    EXAMPLES,
    LOGGED,
    assert_one_line,
    cyxnode,
    events,
    order_file,
    processes,
    ready_line,
    running,
    started,
    until,
)
from cyxnode.ledger.addresses import LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.http_rpc import open_http_rpc
from cyxnode.protocol.chain import Balance
from cyxnode.protocol.identity import KeyPair, load_key

pytestmark = pytest.mark.slow
NODES = 5
NOBODY_THERE = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWSCm8AHpFgxJxVwgw5EhtNbWkT86KuUVHew5fGMoAZsZg"


@dataclass
class Network:
    """Running commands. Nodes are called a, b, c ...; each logs into its own file."""

    home: Path
    rpc: str
    nodes: dict[str, subprocess.Popen[bytes]]

    def log(self, name: str) -> Path:
        return self.home / f"{name}.log"

    def run(self, *arguments: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return cyxnode(self.home, *arguments, "--rpc", self.rpc, within_s=within_s)

    def look(self, what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`cyxnode job WHAT ... --json`, which must answer."""
        ended = cyxnode(self.home, "job", what, *arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return ended

    def balance(self, name: str) -> Balance:
        """Of a requester of this home."""

        async def read() -> Balance:
            async with open_http_rpc(self.rpc) as rpc:
                address = load_key(self.home / name / "key.json").node_id
                return await ChainClient(rpc, KeyPair.generate(), LOCAL_PROGRAM_ID).balance(address)

        return trio.run(read)

    def working(self) -> list[tuple[str, str]]:
        """(node, job) of every award that a live node has begun to work on, newest last."""
        found = [
            (record["timestamp"], name, record["job"])
            for name, process in self.nodes.items()
            if process.poll() is None
            for record in events(self.log(name), "job started")
        ]
        return [(name, job) for _, name, job in sorted(found)]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A chain, a bootstrap node and five nodes, shared by this file."""
    home = tmp_path_factory.mktemp("by-hand")
    with processes(home, *LOGGED) as start:
        rpc = ready_line(start("chain", "chain", "run", "--in-memory", "--port", "0"))["url"]
        common = ("--rpc", rpc, "--listen", "127.0.0.1:0")
        ready_line(start("bootstrap", "bootstrap", "run", *common))
        nodes = {name: start(name, "run", *common, "--name", name, "--faucet") for name in "abcde"[:NODES]}
        for process in nodes.values():
            assert ready_line(process)["node"]
        yield Network(home, rpc, nodes)
        for process in nodes.values():
            process.terminate()
        for process in nodes.values():
            assert process.wait(timeout=15) in (0, -signal.SIGKILL)


def test_a_job_is_submitted_watched_paid_and_proven(network: Network, tmp_path: Path) -> None:
    assert network.run("chain", "airdrop", "--name", "alice", "--cyx", "50").returncode == 0
    assert network.balance("alice").micro_cyx == 50_000_000
    order = str(order_file(tmp_path, epochs="45"))  # longer than two status digests, which are 5 s apart
    arguments = ("submit", "train", order, "--name", "alice", "--rpc", network.rpc, "--wait", "--json")
    with started(network.home, *arguments, log=tmp_path / "submit.log") as submit:
        _, job = until(network.working, 40, "somebody works")[-1]
        why = json.loads(network.look("explain", job[:12], "--name", "alice").stdout)
        watched = network.run("job", "watch", job, "--json")
        out, _ = submit.communicate(timeout=120)
    end = json.loads(out)
    assert submit.returncode == 0 and end["status"] == "settled" and end["job_id"] == job
    assert end["validation_accuracy"] >= 0.95
    assert network.balance("alice").micro_cyx <= 50_000_000 - end["cost_micro_cyx"] + 10
    compared = cyxnode(network.home, "receipt", "verify", end["receipt"], "--rpc", network.rpc)
    assert compared.returncode == 0, compared.stderr
    assert "chain: settle OK with the same worker" in compared.stdout

    lines = [json.loads(line) for line in watched.stdout.splitlines()]
    assert watched.returncode == 0 and {line["job"] for line in lines} == {job}
    assert any(line["state"] == "running" and line["progress_ppm"] > 0 for line in lines)
    assert lines[-1]["state"] in ("settled", "closed")

    assert why["job_id"] == job and why["status"] in ("awarded", "running"), "beside a submit that owns the journal"
    assert why["waits_for"] and why["until_ms"] and why["then"]
    told = json.loads(network.look("status", job, "--name", "alice").stdout)
    for field, name in (("status", "status"), ("receipt", "receipt"), ("cost_micro_cyx", "cost_micro_cyx")):
        assert told[field] == end[name]
    assert told["verified_by"] == end["verified_by"] and told["weights"] == end["weights"]
    (row,) = [json.loads(line) for line in network.look("list", "--name", "alice").stdout.splitlines()]
    assert (row["job_id"], row["status"], row["left"]) == (job, "settled", False)
    way = json.loads(network.look("trace", job, "--name", "alice").stdout)
    assert [one["state"] for one in way["transitions"]][-1] == "settled" and way["parts_ms"]["work"] > 0
    by_journal, by_receipt = (network.look("audit", what, "--name", "alice").stdout for what in (job, end["receipt"]))
    assert by_journal == by_receipt and json.loads(by_journal)["ranking"]
    assert json.loads(network.look("result", job, "--name", "alice").stdout)["weights"] == end["weights"]


def test_what_a_killed_submit_has_missed_is_fetched_later(network: Network, tmp_path: Path) -> None:
    network.run("chain", "airdrop", "--name", "carol", "--cyx", "50")
    seen, order = len(network.working()), str(order_file(tmp_path, epochs="20"))
    with started(network.home, "submit", "train", order, "--name", "carol", "--rpc", network.rpc) as submit:
        _, job = until(lambda: network.working()[seen:], 40, "somebody works")[-1]
        submit.kill()

    def why() -> Any:
        return json.loads(network.look("explain", job, "--name", "carol", "--rpc", network.rpc).stdout)

    assert "`submit` ended" in why()["why"]
    until(lambda: why()["status"] == "settled", 60, "the job settles without its submit")
    fetched = network.run("job", "result", job, "--name", "carol", "--json", within_s=90)
    assert fetched.returncode == 0, fetched.stderr
    end = json.loads(fetched.stdout)
    assert Path(end["weights"]).stat().st_size > 0
    assert cyxnode(network.home, "receipt", "verify", end["receipt"], "--rpc", network.rpc).returncode == 0
    assert network.look("status", job, "--name", "carol").stdout.count(job) >= 2


def test_the_chain_tells_of_itself(network: Network) -> None:
    facts = json.loads(network.run("chain", "info", "--json").stdout)
    assert facts["nodes"] == NODES and facts["fee_bps"] == 1_000 and facts["rpc"] == network.rpc


def test_too_little_balance_funds_nothing(network: Network, tmp_path: Path) -> None:
    network.run("chain", "airdrop", "--name", "poor", "--cyx", "1")
    ended = network.run("submit", "train", str(order_file(tmp_path)), "--name", "poor")
    assert_error(ended, "budget", 2)
    assert network.balance("poor").micro_cyx == 1_000_000
    network.run("chain", "airdrop", "--name", "no-sol", "--cyx", "9", "--sol", "0")
    assert_error(network.run("submit", "train", str(order_file(tmp_path)), "--name", "no-sol"), "balance", 2)


def assert_error(ended: subprocess.CompletedProcess[str], field: str, code: int) -> None:
    """A one-line refusal at the end of what a command says while it works."""
    *_, last = ended.stderr.strip().splitlines()
    assert "Traceback" not in ended.stderr
    assert_one_line(subprocess.CompletedProcess(ended.args, ended.returncode, "", last), field, code)


def test_a_stake_that_is_not_there_registers_nobody(network: Network) -> None:
    ended = network.run("run", "--name", "broke", "--listen", "127.0.0.1:0")
    assert_one_line(ended, "stake", 2)
    assert "airdrop" in ended.stderr


def test_an_unreachable_network_ends_as_unsold_with_the_reason(network: Network, tmp_path: Path) -> None:
    order = order_file(tmp_path, wait_seconds="2")
    network.run("chain", "airdrop", "--name", "alone", "--cyx", "9")
    arguments = ("submit", "train", str(order), "--name", "alone", "--bootstrap", NOBODY_THERE)
    ended = network.run(*arguments, within_s=40)
    assert ended.returncode == 7 and "Traceback" not in ended.stderr
    assert "unsold: 0 of the 4 nodes needed" in ended.stdout and "nothing was funded" in ended.stdout
    assert network.balance("alone").micro_cyx == 9_000_000
    why = json.loads(network.look("explain", "draft-1", "--name", "alone").stdout)
    assert why["status"] == "unsold" and "0 of the 4 nodes needed" in why["why"]


def test_ports_that_are_taken_are_named(network: Network) -> None:
    port = network.rpc.rsplit(":", 1)[1]
    assert_one_line(cyxnode(network.home, "chain", "run", "--in-memory", "--port", port), "port", 2)
    for command in (("bootstrap", "run", "--name", "lamp"), ("run", "--name", "late", "--faucet")):
        assert_one_line(network.run(*command, "--listen", f"127.0.0.1:{port}"), "port", 2)


def test_one_identity_runs_once(network: Network) -> None:
    ended = network.run("run", "--name", "a", "--listen", "127.0.0.1:0")
    assert_one_line(ended, "data dir", 2)
    assert "in use by another process" in ended.stderr


def test_a_damaged_journal_is_never_repaired_in_silence(network: Network) -> None:
    journal = network.home / "damaged" / "journal"
    shutil.copytree(network.home / "alice" / "journal", journal)
    (journal / "CURRENT").write_text("nonsense\n")
    assert_one_line(network.run("run", "--name", "damaged", "--listen", "127.0.0.1:0"), "data dir", 2)


def test_an_unknown_job_cannot_be_watched(network: Network) -> None:
    assert_error(network.run("job", "watch", "11111111111111111111111111111112"), "job_id", 2)


def test_the_runner_up_is_paid_when_the_worker_is_killed(network: Network, tmp_path: Path) -> None:
    network.run("chain", "airdrop", "--name", "bob", "--cyx", "50")
    seen, order, log = len(network.working()), order_file(tmp_path, epochs="90"), tmp_path / "submit.log"
    arguments = ("submit", "train", str(order), "--name", "bob", "--rpc", network.rpc, "--json")
    with started(network.home, *arguments, log=log) as submit:
        winner, job = until(lambda: network.working()[seen:], 40, "somebody works")[-1]
        until(lambda: "  training " in log.read_text(), 30, "training")
        node = Process(network.nodes[winner].pid)
        workers = node.children(recursive=True)
        assert workers
        node.kill()
        until(lambda: not running(workers), 10, "the worker process ended with its node")
        until(lambda: "  handed over " in log.read_text(), 60, "the hand-over")
        following = until(lambda: [one for one in network.working() if one[1] == job and one[0] != winner], 10, "work")
        out, _ = submit.communicate(timeout=90)
    ((follower, _),) = following
    assert "takes over at" in log.read_text() and "begins anew: the worker's heartbeats stopped" in log.read_text()
    end: dict[str, Any] = json.loads(out)
    assert (submit.returncode, end["status"], end["job_id"]) == (0, "settled", job), end
    receipt = json.loads(Path(end["receipt"]).read_text())
    (ready,) = events(network.log(follower), "node ready")
    assert receipt["worker"] == ready["node"] and len(receipt["evidence"]["handovers"]) == 1
    assert 0 < end["cost_micro_cyx"] == receipt["paid"]["amount"] <= receipt["price_micro_cyx"]
    assert 50_000_000 - end["cost_micro_cyx"] - network.balance("bob").micro_cyx in range(-2, 1)
    for proof in ((), ("--rpc", network.rpc)):
        verified = cyxnode(network.home, "receipt", "verify", end["receipt"], *proof)
        assert verified.returncode == 0 and "hand-over to" in verified.stdout, verified.stderr


def test_models_come_to_the_market_and_leave_it(network: Network) -> None:
    heard = network.run("market", "models")
    assert heard.returncode == 0, heard.stderr
    assert heard.stdout.startswith("nobody serves a model: "), heard.stdout
    weights = network.home / "weights"
    weights.write_bytes(b"which nobody loads here")
    files = (str(EXAMPLES / "tiny_lm.json"), str(weights))
    prices = ("--prompt-price", "0.0005", "--generated-price", "0.002")
    added = cyxnode(network.home, "models", "add", "tiny-lm", "--torch", *files, *prices, "--no-try", "--json")
    assert added.returncode == 0, added.stderr

    def offered() -> list[Any]:
        return [json.loads(line) for line in network.run("market", "models", "--json").stdout.splitlines()]

    (row,) = until(offered, 90, "a node offers the model")
    assert (row["name"], row["model"], row["kind"]) == ("tiny-lm", json.loads(added.stdout)["model"], "torch")
    assert (row["prompt_rate_micro_cyx"], row["generated_rate_micro_cyx"]) == ([500, 500], [2_000, 2_000])
    until(lambda: all(one["warm"] == one["nodes"] > 0 for one in offered()), 60, "all nodes have loaded it")
    removed = cyxnode(network.home, "models", "remove", "tiny-lm")
    assert removed.returncode == 0, removed.stderr
    until(lambda: not offered(), 90, "no node offers it any more")
