"""Programs on the clients that people use - @solana/web3.js, @solana/kit, solana-py - against `cyxnode chain run`.

The JavaScript ones need Node and npm, and are installed once from the lock file into a folder that git ignores. Without
them, or when the registry cannot be reached, the tests are skipped with that reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import environment, ready_line, started
from node_packages import assert_no_registry, node_with

HERE = Path(__file__).parent
FLOWS = HERE / "js"
FLOW_LIMIT_S = 60
GIFT = 1_000_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready line of a chain that runs for all flows."""
    home = tmp_path_factory.mktemp("chain")
    with started(home, "chain", "run", "--port", "0", "--json", log=home / "log") as process:
        yield ready_line(process)


@pytest.fixture(scope="module")
def node() -> str:
    """Path of a Node that has the flows' packages."""
    return node_with(FLOWS, "web3.js and kit were not tried")


def flow(*command: str) -> dict[str, Any]:
    """What a flow found; its standard error when it failed."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=FLOW_LIMIT_S, env=environment(Path("/")))
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert isinstance(found, dict)
    return found


def test_web3_js(chain: dict[str, Any], node: str) -> None:
    found = flow(node, str(FLOWS / "web3js.mjs"), chain["url"], chain["mint"])
    assert found["slot"]["parent"] == found["slot"]["slot"] - 1 and found["root"] > 0
    assert found["airdrop"]["err"] is None
    assert found["balance"] == found["accountSeen"] == GIFT
    assert found["logsSeen"]["signature"] == found["transfer"] and found["logsSeen"]["err"] is None
    assert any("success" in line for line in found["logsSeen"]["logs"])
    assert found["failing"] == {"InstructionError": [0, {"Custom": 1}]}
    assert "already been processed" in found["preflight"]
    assert found["tokenBalance"] == {
        "amount": "1250001", "decimals": 6, "uiAmount": 1.250001, "uiAmountString": "1.250001",
    }  # fmt: skip
    assert found["programSeen"] is True
    assert found["parsedAccount"] == "1.250001"
    assert (found["parsedMint"]["type"], found["parsedMint"]["info"]["decimals"]) == ("mint", 6)
    assert found["largest"] == sorted(found["largest"], reverse=True) and 3_750_000 in found["largest"]
    assert {"1250001", "3750000"} <= set(found["programAccounts"])
    assert found["history"] == [True, 2] and found["older"] == 3
    assert found["fee"] == 5000
    assert found["tokenChange"] == ["1250001", "3750000"]
    assert found["parsedSigner"] == 1 and found["inBlock"] is True
    assert found["supply"] == 500_000_000 * 10**9
    assert found["leader"] and found["nodes"] == 1 and found["firstBlock"] is True
    assert found["unknown"]["code"] == -32601 and "Did you mean getSlot?" in found["unknown"]["message"]


@pytest.mark.parametrize("beside", [0, 1], ids=["the RPC port itself", "the next port"])
def test_kit(chain: dict[str, Any], node: str, beside: int) -> None:
    found = flow(node, str(FLOWS / "kit.mjs"), chain["url"], websocket(chain, beside), chain["mint"])
    assert found["slot"]["slot"] - 1 == found["slot"]["parent"] and found["root"] > 0
    assert found["balance"] == found["accountSeen"] == GIFT
    assert found["logsSeen"]["signature"] == found["transfer"]
    assert found["lateSignature"] == {"err": None}
    assert found["tokenBalance"]["uiAmountString"] == found["parsedAccount"] == "1.250001"
    assert found["programSeen"] == chain["mint"]
    assert found["encodedAccount"] == 165
    assert {1_250_001, 3_750_000} <= set(found["programAccounts"])
    assert found["history"] is True and found["version"] == 0
    assert "maxSupportedTransactionVersion" in found["refusedVersion"]
    assert found["inBlock"] is True and found["blocks"] == 1
    assert found["supply"] == 500_000_000 * 10**9


def test_solana_py(chain: dict[str, Any]) -> None:
    found = flow(
        sys.executable, str(HERE / "solana_py_flow.py"), chain["url"], websocket(chain, 1), chain["program"]
    )  # fmt: skip
    assert found["signature"] is None and found["logs"] == [True, None]
    assert found["account"] == GIFT
    assert found["program"] == "1" * 32
    assert found["slot"] > 0 and found["confirmed"].endswith("Finalized") and found["configs"] == 1


def websocket(chain: dict[str, Any], beside: int) -> str:
    """The URL of the websocket `beside` ports after the RPC server's."""
    host, port = chain["url"].removeprefix("http://").split(":")
    return f"ws://{host}:{int(port) + beside}"


def test_the_lock_file_names_no_registry() -> None:
    assert_no_registry(FLOWS)
    assert "://" not in (FLOWS / "package-lock.json").read_text()
    assert (FLOWS / ".npmrc").exists()
