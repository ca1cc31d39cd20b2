"""Shrinking is a pure search: fake predicates stand for worlds that violate something."""

from __future__ import annotations

import pytest

from cyxnode.simulation.plan import NetworkSplits, NodeCrashes, Plan, schedule
from cyxnode.simulation.shrink import MEASURES, MINUTES_MIN, PEERS_MIN, shrink

BIG = Plan(seed=3, peers=40, minutes=20.0, jobs=12, faults="harsh", cheaters=0.25, requesters=5, classes=2)


def test_what_always_fails_becomes_the_smallest_world() -> None:
    found = shrink(BIG, lambda plan: True)
    assert (found.peers, found.minutes, found.jobs) == (PEERS_MIN, MINUTES_MIN, 0)
    assert (found.faults, found.cheaters, found.requesters, found.classes) == ("none", 0.0, 1, 1)
    assert schedule(found) == []
    assert found.seed == BIG.seed


@pytest.mark.parametrize("least", [4, 5, 9, 23, 39])
def test_a_threshold_is_found_exactly(least: int) -> None:
    assert shrink(BIG, lambda plan: plan.peers >= least).peers == least


def test_only_the_happening_that_matters_is_left() -> None:
    def fails(plan: Plan) -> bool:
        return any(isinstance(happening.what, NodeCrashes) for happening in schedule(plan))

    found = shrink(BIG, fails)
    assert [type(happening.what) for happening in schedule(found)] == [NodeCrashes]
    assert fails(found)


def test_two_happenings_that_matter_together_are_both_left() -> None:
    def fails(plan: Plan) -> bool:
        kinds = {type(happening.what) for happening in schedule(plan)}
        return {NodeCrashes, NetworkSplits} <= kinds

    found = shrink(BIG, fails)
    assert sorted(type(happening.what).__name__ for happening in schedule(found)) == ["NetworkSplits", "NodeCrashes"]


def test_what_fails_only_as_it_is_stays_as_it_is() -> None:
    assert shrink(BIG, lambda plan: plan == BIG) == BIG


def test_the_one_cheat_that_matters_is_left() -> None:
    plan = Plan(seed=1, cheaters=0.5, cheats=("late-bid", "spammer", "sybil"))
    found = shrink(plan, lambda candidate: candidate.cheaters > 0 and "spammer" in candidate.cheats)
    assert found.cheats == ("spammer",)


def test_no_more_worlds_are_played_than_allowed() -> None:
    played: list[Plan] = []

    def fails(plan: Plan) -> bool:
        played.append(plan)
        return len(played) % 3 == 0

    shrink(BIG, fails, trials_max=17)
    assert len(played) == 17


def test_a_found_plan_is_one_that_failed() -> None:
    """Whatever the predicate, even one without any order in it."""
    for salt in range(50):
        known = {BIG}

        def fails(plan: Plan, salt: int = salt, known: set[Plan] = known) -> bool:
            if hash((salt, plan.peers, plan.minutes, plan.jobs, len(plan.drop))) % 3:
                return False
            known.add(plan)
            return True

        found = shrink(BIG, fails)
        assert any(found == Plan(**{**_fields(one), "drop": tuple(sorted(one.drop))}) for one in known)


def _fields(plan: Plan) -> dict[str, object]:
    return {name: getattr(plan, name) for name in plan.__slots__}


def test_every_step_is_smaller_and_survives_the_command_line() -> None:
    for candidate in (one for measure in MEASURES for one in measure(BIG)):
        assert candidate != BIG
        assert candidate.peers <= BIG.peers and candidate.minutes <= BIG.minutes and candidate.jobs <= BIG.jobs
        assert float(f"{candidate.minutes:g}") == candidate.minutes


def test_a_smaller_world_keeps_its_troubles() -> None:
    """Fewer jobs and peers leave all other happenings as they were; a shorter world those before its end."""
    whole = {(happening.at_s, happening.what) for happening in schedule(BIG)}
    for fewer in (Plan(**{**_fields(BIG), "jobs": 3}), Plan(**{**_fields(BIG), "peers": 7})):
        assert {(happening.at_s, happening.what) for happening in schedule(fewer)} < whole
    shorter = schedule(Plan(**{**_fields(BIG), "minutes": 10.0, "jobs": 0}))
    assert shorter and {(happening.at_s, happening.what) for happening in shorter} < whole
