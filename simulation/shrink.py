"""Makes a failing plan as small as it still fails: a pure search, greedy, over ever smaller plans.

First the world shrinks, one measure after another and round again: milder faults, fewer cheats, shorter, fewer peers,
jobs, requesters and classes. At last single happenings are left out of the schedule that remains, in halves, quarters
and so on, as far as the world still fails without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .plan import Happening, Plan, schedule, smaller

TRIALS_MAX = 200
"""Worlds that one shrinking plays at most."""
PEERS_MIN = 4
MINUTES_MIN = 0.5
MILDER = {"harsh": ("none", "default"), "default": ("none",), "none": ()}
Fails = Callable[[Plan], bool]
Measure = Callable[[Plan], Iterator[Plan]]
"""Plans one step smaller in one respect, the greatest steps first."""


def shrink(plan: Plan, fails: Fails, trials_max: int = TRIALS_MAX) -> Plan:
    """The smallest plan found for which `fails` still says so. `plan` itself is known to fail."""
    left = trials_max

    def still_fails(candidate: Plan) -> bool:
        nonlocal left
        if left <= 0:
            return False
        left -= 1
        return fails(candidate)

    if not plan.drop:
        plan = _shrink_world(plan, still_fails)
    return _drop_happenings(plan, still_fails)


def _shrink_world(plan: Plan, fails: Fails) -> Plan:
    before: Plan | None = None
    while plan != before:
        before = plan
        for measure in MEASURES:
            found: Plan | None = plan
            while found is not None:
                plan = found
                found = next((candidate for candidate in measure(plan) if fails(candidate)), None)
    return plan


def _by_faults(plan: Plan) -> Iterator[Plan]:
    for faults in MILDER.get(plan.faults, ()):
        yield smaller(plan, faults=faults)


def _by_cheats(plan: Plan) -> Iterator[Plan]:
    if plan.cheaters:
        yield smaller(plan, cheaters=0.0, cheats=())
    if len(plan.cheats) > 1:
        for cheat in plan.cheats:
            yield smaller(plan, cheats=(cheat,))


def _by(name: str, least: Callable[[Plan], float]) -> Measure:
    def measure(plan: Plan) -> Iterator[Plan]:
        for value in _descents(getattr(plan, name), least(plan)):
            yield smaller(plan, **{name: value})

    return measure


MEASURES: tuple[Measure, ...] = (
    _by_faults,
    _by_cheats,
    _by("minutes", lambda plan: MINUTES_MIN),
    _by("peers", lambda plan: max(PEERS_MIN, plan.k + 1)),
    _by("jobs", lambda plan: 0),
    _by("requesters", lambda plan: 1),
    _by("classes", lambda plan: 1),
)


def _descents(value: float, least: float) -> Iterator[float]:
    """Smaller values, from the least towards `value`: the least, then half and a quarter less, then one less."""
    whole = isinstance(value, int)
    seen = {value}
    for candidate in (least, (value + least) / 2, value - (value - least) / 4, value - 1):
        rounded = int(candidate) if whole else round(candidate, 2)
        if least <= rounded < value and rounded not in seen:
            seen.add(rounded)
            yield rounded


def _drop_happenings(plan: Plan, fails: Fails) -> Plan:
    """Leave out runs of happenings, ever shorter ones; those from the end first, since causes precede effects."""
    size = len(schedule(plan))
    while size >= 1:
        dropped = False
        for chunk in _chunks(schedule(plan), size):
            candidate = smaller(plan, drop=(*plan.drop, *(happening.number for happening in chunk)))
            if fails(candidate):
                plan, dropped = candidate, True
        size = size if dropped and size == 1 and schedule(plan) else size // 2
    return smaller(plan, drop=tuple(sorted(plan.drop)))


def _chunks(happenings: list[Happening], size: int) -> Iterator[list[Happening]]:
    for start in range((len(happenings) - 1) // size * size, -1, -size):
        yield happenings[start : start + size]
