"""Workers that do not do the work: what sampling promises to see, it sees, and nobody is paid for what was seen."""

from __future__ import annotations

import pytest

from cheat_worlds import phases, play
from cyxnode.simulation.cheaters.cheat import seen_by

pytestmark = pytest.mark.slow


def test_what_is_always_checked_is_never_paid() -> None:
    run, score = play("wrong-weights")
    assert score.paid == 0
    assert score.caught == score.decided >= 1
    assert phases(run).count("failed") == score.caught


@pytest.mark.parametrize(("kind", "done"), [("absent-winner", 3), ("vanishing-worker", 1)])
def test_who_does_not_work_costs_the_requester_time_and_not_its_job(kind: str, done: int) -> None:
    """At least `done` of three jobs go well. Nobody takes over from a worker that vanishes once it has claimed."""
    run, score = play(kind)
    assert score.paid == 0
    assert score.caught == score.decided >= 1
    assert phases(run).count("settled") >= done


def test_a_lazy_worker_is_caught_as_often_as_its_half_of_the_leaves_is_drawn() -> None:
    _, score = play("lazy", jobs=4)
    assert score.decided == score.tried
    assert score.caught >= score.decided - 1
    assert 0.97 < score.expected / score.decided < 1


def test_one_forged_leaf_is_rarely_drawn_and_then_paid() -> None:
    run, score = play("forged-leaf", jobs=4)
    assert score.decided == score.caught + score.paid
    assert phases(run).count("settled") >= score.paid
    assert score.expected / score.decided < 0.2


def test_hardware_that_computes_other_bits_earns_nothing_as_worker_or_as_judge() -> None:
    _, score = play("fake-hardware", cheaters=0.12, jobs=4)
    assert score.paid == 0
    assert score.caught >= 1


def test_the_odds_of_sampling() -> None:
    assert seen_by(5, 64, 128) > 0.999
    assert seen_by(3, 1, 64) == pytest.approx(1 - (62 / 64) ** 3)
    assert seen_by(3, 0, 64) == 0
    assert seen_by(1, 1, 1) == 1
