"""A home, and commands that run in it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from command_line import SETTINGS, Command, Ended
from cyxnode.cli.main import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home; nothing of the developer's own settings."""
    for name in SETTINGS:
        monkeypatch.delenv(f"CYXNODE_{name}", raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("CYXNODE_HOME", str(folder))
    return folder


@pytest.fixture
def command(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `cyxnode ARGUMENTS` in this process."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["cyxnode", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run
