"""Random games of the real program against a model of it: same answers, same accounts, same money, move by move."""

from __future__ import annotations

import os
import random

import pytest

from cyxnode.protocol.chain import Verdict
from escrow_model import jobs
from escrow_model.cast import TAGS
from escrow_model.machine import SHORT_GAME, Played, fails, play, shrink

MOVES, SEQUENCES_OF_A_WORLD, WORLDS, PARTS = 8, 100, 25, 4
"""10,000 sequences of eight moves. The worlds outlive a sequence: its jobs and nodes are there for the next."""

LEAST_ACCEPTED = dict.fromkeys(TAGS, 150) | {"initialise": WORLDS, "withdraw_stake": 20, "slash_equivocation": 40}
LEAST_VERDICTS = dict.fromkeys([verdict.name for verdict in Verdict], 40)
CODES_SEEN = 72
"""Different refusals in each part, of the 98 that exist: the terms of initialise alone are 20 that come up seldom."""


def _first_seed(part: int) -> int:
    """The same games in CI, new ones elsewhere."""
    return part << 32 if os.environ.get("CI") else random.SystemRandom().getrandbits(48)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_the_program_does_what_the_model_says(part: int, pytestconfig: pytest.Config) -> None:
    played = Played()
    first = _first_seed(part)
    for world in range(WORLDS):
        start = first + world * SEQUENCES_OF_A_WORLD * MOVES
        moves = range(start, start + SEQUENCES_OF_A_WORLD * MOVES)
        try:
            play(moves, played)
        except AssertionError as error:
            mutant = pytestconfig.getoption("--escrow-program")
            fewest = moves if mutant else shrink(moves)
            pytest.fail(f"play({fewest}) differs: {fails(fewest)} (before shrinking: {error})")
    print(f"{played.transactions} transactions: {played.accepted} {played.verdicts} {sorted(played.refused.items())}")
    for name, least in LEAST_ACCEPTED.items():
        assert played.accepted[name] >= least, f"{name} was accepted {played.accepted[name]} times"
    for name, least in LEAST_VERDICTS.items():
        assert played.verdicts[name] >= least, f"{name} was settled {played.verdicts[name]} times"
    assert len(played.refused) >= CODES_SEEN, sorted(played.refused)


def test_one_short_game() -> None:
    """So that the fast tests know, too, when the two disagree."""
    error = fails(SHORT_GAME)
    assert error is None, f"play({SHORT_GAME}) differs: {error}"


@pytest.mark.slow
def test_a_model_that_errs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fee a ten-thousandth too high: the game fails, and shrinks to the moves that it takes to pay somebody."""
    monkeypatch.setattr(jobs, "BPS", 9_999)
    fewest = shrink(SHORT_GAME)
    assert "settle" in str(fails(fewest))
    assert len(fewest) <= 30
