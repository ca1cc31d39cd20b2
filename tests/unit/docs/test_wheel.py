"""What an installed cyxnode holds: everything that it reads at run time, and nothing that belongs to the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[3]
NEEDED = (
    "py.typed",
    "ledger/program/escrow.so",
    "ledger/program/escrow.so.sha256",
    "ledger/program/escrow.c",
    "ledger/program/escrow.codama.json",
    "examples/digits.toml",
    "examples/digits_cnn.json",
    "cli/main.py",
)


@pytest.fixture(scope="module")
def wheel() -> set[str]:
    """Paths inside the wheel, below `cyxnode/`."""
    files = WheelBuilder(str(ROOT)).recurse_included_files()
    paths = {Path(file.distribution_path).as_posix() for file in files}
    assert all(path.startswith("cyxnode/") for path in paths), "something is installed beside the package"
    return {path.removeprefix("cyxnode/") for path in paths}


@pytest.mark.parametrize("path", NEEDED)
def test_the_wheel_holds_what_is_read_at_run_time(wheel: set[str], path: str) -> None:
    assert path in wheel


def test_the_wheel_holds_no_tests_and_no_tools(wheel: set[str]) -> None:
    for folder in ("tests", "benchmarks", "scripts", "docs", "src", ".ci"):
        assert not [path for path in wheel if path.startswith(f"{folder}/")]


def test_every_linked_folder_is_in_the_wheel(wheel: set[str]) -> None:
    linked = {path.name for path in (ROOT / "src" / "cyxnode").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert linked <= {path.partition("/")[0] for path in wheel}
    assert {os.readlink(ROOT / "src" / "cyxnode" / name) for name in linked} == {f"../../{name}" for name in linked}


def test_the_demo_finds_its_example_in_the_package() -> None:
    from cyxnode.cli.demo import example_order

    assert example_order().relative_to(ROOT).as_posix() in NEEDED
