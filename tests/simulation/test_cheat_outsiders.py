"""Floods, old messages, walls of liars, and requesters that want work for nothing."""

from __future__ import annotations

import pytest

from cheat_worlds import phases, play

pytestmark = pytest.mark.slow


def test_a_spammer_is_banned_for_its_garbage_and_costs_nobody_a_message() -> None:
    _, score = play("spammer", cheaters=0.12)
    assert score.paid == 0
    assert score.caught >= score.tried // 2


def test_old_messages_of_others_change_nothing() -> None:
    run, score = play("replayer", cheaters=0.12)
    assert score.paid == 0
    assert score.caught >= score.tried - 2
    assert phases(run) == ["settled"] * 3


def test_liars_about_peers_wall_nobody_in() -> None:
    run, score = play("eclipse")
    assert score.paid == 0
    assert score.caught >= 5
    assert phases(run) == ["settled"] * 3


def test_a_griefing_requester_gets_no_work_for_nothing_and_stops_nobody() -> None:
    run, score = play("griefing-requester", cheaters=0.12)
    assert score.paid == 0
    assert score.caught >= 3
    assert phases(run) == ["settled"] * 3
