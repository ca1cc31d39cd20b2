"""What a peer writes must not reach the terminal as anything but text."""

from __future__ import annotations

import io

from rich.console import Console

from cyxnode.cli.text import plain, unmarked


def test_control_characters_and_line_breaks_are_replaced() -> None:
    assert plain("a\x1b[2Jb\r\nc\x07\u202ed") == "a·[2Jb··c··d"


def test_markup_is_printed_as_it_is() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=60, highlight=False)
    console.print(unmarked("[red]x[/] [link=y]"))
    assert out.getvalue() == "[red]x[/] [link=y]\n"
