"""What a waiting user reads."""

from __future__ import annotations

import io

import trio
import trio.testing
from rich.console import Console

from cyxnode.cli.render import REMIND_S, JobView, waterfall
from cyxnode.scheduler.orders import Stage


async def test_silence_is_explained_and_news_is_not_repeated(autojump_clock: trio.testing.MockClock) -> None:
    text = io.StringIO()
    view = JobView(Console(file=text, width=200))
    async with view.shown():
        view.observe(Stage("announced", 1_000, "topic"))
        await trio.sleep(REMIND_S - 1)
        assert "waiting" not in text.getvalue()
        view.observe(Stage("claimed", 2_000, ""))
        await trio.sleep(REMIND_S - 1)
        assert "waiting" not in text.getvalue()
        await trio.sleep(1 + 2 * REMIND_S + 0.5)
    lines = [line for line in text.getvalue().splitlines() if "waiting" in line]
    assert len(lines) == 3
    assert all("for the committee's verdict" in line for line in lines)
    assert "(19 s so far)" in lines[0]


def test_a_waterfall_has_only_stages_that_happened() -> None:
    assert waterfall({"submitted": 0, "funded": 40, "announced": 41, "awarded": 60}) == [
        ("fund escrow", 0, 40),
        ("announce", 40, 1),
        ("auction", 41, 19),
    ]
