"""The money commands as a person uses them, on a real chain process: receive, send, stake, leave, come back."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from commands import CYXNODE, assert_one_line, cyxnode, environment, ready_line, started
from cyxnode.ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from cyxnode.ledger.chain_client import ChainClient
from cyxnode.ledger.cluster import LocalCluster
from cyxnode.ledger.http_rpc import open_http_rpc
from cyxnode.protocol.chain import Register
from cyxnode.protocol.identity import load_key
from cyxnode.protocol.limits import MICRO
from cyxnode.protocol.units import MicroCyx, base58, format_sol

pytestmark = pytest.mark.slow
UNBONDING_S = 600
SOMEBODY = ("--bootstrap", "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWSCm8AHpFgxJxVwgw5EhtNbWkT86KuUVHew5fGMoAZsZg")


class Chain:
    """A chain process on a disk, and the commands that talk to it."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home, self._stack, self.rpc = home, stack, ""
        self.start("--unbonding", str(UNBONDING_S))

    def start(self, *options: str) -> None:
        command = ("chain", "run", "--port", "0", "--json", *options)
        self._process = self._stack.enter_context(started(self.home, *command, log=self.home / "chain.log"))
        self.rpc = ready_line(self._process)["url"]

    def restart_later(self, seconds: int) -> None:
        """End the process, let the chain's clock go on, and start it again: nobody waits for an unbonding time."""
        self._process.terminate()
        assert self._process.wait(timeout=15) == 0
        cluster = LocalCluster(os.urandom, now_unix_s=int(time.time()), path=self.home / "chain")
        for _ in range(2):
            cluster.advance(int(time.time()) + seconds)
        cluster.close()
        self.start()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return cyxnode(self.home, *arguments, "--rpc", self.rpc)

    def wallet(self, *arguments: str) -> Any:
        """The JSON of a money command that succeeds: an object, or a list of them for the history."""
        ended = self.run("wallet", *arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        found = [json.loads(line) for line in ended.stdout.splitlines()]
        return found if arguments[0] == "history" else found[0]

    def refused(self, field: str, *arguments: str) -> str:
        ended = self.run(*arguments)
        assert_one_line(ended, field, 2)
        return ended.stderr

    def address(self, name: str) -> str:
        return base58(load_key(self.home / name / "key.json").node_id)

    def register(self, name: str, stake: int) -> None:
        """As `cyxnode run` does at its first start."""

        async def work() -> None:
            key = load_key(self.home / name / "key.json")
            async with open_http_rpc(self.rpc) as rpc:
                wish = Register(bytes([5] * 32), MicroCyx(stake), key.node_id)
                await ChainClient(rpc, key, LOCAL_PROGRAM_ID).submit(wish)

        trio.run(work)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with ExitStack() as stack:
        yield Chain(tmp_path_factory.mktemp("wallet"), stack)


def test_money_is_received_sent_and_told(chain: Chain) -> None:
    assert chain.run("chain", "airdrop", "--cyx", "10").returncode == 0
    assert cyxnode(chain.home, "keygen", "--name", "bob").returncode == 0
    bob = chain.address("bob")
    sent = chain.wallet("send", bob, "2.5")
    assert sent["micro_cyx"] == 2_500_000 and sent["rent_lamports"] > 0 and sent["fee_lamports"] == 5_000
    assert sent["balance_micro_cyx"] == 7_500_000
    again = chain.wallet("send", bob, "2.5")
    assert again["rent_lamports"] == 0 and again["signature"] != sent["signature"]
    chain.wallet("send", bob, "0.25", "--sol")
    assert chain.wallet("balance", bob) == {
        "address": bob,
        "micro_cyx": 5 * MICRO,
        "lamports": 250_000_000,
        "node": None,
    }
    newest, *_ = chain.wallet("history", "--name", "bob", "--limit", "1")
    assert newest["what"] == [f"received 0.250000000 SOL from {chain.address('requester')}"]
    (older,) = chain.wallet("history", bob, "--limit", "1", "--before", newest["signature"])
    assert older["signature"] == again["signature"] and older["micro_cyx"] == 2_500_000 and older["fee_lamports"] == 0
    told = chain.run("wallet", "history").stdout
    assert f"sent 2.500000 CYX to {bob}" in told and "-2.500000 CYX" in told and "(fee 0.000005000)" in told


def test_what_would_be_lost_or_fail_is_refused_before_it_is_sent(chain: Chain) -> None:
    bob, before = chain.address("bob"), chain.wallet("balance")
    for field, amount in (("amount", "7.500001"), ("amount", "0")):
        chain.refused(field, "wallet", "send", bob, amount)
    assert "own address" in chain.refused("address", "wallet", "send", before["address"], "1")
    assert "a mint" in chain.refused("address", "wallet", "send", base58(LOCAL_MINT), "1")
    assert "--name" in chain.refused("name", "wallet", "unstake")
    assert chain.wallet("balance") == before


def on_terminal(chain: Chain, answer: str, *arguments: str) -> int:
    """A command on a terminal on which somebody types; its exit code."""
    ours, theirs = pty.openpty()
    command = [*CYXNODE, *arguments, "--rpc", chain.rpc]
    with subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE, env=environment(chain.home)) as process:
        os.write(ours, answer.encode())
        _, told = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert b"send 1.000000 CYX to" in told
    return process.returncode


def test_a_terminal_is_asked_first(chain: Chain) -> None:
    bob, before = chain.address("bob"), chain.wallet("balance")["micro_cyx"]
    assert on_terminal(chain, "n\n", "wallet", "send", bob, "1") == 130
    assert chain.wallet("balance")["micro_cyx"] == before
    assert on_terminal(chain, "y\n", "wallet", "send", bob, "1") == 0
    assert chain.wallet("balance")["micro_cyx"] == before - MICRO


def test_a_node_without_sol_is_told_before_anything_is_sent(chain: Chain) -> None:
    named = ("--name", "poor")
    assert chain.run("chain", "airdrop", *named, "--cyx", "100").returncode == 0
    chain.register("poor", 100 * MICRO)
    everything = chain.wallet("balance", *named)["lamports"] - 5_000
    chain.wallet("send", chain.address("bob"), format_sol(everything), "--sol", *named)
    assert "0.000000000 SOL do not cover" in chain.refused("balance", "wallet", "unstake", *named)
    assert chain.wallet("balance", *named)["node"]["standing"] == "active"


def test_a_node_stakes_leaves_and_comes_back(chain: Chain) -> None:
    named = ("--name", "node")
    assert chain.run("chain", "airdrop", *named, "--cyx", "150").returncode == 0
    chain.register("node", 100 * MICRO)
    assert chain.wallet("stake", "20.5", *named)["node"]["stake_micro_cyx"] == 120_500_000
    chain.refused("amount", "wallet", "stake", "29.500001", *named)
    mint = base58(LOCAL_MINT)
    assert "a mint" in chain.refused("payout", "wallet", "stake", "0", "--payout", mint, *named)
    chain.refused("amount", "wallet", "stake", "0", *named)
    assert chain.wallet("withdraw", *named)["withdrawn"] == []

    left = chain.wallet("unstake", *named)["node"]
    assert left["standing"] == "unbonding" and left["unbonding_at_s"] > time.time()
    assert "unbonding until" in chain.run("wallet", "balance", *named).stdout
    assert "leaving already" in chain.refused("stake", "wallet", "unstake", *named)
    assert "nothing can be withdrawn now" in chain.run("wallet", "withdraw", *named).stdout
    for silence in ((), ("--yes",)):
        chain.refused("reactivate", "wallet", "stake", "1", *named, *silence)
    ended = chain.run("run", *named, *SOMEBODY, "--sandbox", "none")
    assert_one_line(ended, "stake", 2)
    assert "unbonding until" in ended.stderr and "stake 0 --reactivate" in ended.stderr
    assert chain.wallet("balance", *named)["node"] == left

    back = chain.wallet("stake", "0", "--reactivate", *named)["node"]
    assert back["standing"] == "active" and back["unbonding_at_s"] is None
    assert chain.wallet("unstake", *named)["node"]["standing"] == "unbonding"
    chain.restart_later(UNBONDING_S + 1)
    (paid,) = chain.wallet("withdraw", *named)["withdrawn"]
    assert (paid["what"], paid["micro_cyx"]) == ("stake", 120_500_000)
    gone = chain.wallet("balance", *named)
    assert gone["micro_cyx"] == 150 * MICRO and gone["node"]["standing"] == "withdrawn"
    chain.refused("amount", "wallet", "stake", "99", *named)

    assert chain.wallet("stake", "100", "--payout", chain.address("bob"), *named)["node"]["standing"] == "active"
    assert chain.wallet("balance", *named)["node"]["payout"] == chain.address("bob")
    lines = [line for entry in reversed(chain.wallet("history", *named)) for line in entry["what"]]
    assert [line.split(" CYX")[0] for line in lines if not line.startswith(("received", "made"))] == [
        "registered a node with a stake of 100.000000",
        "added 20.500000",
        "asked for the stake: the unbonding time began",
        "registered the node again",
        "asked for the stake: the unbonding time began",
        "withdrew the stake: 120.500000",
        "added 100.000000",
    ]


def test_the_chain_tells_how_long_stakes_are_liable(chain: Chain) -> None:
    assert json.loads(chain.run("chain", "info", "--json").stdout)["unbonding_s"] == UNBONDING_S
