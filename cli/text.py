"""Text from strangers on a terminal: one line, no control characters, no markup."""

from __future__ import annotations


def plain(text: str) -> str:
    """`text` with everything unprintable replaced: a peer's hint must not move the cursor or colour the screen."""
    return "".join(char if char.isprintable() else "·" for char in text)


def unmarked(text: str) -> str:
    """`plain` text whose brackets rich prints as they are."""
    return plain(text).replace("[", "\\[")
