"""When a node takes itself for reachable, and when not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.p2p.reachability import Answer, Mapping, Reachability, Verdict, heard
from cyxnode.protocol.limits import REACH_ANSWER_AGE_S, REACH_ANSWERS_MAX, REACH_DOUBTS_MAX
from cyxnode.protocol.units import NodeId

OUTSIDE, INSIDE = "11.0.0.9", "10.0.0.9"


def answer(peer: int, reached: bool, at_s: float = 0, host: str = OUTSIDE, port: int = 9, same: bool = True) -> Answer:
    return Answer(NodeId(bytes([peer]) * 32), host, port, reached, at_s, same)


def after(*rounds: list[Answer]) -> Reachability:
    known = Reachability()
    for number, answers in enumerate(rounds):
        known = heard(known, answers, number)
    return known


@pytest.mark.parametrize(
    ("answers", "verdict", "leaning"),
    [
        ([], Verdict.UNKNOWN, Verdict.UNKNOWN),
        ([answer(1, True)], Verdict.UNKNOWN, Verdict.REACHABLE),
        ([answer(1, False)], Verdict.UNKNOWN, Verdict.UNREACHABLE),
        ([answer(1, True), answer(2, False)], Verdict.UNKNOWN, Verdict.UNKNOWN),
        ([answer(1, True), answer(2, True)], Verdict.REACHABLE, Verdict.REACHABLE),
        ([answer(1, False), answer(2, False)], Verdict.UNREACHABLE, Verdict.UNREACHABLE),
        ([answer(1, True), answer(2, False), answer(3, False)], Verdict.UNREACHABLE, Verdict.UNREACHABLE),
    ],
)
def test_two_peers_have_to_agree(answers: list[Answer], verdict: Verdict, leaning: Verdict) -> None:
    known = after(answers)
    assert (known.verdict, known.leaning()) == (verdict, leaning)


def test_one_peer_cannot_be_two() -> None:
    assert after([answer(1, True)], [answer(1, True)]).verdict is Verdict.UNKNOWN


def test_a_neighbour_behind_the_same_router_does_not_speak_for_the_world() -> None:
    inside = [answer(1, True, host=INSIDE), answer(2, True, host=INSIDE), answer(3, True, host=INSIDE)]
    assert after(inside).verdict is Verdict.REACHABLE
    known = after([*inside, answer(4, False), answer(5, False)])
    assert known.verdict is Verdict.UNREACHABLE
    assert known.seen_as() == (OUTSIDE,)


def test_a_verdict_is_turned_round_only_when_it_was_contradicted_twice() -> None:
    yes, no = [answer(1, True), answer(2, True)], [answer(1, False), answer(2, False)]
    known = after(yes, no)
    assert (known.verdict, known.doubts, known.settled()) == (Verdict.REACHABLE, 1, False)
    assert heard(known, yes, 3).doubts == 0
    assert heard(known, [], 3) == known
    assert REACH_DOUBTS_MAX == 2
    turned = heard(known, no, 3)
    assert (turned.verdict, turned.settled()) == (Verdict.UNREACHABLE, True)


def test_old_answers_are_forgotten_and_all_of_them_together_the_verdict() -> None:
    known = after([answer(1, True), answer(2, True)])
    assert heard(known, [], REACH_ANSWER_AGE_S - 1).verdict is Verdict.REACHABLE
    assert heard(known, [], REACH_ANSWER_AGE_S) == Reachability()


@given(st.lists(st.builds(answer, st.integers(1, 40), st.booleans(), st.floats(0, 10)), max_size=40))
def test_what_is_remembered_is_bounded_and_each_peer_counts_once(answers: list[Answer]) -> None:
    known = after(answers)
    assert len(known.answers) <= REACH_ANSWERS_MAX
    assert len({one.peer for one in known.answers}) == len(known.answers)


@pytest.mark.parametrize(
    ("answers", "mapping"),
    [
        ([answer(1, False)], Mapping.UNKNOWN),
        ([answer(1, False), answer(2, False)], Mapping.STEADY),
        ([answer(1, False), answer(2, False, port=10)], Mapping.CHANGING),
        ([answer(1, False), answer(2, False, host="11.0.0.10")], Mapping.CHANGING),
        ([answer(1, False), answer(2, False, port=10, same=False)], Mapping.UNKNOWN),
        ([answer(1, True, host="192.168.1.7"), answer(2, True, host="192.168.1.7")], Mapping.NONE),
    ],
)
def test_the_kind_of_nat_is_told_from_connections_that_leave_from_one_port(
    answers: list[Answer], mapping: Mapping
) -> None:
    assert after(answers).mapping(frozenset({"192.168.1.7"})) is mapping
