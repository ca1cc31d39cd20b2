"""When to look for peers, and when to be found: decided from the clock and a few facts, without asking anybody.

Rule 1: who serves the DHT and has somebody to ask finds its own place, at once and then every WALK_INTERVAL_S; a mere
client only while it is short of connections.
Rule 2: a node of a class says so: in the DHT every PROVIDE_INTERVAL_S, at rendezvous points every REGISTER_INTERVAL_S.
Rule 3: while connections to the class are short it searches, each time after twice the wait, up to SEARCH_LAST_S.
Rule 4: what failed is tried again after SEARCH_FIRST_S, then after twice as long, up to its interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from ..protocol.limits import (
    PROVIDE_INTERVAL_S,
    REGISTER_INTERVAL_S,
    SEARCH_FIRST_S,
    SEARCH_LAST_S,
    WALK_INTERVAL_S,
)


class Step(Enum):
    """What can be due; in this order when several are."""

    REGISTER = "register"
    WALK = "walk"
    SEARCH = "search"
    PROVIDE = "provide"


INTERVALS_S = {
    Step.REGISTER: REGISTER_INTERVAL_S,
    Step.WALK: WALK_INTERVAL_S,
    Step.SEARCH: SEARCH_LAST_S,
    Step.PROVIDE: PROVIDE_INTERVAL_S,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """How it stands: `neighbours` in the table of the DHT, rendezvous `points` known, whether we are `of_class`,
    whether connections are `short`, and whether others may ask us (`serves`)."""

    neighbours: int
    points: int
    of_class: bool
    short: bool
    serves: bool = True


@dataclass(slots=True)
class Plan:
    """`jittered` varies an interval, so that nodes do not act in step."""

    jittered: Callable[[float], float] = lambda seconds: seconds
    _due_s: dict[Step, float] = field(default_factory=dict)
    _wait_s: dict[Step, float] = field(default_factory=dict)

    def due(self, facts: Facts, now_s: float) -> list[Step]:
        """What to do now."""
        if not facts.short:
            self._forget(Step.SEARCH)
        if not facts.neighbours:
            self._forget(Step.WALK)
        return [step for step in Step if _possible(step, facts) and now_s >= self._due_s.get(step, float("-inf"))]

    def done(self, step: Step, ok: bool, now_s: float) -> None:
        """A step was taken. A search counts as in vain: what it was for shows in the facts."""
        wait_s = self._wait_s.get(step, SEARCH_FIRST_S)
        if ok and step is not Step.SEARCH:
            self._wait_s.pop(step, None)
            wait_s = INTERVALS_S[step]
        else:
            self._wait_s[step] = min(2 * wait_s, INTERVALS_S[step])
        self._due_s[step] = now_s + self.jittered(wait_s)

    def _forget(self, step: Step) -> None:
        self._due_s.pop(step, None)
        self._wait_s.pop(step, None)


def _possible(step: Step, facts: Facts) -> bool:
    match step:
        case Step.WALK:
            return facts.neighbours > 0 and (facts.serves or facts.short)
        case Step.PROVIDE:
            return facts.of_class and facts.neighbours > 0
        case Step.REGISTER:
            return facts.of_class and facts.points > 0
        case Step.SEARCH:
            return facts.of_class and facts.short and facts.neighbours + facts.points > 0
