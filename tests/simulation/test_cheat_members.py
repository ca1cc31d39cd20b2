"""Members that judge without looking: their verdicts earn nothing, and honest work is paid all the same."""

from __future__ import annotations

import pytest

from cheat_worlds import phases, play

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["idle-verdict", "copied-verdict"])
def test_a_verdict_without_a_replay_earns_nothing(kind: str) -> None:
    _, score = play(kind, jobs=4)
    assert score.paid == 0
    assert score.caught >= 1


@pytest.mark.parametrize("seed", [1, 3])
def test_one_idle_member_stops_no_payment_however_far_apart_the_members_are(seed: int) -> None:
    """Every member's nonce must be in the certificate: with one missing, two honest verdicts are not enough."""
    run, _ = play("idle-verdict", seed=seed, cheaters=0.12, jobs=5)
    assert phases(run) == ["settled"] * 5


def test_one_equivocator_settles_nothing_but_what_the_others_found() -> None:
    run, score = play("equivocator", cheaters=0.12, jobs=5)
    assert score.caught == score.tried
    assert phases(run) == ["settled"] * 5
