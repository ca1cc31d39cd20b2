"""The order of the pieces of answers, to which a worker holds its backend, and a requester its worker: every piece is
of a prompt that was asked, and none comes after the one that says that it is its answer's last. They may interleave.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class PieceOrder:
    """The answers to `count` prompts, as far as their pieces have come."""

    count: int
    _ended: set[int] = field(default_factory=set)

    def take(self, prompt_index: int, *, last: bool) -> str:
        """Let the next piece in. The reason if it has no place; nothing changes then."""
        if not 0 <= prompt_index < self.count:
            return f"a piece for prompts[{prompt_index}], where {self.count} were asked"
        if prompt_index in self._ended:
            return f"a piece for prompts[{prompt_index}], whose answer had its last piece"
        if last:
            self._ended.add(prompt_index)
        return ""

    @property
    def unfinished(self) -> tuple[int, ...]:
        """Prompts whose answer has not had its last piece."""
        return tuple(index for index in range(self.count) if index not in self._ended)
