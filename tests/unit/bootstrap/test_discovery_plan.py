"""When peers are looked for: at once, then seldom; more often while they are short, and ever less in vain."""

from __future__ import annotations

from itertools import pairwise

from cyxnode.bootstrap.discovery_plan import Facts, Plan, Step
from cyxnode.protocol.limits import (
    PROVIDE_INTERVAL_S,
    REGISTER_INTERVAL_S,
    SEARCH_FIRST_S,
    SEARCH_LAST_S,
    WALK_INTERVAL_S,
)

NOBODY = Facts(neighbours=0, points=0, of_class=True, short=True)
LONELY = Facts(neighbours=1, points=1, of_class=True, short=True)
SETTLED = Facts(neighbours=9, points=1, of_class=True, short=False)
LAMP = Facts(neighbours=9, points=0, of_class=False, short=True)


def run(plan: Plan, facts: Facts, until_s: float, *, ok: bool = True) -> list[tuple[float, Step]]:
    """All steps of a time in which the facts stay as they are, looked at every second."""
    taken = []
    for now_s in range(int(until_s)):
        for step in plan.due(facts, now_s):
            taken.append((float(now_s), step))
            plan.done(step, ok, now_s)
    return taken


def times(taken: list[tuple[float, Step]], step: Step) -> list[float]:
    return [now_s for now_s, one in taken if one is step]


def test_nothing_is_done_while_nobody_can_be_asked() -> None:
    assert run(Plan(), NOBODY, 10_000) == []


def test_a_newcomer_does_everything_at_once() -> None:
    assert Plan().due(LONELY, 0) == [Step.REGISTER, Step.WALK, Step.SEARCH, Step.PROVIDE]


def test_a_settled_node_keeps_its_intervals_and_does_not_search() -> None:
    taken = run(Plan(), SETTLED, 2 * WALK_INTERVAL_S + 1)
    assert times(taken, Step.SEARCH) == []
    assert times(taken, Step.WALK) == [0, WALK_INTERVAL_S, 2 * WALK_INTERVAL_S]
    assert times(taken, Step.PROVIDE)[:3] == [0, PROVIDE_INTERVAL_S, 2 * PROVIDE_INTERVAL_S]
    assert times(taken, Step.REGISTER)[:3] == [0, REGISTER_INTERVAL_S, 2 * REGISTER_INTERVAL_S]


def test_a_bootstrap_node_only_finds_its_place() -> None:
    assert {step for _, step in run(Plan(), LAMP, WALK_INTERVAL_S)} == {Step.WALK}


def test_a_mere_client_looks_only_while_it_is_short() -> None:
    assert run(Plan(), Facts(9, 0, of_class=False, short=False, serves=False), 10_000) == []
    assert run(Plan(), Facts(9, 0, of_class=False, short=True, serves=False), 100) == [(0, Step.WALK)]


def test_searching_in_vain_becomes_seldom() -> None:
    at_s = times(run(Plan(), LONELY, 10 * SEARCH_LAST_S), Step.SEARCH)
    waits = [later - earlier for earlier, later in pairwise(at_s)]
    assert waits[:3] == [SEARCH_FIRST_S, 2 * SEARCH_FIRST_S, 4 * SEARCH_FIRST_S] and max(waits) == SEARCH_LAST_S


def test_who_lost_its_peers_searches_at_once_again() -> None:
    plan = Plan()
    run(plan, LONELY, 5_000)
    assert plan.due(SETTLED, 5_000.5) == [] and plan.due(LONELY, 5_001) == [Step.SEARCH]


def test_what_failed_is_tried_again_soon_and_then_ever_later() -> None:
    at_s = times(run(Plan(), SETTLED, 5_000, ok=False), Step.REGISTER)
    assert at_s[:3] == [0, SEARCH_FIRST_S, 3 * SEARCH_FIRST_S] and at_s[-1] - at_s[-2] == REGISTER_INTERVAL_S


def test_who_lost_its_table_walks_when_it_has_somebody_again() -> None:
    plan = Plan()
    run(plan, SETTLED, 100)
    assert plan.due(NOBODY, 100) == [] and Step.WALK in plan.due(SETTLED, 101)


def test_intervals_are_varied() -> None:
    plan = Plan(jittered=lambda seconds: seconds * 1.1)
    at_s = times(run(plan, SETTLED, 3 * REGISTER_INTERVAL_S), Step.REGISTER)
    assert at_s == [0, 330, 660]
