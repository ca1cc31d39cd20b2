"""Answers appear in the order of their prompts, as text alone; what was not true is not left standing."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from cyxnode.cli.answer_stream import AnswerStream
from cyxnode.cli.render import JobView, waterfall
from cyxnode.protocol.messages import Tokens
from cyxnode.scheduler.orders import Stage


def piece(prompt: int, text: str, *, last: bool = False) -> Tokens:
    return Tokens(job=bytes(32), sequence=0, prompt_index=prompt, generated=1, text=text, last=last)


class Shown:
    """A stream into a string, and what it said aside."""

    def __init__(self, count: int = 1) -> None:
        self.out, self.said = io.StringIO(), list[str]()
        self.stream = AnswerStream(count, self.out, self.said.append)

    @property
    def text(self) -> str:
        return self.out.getvalue()


def test_pieces_are_shown_as_they_come() -> None:
    shown = Shown()
    for text, so_far in (("The", "The"), ("", "The"), (" boat", "The boat")):
        shown.stream.add(piece(0, text))
        assert shown.text == so_far
    assert shown.stream.finish(["The boat sails."])
    assert shown.text == "The boat sails.\n" and shown.said == []


def test_interleaved_answers_are_shown_one_after_the_other() -> None:
    shown = Shown(2)
    for prompt, text in ((0, "a"), (1, "x"), (0, "b"), (1, "y"), (0, "c"), (1, "z")):
        shown.stream.add(piece(prompt, text))
    assert shown.text == "abc"
    assert shown.stream.finish(["abc", "xyz"])
    assert shown.text == "abc\n\nxyz\n" and shown.said == []


async def test_the_answers_of_a_worker_that_takes_over_begin_anew() -> None:
    shown = Shown(2)
    view = JobView(Console(file=io.StringIO()), shown.stream)
    for prompt, text in ((0, "ab"), (1, "x")):
        shown.stream.add(piece(prompt, text))
    view.observe(Stage("handed over", 1, "9mN2 takes over"))
    assert shown.text == "ab\n\n" and "no part of the answer" in shown.said[0]
    for prompt, text in ((0, "c"), (1, "z")):
        shown.stream.add(piece(prompt, text))
    assert shown.stream.finish(["cd", "z"]), "what the one before said does not count"
    assert shown.text == "ab\n\ncd\n\nz\n" and len(shown.said) == 1


def test_nothing_is_said_of_a_hand_over_before_the_first_token() -> None:
    shown = Shown()
    shown.stream.restart()
    assert shown.text == "" and shown.said == []


def test_a_turn_ends_with_the_last_piece_of_its_answer() -> None:
    shown = Shown(3)
    shown.stream.add(piece(1, "x"))
    shown.stream.add(piece(0, "a"))
    assert shown.text == "a"
    shown.stream.add(piece(0, "", last=True))
    assert shown.text == "a\n\nx"
    shown.stream.add(piece(2, "p", last=True))
    assert shown.text == "a\n\nx"
    shown.stream.add(piece(1, "y", last=True))
    assert shown.text == "a\n\nxy\n\np"
    assert shown.stream.finish(["a", "xy", "p"]) and not shown.said
    assert shown.text == "a\n\nxy\n\np\n"


def test_an_answer_that_pauses_keeps_its_turn() -> None:
    shown = Shown(2)
    for text in ("x", *"yz" * 50):
        shown.stream.add(piece(1, text))
    shown.stream.add(piece(0, "late", last=True))
    assert shown.text == "late\n\nx" + "yz" * 50


def test_an_answer_that_was_ended_too_early_is_told_and_corrected() -> None:
    shown = Shown(2)
    shown.stream.add(piece(0, "hal", last=True))
    shown.stream.add(piece(0, "f", last=True))
    shown.stream.add(piece(1, "x"))
    assert shown.text == "hal\n\nx"
    assert not shown.stream.finish(["half", "x"])
    assert shown.text == "hal\n\nx\nhalf\n\nx\n"
    assert "something else" in shown.said[0]


def test_a_last_answer_that_was_ended_too_early_is_not_just_gone_on_with() -> None:
    shown = Shown()
    shown.stream.add(piece(0, "hal", last=True))
    assert not shown.stream.finish(["half"])
    assert shown.text == "hal\nhalf\n"


def test_what_was_said_too_early_and_never_shown_is_not_held_against_it() -> None:
    shown = Shown(2)
    shown.stream.add(piece(1, "lies", last=True))
    assert shown.stream.finish(["one", "two"]) and not shown.said
    assert shown.text == "one\n\ntwo\n"


def test_a_stream_that_said_something_else_is_told_and_corrected() -> None:
    shown = Shown()
    shown.stream.add(piece(0, "lies"))
    assert not shown.stream.finish(["truth"])
    assert shown.text == "lies\ntruth\n"
    assert "something else" in shown.said[0]


def test_answers_that_were_not_streamed_are_shown_at_the_end() -> None:
    shown = Shown(2)
    assert shown.stream.finish(["one\n", "two"]) and not shown.said
    assert shown.text == "one\n\ntwo\n"


def test_no_answer_moves_the_cursor() -> None:
    shown = Shown()
    shown.stream.add(piece(0, "a\x1b[2J\rb\n\tc\x9b\u202e👩\u200d🚀"))
    assert shown.text == "a·[2J·b\n\tc··👩\u200d🚀"


def test_a_prompt_that_was_not_asked_is_passed_over() -> None:
    shown = Shown()
    shown.stream.add(piece(5, "?"))
    assert shown.text == ""


def test_a_reader_that_goes_ends_no_job() -> None:
    read, write = os.pipe()
    os.close(read)
    said = list[str]()
    with os.fdopen(write, "w") as out:
        stream = AnswerStream(1, out, said.append)
        stream.add(piece(0, "a"))
        stream.add(piece(0, "b"))
        assert stream.finish(["ab"])
    assert len(said) == 1 and "results" in said[0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("out", "lines"), [(Terminal(), 3), (io.StringIO(), 2)])
async def test_a_stage_begins_its_own_line_on_a_shared_terminal(out: io.StringIO, lines: int) -> None:
    text = io.StringIO()
    view = JobView(Console(file=text, width=200), AnswerStream(1, out, print))
    view.observe(Stage("answering", 0, ""))
    view.observe(piece(0, "The bo"))
    view.observe(Stage("trouble", 10, "the stream broke"))
    assert len(text.getvalue().splitlines()) == lines
    assert "not verified yet" in text.getvalue()
    assert out.getvalue() == "The bo"


def test_the_waterfall_of_an_inference() -> None:
    rows = waterfall({"awarded": 5, "answering": 9, "claimed": 12, "settled": 20})
    assert rows == [("first token", 5, 4), ("answer", 9, 3), ("verify and settle", 12, 8)]
    late = waterfall({"awarded": 5, "answering": 30, "claimed": 12, "settled": 20})
    assert ("answer", 30, -18) not in late
