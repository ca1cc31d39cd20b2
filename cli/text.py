"""Text from strangers on a terminal: no control characters, no markup; one line, unless it is an answer."""

from __future__ import annotations

_KEPT = "\n\t\u200c\u200d"
"""In answers. The last two join letters, and parts of one emoji."""


def plain(text: str) -> str:
    """`text` with everything unprintable replaced: a peer's hint must not move the cursor or colour the screen."""
    return "".join(char if char.isprintable() else "·" for char in text)


def plain_lines(text: str) -> str:
    """The same for a text of several lines: line ends, tabs and joiners stay."""
    return "".join(char if char.isprintable() or char in _KEPT else "·" for char in text)


def unmarked(text: str) -> str:
    """`plain` text whose brackets rich prints as they are."""
    return plain(text).replace("[", "\\[")
