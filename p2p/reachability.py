"""Whether others can dial us, decided from what they found when they tried. Pure: time is an argument.

Rule 1: the last answer of each peer counts, for REACH_ANSWER_AGE_S; the oldest give way beyond REACH_ANSWERS_MAX.
Rule 2: once anybody has seen us from outside (at an address of the public internet), only such answers count: a
neighbour behind the same router can dial what the world cannot.
Rule 3: nothing is decided before REACH_ANSWERS_WANTED peers have answered and most of them agree.
Rule 4: a decision is turned round only after REACH_DOUBTS_MAX rounds in a row have contradicted it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from ..protocol.limits import REACH_ANSWER_AGE_S, REACH_ANSWERS_MAX, REACH_ANSWERS_WANTED, REACH_DOUBTS_MAX
from ..protocol.units import NodeId


class Verdict(Enum):
    """Whether others can dial us."""

    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


class Mapping(Enum):
    """What stands between us and the peers, as far as two of them can tell."""

    UNKNOWN = "unknown"
    NONE = "none"
    """They see our own address."""
    STEADY = "steady"
    """A NAT that shows all of them one address and port (endpoint-independent): holes can be punched."""
    CHANGING = "changing"
    """A NAT that shows each of them another one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One peer's finding at `at_s`: it saw us at `host`:`port`, and reached us there or not. `same_source` says that
    the connection it saw left from the port that all such connections leave from, so that ports may be compared."""

    peer: NodeId
    host: str
    port: int
    reached: bool
    at_s: float
    same_source: bool = False


@dataclass(frozen=True, slots=True)
class Reachability:
    """What is known so far. `doubts` counts the rounds that contradicted the verdict."""

    verdict: Verdict = Verdict.UNKNOWN
    answers: tuple[Answer, ...] = ()
    doubts: int = 0

    def counted(self) -> tuple[Answer, ...]:
        """The answers that say something about the widest network that has seen us."""
        outside = tuple(one for one in self.answers if is_public(one.host))
        return outside or self.answers

    def leaning(self) -> Verdict:
        """The verdict; without one, what the answers that there are agree upon."""
        return self.verdict if self.verdict is not Verdict.UNKNOWN else _majority(self.counted(), 1)

    def settled(self) -> bool:
        """Whether there is a verdict that nobody doubts."""
        return self.verdict is not Verdict.UNKNOWN and self.doubts == 0

    def seen_as(self) -> tuple[str, ...]:
        """The hosts that peers see us at, the latest first."""
        return tuple(dict.fromkeys(one.host for one in sorted(self.counted(), key=lambda one: -one.at_s)))

    def mapping(self, own_hosts: frozenset[str]) -> Mapping:
        """How the peers that can be compared see the one port that we dialled them from."""
        seen = {(one.host, one.port) for one in self.counted() if one.same_source}
        if self.counted() and all(one.host in own_hosts for one in self.counted()):
            return Mapping.NONE
        if len({one.peer for one in self.counted() if one.same_source}) < 2:
            return Mapping.UNKNOWN
        return Mapping.STEADY if len(seen) == 1 else Mapping.CHANGING


def heard(known: Reachability, answers: Sequence[Answer], now_s: float) -> Reachability:
    """One round is over: what is known with its `answers`, which may be none."""
    latest = {one.peer: one for one in (*known.answers, *answers) if now_s - one.at_s < REACH_ANSWER_AGE_S}
    kept = tuple(sorted(latest.values(), key=lambda one: (one.at_s, one.peer)))[-REACH_ANSWERS_MAX:]
    after = replace(known, answers=kept)
    if not kept:
        return Reachability()
    found = _majority(after.counted(), REACH_ANSWERS_WANTED)
    if known.verdict is Verdict.UNKNOWN:
        return replace(after, verdict=found, doubts=0)
    if found in (known.verdict, Verdict.UNKNOWN) or not answers:
        return replace(after, doubts=known.doubts if not answers else 0)
    if known.doubts + 1 < REACH_DOUBTS_MAX:
        return replace(after, doubts=known.doubts + 1)
    return replace(after, verdict=found, doubts=0)


def _majority(answers: Sequence[Answer], wanted: int) -> Verdict:
    if len(answers) < wanted:
        return Verdict.UNKNOWN
    yes = sum(one.reached for one in answers)
    if 2 * yes == len(answers):
        return Verdict.UNKNOWN
    return Verdict.REACHABLE if 2 * yes > len(answers) else Verdict.UNREACHABLE


def is_public(host: str) -> bool:
    """Whether a host is an address of the public internet."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return False
