"""Rewrites the parts of the documents that follow from the code: `python scripts/write_docs.py`, or `--check`.

A part stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`. A unit test fails when one is out of step.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import cli_reference
import message_tables
import state_diagrams

ROOT = Path(__file__).resolve().parent.parent
WRITERS: dict[str, Callable[[], str]] = {
    "messages": message_tables.message_tables,
    "protocols": message_tables.protocol_names,
    "codec example": message_tables.codec_example,
    "commands": cli_reference.command_reference,
    "exit codes": cli_reference.exit_codes,
    "metrics": cli_reference.metrics_table,
    **{f"{name} diagram": draw for name, draw in state_diagrams.DIAGRAMS.items()},
}
_PART = re.compile(r"(<!-- generated: (?P<name>[a-z ]+) -->\n).*?(<!-- end: (?P=name) -->)", re.DOTALL)


def documents() -> list[Path]:
    """Every document of the project."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rewritten(text: str) -> str:
    """A document with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part[1]}{WRITERS[part['name']]()}\n{part[3]}", text)


def main(arguments: list[str]) -> int:
    """1 when `--check` finds a part that is out of step."""
    stale = [path for path in documents() if path.exists() and rewritten(path.read_text()) != path.read_text()]
    for path in stale:
        sys.stdout.write(f"{'out of step' if '--check' in arguments else 'written'}: {path.relative_to(ROOT)}\n")
        if "--check" not in arguments:
            path.write_text(rewritten(path.read_text()))
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
