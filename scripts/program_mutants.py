"""Mutants of the escrow program: each is its source with one check, one statement or one number changed.

The C sources keep one form (one statement a line, REQUIRE and TRY around every check), so text is enough to find them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "ledger" / "program"
SOURCES = ("setup.h", "open.h", "quorum.h", "settle.h", "close.h", "stake.h", "slash.h", "checks.h", "invoke.h",
           "layout.h")  # fmt: skip
_CALL = re.compile(r"\b(REQUIRE|TRY)\(")
_COMPARISON = re.compile(r" (<=|>=|<|>) ")
_FLIPPED = {"<=": "<", "<": "<=", ">=": ">", ">": ">="}
_ARITHMETIC = re.compile(r" ([-+]|\|=|\+=|-=) ")
_OTHER_SIGN = {"-": "+", "+": "-", "|=": "=", "+=": "-=", "-=": "+="}
_STATEMENT = re.compile(
    r"^\s+(?!\s|REQUIRE|TRY|return|if|else|for|while|switch|case|default|#|const |static |break|u64 error_)[^/{}]+;\s*$"
)
_DECLARATION = re.compile(
    r"^\s+(const )?(u8|u16|u32|u64|i64|int|Key|Node|Job|Config|Statement|Account|Slice)\b[^;]*;\s*$"
)
_DEFINE = re.compile(r"^#define ([A-Z_0-9]+) (\(?[0-9][^/]*?)\s*(/\*.*)?$")
_COMMENT = re.compile(r"/\*.*?(\*/|$)")


@dataclass(frozen=True, slots=True)
class Mutant:
    """`name` says what was changed without a line number, so that it outlives other changes; `text` is the new file."""

    file: str
    line: int
    name: str
    text: str


def _balanced(text: str, start: int) -> int:
    """Where the bracket that opens at `start` is closed, plus one."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at + 1
    raise ValueError("unbalanced")


def _parts(condition: str) -> list[str]:
    """The operands of && or || at the top of a condition."""
    depth, parts, last = 0, [], 0
    for at, letter in enumerate(condition):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and condition[at : at + 4] in (" && ", " || "):
            parts.append(condition[last:at])
            last = at + 4
    return [*parts, condition[last:]] if parts else []


def _checks(text: str) -> Iterator[tuple[int, int, str, str]]:
    """(from, to, what it becomes, name): a REQUIRE left out, or one of its operands; a TRY whose error is ignored."""
    for found in _CALL.finditer(text):
        end = _balanced(text, found.end() - 1)
        inside = text[found.end() : end - 1]
        if text[: found.start()].rsplit("\n", 1)[-1].startswith("#"):
            continue
        flat = re.sub(r"\s+", " ", inside)
        if found[1] == "TRY":
            yield found.start(), end, f"(void)({inside})", f"ignore {flat}"
            continue
        yield found.start(), end, "(void)0", f"no REQUIRE({flat})"
        condition, _, error = inside.rpartition(",")
        parts = _parts(condition)
        for at, part in enumerate(parts):
            left = [*parts[:at], *parts[at + 1 :]]
            joint = " && " if " && " in condition else " || "
            yield found.start(), end, f"REQUIRE({joint.join(left)},{error})", f"no {part.strip()} in REQUIRE({flat})"


def _lines(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Statements left out, comparisons and signs turned, constants one more or one less."""
    at = 0
    for line in text.split("\n"):
        code = _COMMENT.sub(lambda found: " " * len(found[0]), line)
        flat = re.sub(r"\s+", " ", code.strip())
        start, at = at, at + len(line) + 1
        define = _DEFINE.match(line)
        if define:
            for change in ("+ 1", "- 1"):
                yield start + define.start(2), start + define.end(2), f"({define[2]} {change})", f"{define[1]} {change}"
            continue
        if line.startswith(("#", " *", "/*", "typedef", "_Static", "extern")) or re.match(r"\s*/\*\s+\d+ \*/", line):
            continue
        if _STATEMENT.match(code) and not _DECLARATION.match(code) and code.count("(") == code.count(")"):
            yield start, start + len(line), "", f"no {flat}"
        for pattern, others in ((_COMPARISON, _FLIPPED), (_ARITHMETIC, _OTHER_SIGN)):
            if pattern is _ARITHMETIC and re.search(r"(call_data|->data|p|data|message) [-+] ", code):
                continue  # a place in bytes: wrong by much, not by one
            for found in pattern.finditer(code):
                sign = others[found[1]]
                yield start + found.start(1), start + found.end(1), sign, f"{sign} for {found[1]} in {flat}"
        for found in re.finditer(r"(?<=[ (])2 \* ", code):
            yield start + found.start(), start + found.end(), "", f"once, not twice, in {flat}"


def mutants() -> list[Mutant]:
    """All of them, in the order in which the sources are read. Names are unique."""
    made: dict[str, Mutant] = {}
    for file in SOURCES:
        text = (FOLDER / file).read_text()
        for start, end, new, what in [*_checks(text), *_lines(text)]:
            line = text.count("\n", 0, start) + 1
            name = f"{file}: {what}"
            while name in made:
                name += " (again)"
            made[name] = Mutant(file, line, name, text[:start] + new + text[end:])
    return list(made.values())
