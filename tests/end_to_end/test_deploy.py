"""`cyxnode chain deploy` against a chain without the program, over HTTP."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import pytest

from commands import assert_one_line, cyxnode, ready_line, started

pytestmark = pytest.mark.slow
SOL_TO_DEPLOY = 1


@dataclass
class Bare:
    """A running chain without the escrow program, and a home with a payer."""

    home: Path
    url: str
    mint: str

    @property
    def payer(self) -> str:
        return str(self.home / "payer.json")

    def deploy(self, *arguments: str) -> CompletedProcess[str]:
        return cyxnode(self.home, "chain", "deploy", "--url", self.url, "--payer", self.payer, *arguments)

    def deployed(self, *arguments: str) -> dict[str, Any]:
        ended = self.deploy("--json", *arguments)
        assert ended.returncode == 0, ended.stderr
        facts: dict[str, Any] = json.loads(ended.stdout)
        return facts


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bare]:
    with started(tmp_path, "chain", "run", "--bare", "--port", "0", "--json", log=tmp_path / "chain.log") as process:
        facts = ready_line(process)
        assert facts["program"] is None
        assert cyxnode(tmp_path, "keygen", "--key", str(tmp_path / "payer.json")).returncode == 0
        yield Bare(tmp_path, facts["url"], facts["mint"])


def chunks_written(process: Popen[bytes], at_least: int) -> None:
    """Returns once a deployment has reported so many chunks."""
    assert process.stderr is not None
    said, deadline = "", time.monotonic() + 60
    while not any(int(done) >= at_least for done in re.findall(r"(\d+) of \d+ chunks", said)):
        readable, _, _ = select.select([process.stderr], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(process.stderr.fileno(), 4096) if readable else b""
        assert chunk, said
        said += chunk.decode()


def test_killed_resumed_initialised_used_and_made_final(bare: Bare) -> None:
    assert_one_line(bare.deploy(), "payer", 2)
    airdrop = ("chain", "airdrop", "--url", bare.url, "--key", bare.payer, "--cyx", "0", "--sol", str(SOL_TO_DEPLOY))
    assert cyxnode(bare.home, *airdrop).returncode == 0
    terms = ("--initialise", "--mint", bare.mint, "--fee-bps", "500", "--minimum-stake", "7")

    with started(bare.home, "chain", "deploy", "--url", bare.url, "--payer", bare.payer, *terms) as process:
        chunks_written(process, 5)
        process.send_signal(signal.SIGKILL)
        process.wait()

    facts = bare.deployed(*terms)
    assert facts["initialised"] == "now" and facts["mint"] == bare.mint
    assert facts["transactions"] < facts["bytes"] / 900, "what had been written was not written again"
    assert bare.deployed(*terms)["transactions"] == 0

    info = ("chain", "info", "--url", bare.url, "--program", facts["program"], "--json")
    said = json.loads(cyxnode(bare.home, *info).stdout)
    assert (said["fee_bps"], said["minimum_stake_cyx"], said["mint"]) == (500, "7.000000", bare.mint)

    assert_one_line(bare.deploy("--initialise", "--mint", bare.mint), "initialise", 2)
    assert_one_line(bare.deploy("--upgrade", "--program-key", str(bare.home / "none.json")), "program-key", 2)
    assert bare.deploy("--final").returncode == 130, "nobody answered the question"
    assert bare.deployed()["upgrade_authority"] is not None
    assert bare.deployed("--final", "--yes")["upgrade_authority"] is None


def test_nothing_is_paid_for_a_deployment_that_cannot_end_well(bare: Bare) -> None:
    assert_one_line(bare.deploy("--initialise"), "mint", 2)
    assert_one_line(bare.deploy("--initialise", "--mint", "1" * 32), "mint", 2)
    assert_one_line(bare.deploy("--final", "--yes"), "final", 2)
    assert_one_line(
        bare.deploy("--upgrade"), "program-key" if not (bare.home / "program.json").exists() else "upgrade", 2
    )
