"""Who cheats, and how, follows from the plan alone; the counts of a run are those of its cheaters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cyxnode.protocol.errors import LocalError
from cyxnode.simulation.cheaters import CHEATS, kinds_of
from cyxnode.simulation.cheaters.cheat import Attempt, Fate, Score
from cyxnode.simulation.plan import Plan


def test_the_share_is_kept_and_all_kinds_take_turns() -> None:
    plan = Plan(seed=5, peers=64, cheaters=0.5, prompts=0.5)
    kinds = kinds_of(plan)
    assert len(kinds) == 32
    assert {kind.name for kind in kinds.values()} == set(CHEATS)
    assert kinds == kinds_of(plan)
    assert list(kinds) != list(kinds_of(replace(plan, seed=6)))


def test_nobody_forges_answers_where_no_prompts_are_asked() -> None:
    kinds = kinds_of(Plan(seed=5, peers=64, cheaters=0.5)).values()
    assert {kind.name for kind in kinds} == {name for name, kind in CHEATS.items() if not kind.infers}


def test_a_plan_may_choose_the_kinds() -> None:
    kinds = kinds_of(Plan(seed=5, peers=10, cheaters=0.3, cheats=("lazy", "sybil")))
    assert {kind.name for kind in kinds.values()} == {"lazy", "sybil"}
    assert kinds_of(Plan(seed=5, peers=10)) == {}


def test_an_unknown_kind_is_named_with_the_known_ones() -> None:
    with pytest.raises(LocalError, match="'tardy'"):
        kinds_of(Plan(seed=5, cheaters=0.3, cheats=("tardy",)))


def test_a_score_counts_odds_of_decided_tries_only() -> None:
    score = Score()
    score.add(Attempt(0, 0.5), Fate.CAUGHT)
    score.add(Attempt(0, 0.9), Fate.PAID)
    score.add(Attempt(0, 0.9), Fate.NEITHER)
    score.add(Attempt(0), Fate.CAUGHT)
    assert (score.tried, score.caught, score.paid, score.decided) == (4, 2, 1, 2)
    assert score.expected == pytest.approx(1.4)
    assert score.variance == pytest.approx(0.34)
