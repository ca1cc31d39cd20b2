"""What happens in a world follows from its plan alone, and a change of the plan changes no more than it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from cyxnode.simulation.plan import (
    WARM_UP_S,
    Happening,
    JobArrives,
    NetworkSplits,
    NodeCrashes,
    NodeLeaves,
    NodePauses,
    Plan,
    schedule,
)

HARSH = Plan(seed=7, peers=8, minutes=60.0, jobs=5, faults="harsh")


def what(happenings: list[Happening], *kinds: type) -> list[tuple[float, object]]:
    return [(one.at_s, one.what) for one in happenings if not kinds or isinstance(one.what, kinds)]


def test_every_kind_of_trouble_comes_in_order_and_after_the_warm_up() -> None:
    happenings = schedule(HARSH)
    assert happenings == schedule(HARSH) != schedule(replace(HARSH, seed=8))
    counts = Counter(type(one.what) for one in happenings)
    assert set(counts) == {JobArrives, NodeCrashes, NodePauses, NodeLeaves, NetworkSplits}
    assert counts[JobArrives] == HARSH.jobs
    times = [one.at_s for one in happenings]
    assert times == sorted(times) and times[0] >= WARM_UP_S and times[-1] < HARSH.minutes * 60
    assert [one.number for one in happenings] == list(range(len(happenings)))
    assert all(one.what.pause_s >= 2 for one in happenings if isinstance(one.what, NodePauses))


def test_no_faults_means_jobs_alone() -> None:
    assert {type(one.what) for one in schedule(replace(HARSH, faults="none", haste=50.0))} == {JobArrives}


def test_haste_makes_the_same_troubles_come_sooner() -> None:
    """Twice as fast over half the time: the same draws, squeezed, and jobs of the same number."""
    slow, fast = schedule(HARSH), schedule(replace(HARSH, haste=2.0, minutes=30.0))
    for kind in (NodeCrashes, NodePauses, NetworkSplits):
        squeezed = [one for _, one in what(fast, kind)]
        assert len(squeezed) > 0
        assert Counter(map(repr, squeezed)) <= Counter(map(repr, (one for _, one in what(slow, kind))))
    many = schedule(replace(HARSH, haste=10.0))
    assert len(what(many, NodeCrashes, NodePauses)) > 5 * len(what(slow, NodeCrashes, NodePauses))
    assert len(what(many, JobArrives)) == len(what(slow, JobArrives))


def test_pauses_leave_the_other_troubles_as_they_are() -> None:
    """Each node draws its crashes and its pauses apart; fewer nodes have the same fates, less those that are gone."""
    few = what(schedule(replace(HARSH, peers=3)), NodeCrashes, NodePauses, NodeLeaves)
    many = what(schedule(HARSH), NodeCrashes, NodePauses, NodeLeaves)
    assert few == [one for one in many if one[1].node < 3]  # type: ignore[attr-defined]


def test_a_dropped_happening_is_the_only_one_that_is_gone() -> None:
    whole = schedule(HARSH)
    assert schedule(replace(HARSH, drop=(2, 4))) == [one for one in whole if one.number not in (2, 4)]
