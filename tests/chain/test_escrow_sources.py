"""The C sources and the Python face say the same: error codes, addresses, layouts, bounds; the .so is theirs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from chain_world import World
from cyxnode.ledger import escrow_instructions as build
from cyxnode.ledger import escrow_layout as layout
from cyxnode.ledger import node_instructions as nodes
from cyxnode.protocol import limits
from cyxnode.protocol.chain import JobState, Verdict
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.hashing import QuorumKind

FOLDER = layout.PROGRAM_PATH.parent


def _source(name: str) -> str:
    return (FOLDER / name).read_text()


def _constants(name: str) -> dict[str, int]:
    """Values that a header gives by `NAME = 1` in an enum."""
    return {
        key: int(value, 0) for key, value in re.findall(r"\b([A-Z][A-Z0-9_]+) = (0x[0-9A-F]+|\d+)\b", _source(name))
    }


def test_every_error_of_the_program_has_a_text_and_no_other() -> None:
    errors = {name: code for name, code in _constants("errors.h").items() if name.startswith("E_")}
    assert sorted(errors.values()) == sorted(layout.ERRORS)
    assert len(set(errors.values())) == len(errors), "a number is used twice"
    assert all("(fix: " in text and "\n" not in text for text in layout.ERRORS.values())


def test_every_error_is_used() -> None:
    code = "".join(_source(path.name) for path in FOLDER.glob("*.[ch]") if path.name != "errors.h")
    assert [
        name for name in _constants("errors.h") if name.startswith("E_") and not re.search(rf"\b{name}\b", code)
    ] == []


def test_addresses_are_those_of_their_names() -> None:
    found = re.findall(r"/\* (\w{32,44}) \*/\s*((?:0x[0-9a-f]{16}[, ]*\n?\s*){4})\}\}", _source("keys.h"))
    assert len(found) == 6
    for name, words in found:
        raw = b"".join(int(word, 16).to_bytes(8, "little") for word in re.findall(r"0x[0-9a-f]+", words))
        assert raw == bytes(Pubkey.from_string(name)), name


def test_numbers_agree_with_the_protocol() -> None:
    c = _constants("layout.h")
    assert (c["CONFIG_TAG"], c["NODE_TAG"], c["JOB_TAG"]) == (layout.CONFIG_TAG, layout.NODE_TAG, layout.JOB_TAG)
    assert c["LAYOUT_VERSION"] == layout.LAYOUT_VERSION
    assert [c[s.name] for s in JobState] == list(JobState)
    assert [c["VERDICT_OK" if v is Verdict.OK else v.name] for v in Verdict] == list(Verdict)
    assert [c[f"MESSAGE_{kind.name}"] for kind in QuorumKind] == list(QuorumKind)
    for module, names in (
        (build, ("OPEN_JOB", "SEAT", "SETTLE", "CLOSE_JOB", "REFUND_EXPIRED")),
        (nodes, ("INITIALISE", "REGISTER", "REQUEST_UNSTAKE", "WITHDRAW_STAKE", "WITHDRAW_EARNED")),
        (nodes, ("SLASH_EQUIVOCATION",)),
    ):
        for name in names:
            assert c[name] == getattr(module, name)
    header = _source("layout.h")
    for name in ("COMMITTEE_MAX", "SEAT_DEADLINE_SLOTS", "FEE_BPS_MAX", "SETTLEMENTS_MAX"):
        assert re.search(rf"#define {name} {getattr(limits, name)}\b", header), name
    assert limits.AMOUNT_MAX == (1 << 63) // 10_000
    quorums = dict(re.findall(r"k == (\d) \? (\d)", _source("open.h")))
    assert {int(k): int(m) for k, m in quorums.items()} == limits.QUORUMS
    (three, five, seven) = re.findall(r"return k == 3 \? (\d) : k == 5 \? (\d) : (\d);", _source("quorum.h"))[0]
    assert {3: int(three), 5: int(five), 7: int(seven)} == limits.FRAUD_QUORUMS


def test_offsets_in_comments_are_true() -> None:
    """Field by field: /* offset */ type names; against the sizes of the types."""
    sizes = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "Key": 32}
    blocks = re.findall(r"typedef struct \{\n(.*?)\} \w+; /\* (\d+)", _source("layout.h"), re.S)
    assert len(blocks) == 8
    for block, end in blocks:
        at = 0
        for offset, kind, names in re.findall(r"/\*\s+(\d+) \*/ (\w+) ([^;]+);", block):
            assert int(offset) == at, f"{kind} {names} is at {at}, not {offset}"
            for name in names.split(","):
                count = re.search(r"\[(\w+)\]", name)
                times = 1 if count is None else limits.COMMITTEE_MAX if count[1].isupper() else int(count[1])
                at += sizes[kind] * times
        assert at == int(end)


@pytest.mark.parametrize("kind", ["config", "node", "job"])
def test_decoders_refuse_foreign_bytes(kind: str) -> None:
    world = World(3)
    job = world.seated_job()
    address = {
        "config": layout.config_address(world.program),
        "node": layout.node_address(world.program, job.committee[0]),
        "job": layout.job_address(world.program, job.job),
    }[kind]
    decode = {"config": layout.decode_config, "node": layout.decode_node, "job": layout.decode_job}[kind]
    data = world.data(address)
    assert data is not None
    decode(data)
    for wrong in (b"", data[:-1], data + b"\0", b"\0" + data[1:], data[:1] + b"\x01" + data[2:]):
        with pytest.raises(RemoteError):
            decode(wrong)
    if kind == "job":
        for at, value in ((4, 0), (4, 9), (5, 9), (6, 4), (7, 1)):
            with pytest.raises(RemoteError):
                decode(data[:at] + bytes([value]) + data[at + 1 :])


def test_the_checksum_is_that_of_the_program() -> None:
    said, name = (FOLDER / "escrow.so.sha256").read_text().split()
    assert (said, name) == (sha256(layout.PROGRAM_PATH.read_bytes()).hexdigest(), "escrow.so")


def _build(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cyxnode.ledger.program.build", *arguments]
    environment = os.environ | {"PYTHONPATH": str(package)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.mark.slow
def test_the_committed_program_is_what_its_sources_give(tmp_path: Path) -> None:
    done = _build(Path(__file__).parents[2] / "src", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_check_notices_a_changed_source(tmp_path: Path) -> None:
    for name in ("__init__.py", "ledger/__init__.py"):
        (tmp_path / "cyxnode" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cyxnode" / name).touch()
    copy = tmp_path / "cyxnode" / "ledger" / "program"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert _build(tmp_path, "--check").returncode == 0, "the bytes do not depend on the folder"
    (copy / "layout.h").write_text(_source("layout.h").replace("FEE_BPS_MAX 1000", "FEE_BPS_MAX 9000"))
    done = _build(tmp_path, "--check")
    assert done.returncode == 1
    assert "escrow.so is not what its sources give" in done.stderr
    (copy / "close.h").write_text("#error broken\n")
    assert "does not compile" in _build(tmp_path).stderr
