"""Commands of cyxnode in this process: what they print, how they end, and how they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

SETTINGS = ("KEY", "RPC", "PROGRAM", "BOOTSTRAP", "LOG_LEVEL", "LOG_FORMAT")
"""Of the developer's own environment, which no test may see."""


class Ended(NamedTuple):
    """A command that ran to its end."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]
"""Runs `cyxnode ARGUMENTS`: the fixture `command`."""


def refused(ended: Ended, field: str, text: str = "", code: int = 2) -> None:
    """A refusal: one line that names the field and a fix, and nothing on standard output."""
    (line,) = ended.err.strip().splitlines()
    assert line.startswith(f"error: {field}: "), line
    assert "(fix: " in line and line.endswith(")"), line
    assert text in line, line
    assert (ended.code, ended.out) == (code, "")
