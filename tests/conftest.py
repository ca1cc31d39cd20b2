"""Profiles of hypothesis: no deadline, since the machine may be busy; the same examples every time in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from cyxnode.ledger import escrow_layout

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--escrow-program", type=Path, help="test this build of the escrow program (mutate_program.py)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--escrow-program"):
        escrow_layout.PROGRAM_PATH = config.getoption("--escrow-program")


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A command that ran in this process configured logging onto a stream that is closed by now."""
    yield
    structlog.reset_defaults()
