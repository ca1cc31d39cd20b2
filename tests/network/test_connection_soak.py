"""Connections that come and go leave nothing behind; benchmarks/connection_soak.py does the same with ten thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SOAK = Path(__file__).parents[2] / "benchmarks" / "connection_soak.py"


def test_two_hundred_connections_leave_nothing_behind() -> None:
    command = [sys.executable, "-W", "ignore", str(SOAK), "--connections", "200", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    assert found["grown"] == [] and done.returncode == 0, done.stderr[-2000:]
    assert found["at_the_end"]["tasks"] <= found["after_a_tenth"]["tasks"]
    assert "'/cyx/1/echo': 140" in found["figures"]["streams_served"], "the strangers did not come"
