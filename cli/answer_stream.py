"""Answers on standard output while they grow: one prompt's after the other, whatever order their pieces come in.

A piece of a prompt that is not due waits; a prompt's turn ends with the piece that is its answer's last. The settled
answers end every turn, and decide: if one of them is not what was shown, all are written once more.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from ..protocol.messages import Tokens
from .text import plain_lines


class AnswerStream:
    """Writes the answers to `count` prompts to `out`; `aside` tells the reader what cannot be told there."""

    def __init__(self, count: int, out: TextIO, aside: Callable[[str], None]) -> None:
        self._count, self._out, self._aside = count, out, aside
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="replace")
        self._waiting: dict[int, str] = defaultdict(str)
        self._shown = [""] * count
        self._ended, self._turn = set[int](), 0
        self._at_line_start, self._gone = True, False

    @property
    def began(self) -> bool:
        """Whether anything was shown."""
        return any(self._shown)

    def add(self, piece: Tokens) -> None:
        """The next piece of any prompt."""
        index = piece.prompt_index
        if index >= self._count or index in self._ended:
            return
        self._waiting[index] += piece.text
        if piece.last:
            self._ended.add(index)
        self._show_due()
        while self._turn in self._ended and self._turn + 1 < self._count:
            self._next_turn()

    def _show_due(self) -> None:
        text = self._waiting.pop(self._turn, "")
        self._shown[self._turn] += text
        self._write(plain_lines(text))

    def _next_turn(self) -> None:
        self._end_line()
        self._write("\n")
        self._turn += 1
        self._show_due()

    def restart(self) -> None:
        """Another node answers: all answers begin anew, below what was shown of the ones before."""
        if self.began:
            self._end_line()
            self._write("\n")
            self._aside("what is shown above was broken off, and is no part of the answer that begins now")
        self._waiting.clear()
        self._shown = [""] * self._count
        self._turn = 0
        self._ended.clear()

    def finish(self, answers: Sequence[str]) -> bool:
        """Show what is missing of the settled answers; returns whether all that was shown is in them."""
        true = all(self._is_true(index, answer) for index, answer in enumerate(answers))
        if true:
            self._waiting.clear()
            self._waiting.update({n: answer[len(self._shown[n]) :] for n, answer in enumerate(answers)})
            self._show_due()
            while self._turn + 1 < self._count:
                self._next_turn()
        else:
            self.end()
            self._aside("the answers as they were verified follow: the worker had streamed something else")
            self._write("\n\n".join(plain_lines(answer).rstrip("\n") for answer in answers))
        self.end()
        return true

    def _is_true(self, index: int, answer: str) -> bool:
        shown, over = self._shown[index], index <= self._turn and index in self._ended
        return shown == answer if over else answer.startswith(shown)

    def end(self) -> None:
        """Nothing more comes."""
        self._end_line()

    def breaks_line(self) -> bool:
        """Whether a line of another stream would now stand in the middle of an answer on one terminal; once told,
        that line is taken as ended there."""
        broken = not self._at_line_start and self._out.isatty()
        self._at_line_start = self._at_line_start or broken
        return broken

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        if not text or self._gone:
            return
        self._at_line_start = text.endswith("\n")
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            # the reader has gone, as `head` does: the job goes on, and its answer will be in the results
            self._gone = True
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self._aside("nobody reads the answer any more; it will be in the results")
