"""Whom a node dials: enough of its kin, of its own cell and beyond it; and the candidates among whom it looks."""

from __future__ import annotations

from hashlib import sha256

import pytest

from cyxnode.protocol.limits import PEERS_KNOWN_MAX, PEERS_OF_CELL, PEERS_WANTED
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.candidates import Candidates
from cyxnode.scheduler.cells import Cell
from cyxnode.scheduler.neighbours import Neighbours, nearness

HERE, THERE = b"h" * 32, b"t" * 32


def node(number: int) -> NodeId:
    return NodeId(sha256(number.to_bytes(4, "big")).digest())


ME, OTHERS = node(0), [node(number) for number in range(1, 400)]
HALF = Cell(HERE, 2, 0)
MATES = [one for one in OTHERS if HALF.holds(one)]
BEYOND = [one for one in OTHERS if not HALF.holds(one)]


def near(kin: list[NodeId], connected: list[NodeId], cell: Cell | None = Cell(HERE)) -> Neighbours:  # noqa: B008
    return Neighbours(ME, frozenset(kin), frozenset(connected), cell)


def test_what_is_missing_is_dialled_the_nearest_first() -> None:
    order = sorted(OTHERS, key=lambda one: nearness(ME, one))
    assert near(OTHERS, []).missing() == order[:PEERS_WANTED]
    assert near(OTHERS, order[:3]).missing() == order[3:PEERS_WANTED]
    assert near(OTHERS, order[:PEERS_WANTED]).missing() == []
    assert near(order[:2], [order[0]]).missing() == [order[1]], "no more than there are"


def test_connections_to_strangers_do_not_count() -> None:
    assert len(near(OTHERS[:200], OTHERS[200:]).missing()) == PEERS_WANTED
    assert near(OTHERS[:200], OTHERS[200:]).short


def test_everybody_dials_others_first() -> None:
    assert Neighbours(node(500), set(OTHERS), set(), None).missing() != near(OTHERS, []).missing()


def test_in_a_class_of_several_cells_some_connections_lead_out_of_ours() -> None:
    asked = near(OTHERS, [], HALF).missing()
    assert len(asked) == PEERS_WANTED
    assert sum(map(HALF.holds, asked)) == PEERS_OF_CELL
    assert all(map(HALF.holds, near(OTHERS, BEYOND, HALF).missing()))
    assert not any(map(HALF.holds, near(OTHERS, MATES, HALF).missing()))


@pytest.mark.parametrize(
    ("kin", "cell", "lonely"),
    [
        ([], None, True), (OTHERS, None, False), ([], Cell(HERE), True), (OTHERS, Cell(HERE), False),
        (BEYOND, HALF, True), (MATES, HALF, False),
    ],
)  # fmt: skip
def test_who_knows_nobody_of_its_cell_is_lonely(kin: list[NodeId], cell: Cell | None, lonely: bool) -> None:
    assert near(kin, [], cell).lonely is lonely


def test_connections_are_short_below_half_of_those_wanted() -> None:
    assert near(OTHERS, OTHERS[: PEERS_WANTED // 2 - 1]).short
    assert not near(OTHERS, OTHERS[: PEERS_WANTED // 2]).short


def test_candidates_of_one_class_or_of_any() -> None:
    known = Candidates()
    known.found(node(1), HERE)
    known.hinted(node(2), THERE)
    assert (known.of(HERE), known.of(THERE), known.of(b"")) == ({node(1)}, {node(2)}, {node(1), node(2)})
    known.found(node(2), HERE)
    assert known.of(THERE) == set() and list(known) == [node(1), node(2)]


def test_a_hint_that_offers_nothing_is_no_candidate() -> None:
    known = Candidates()
    for number in (1, 2, 3):
        known.hinted(node(number), HERE)
    known.found(node(4), HERE)
    known.found(node(3), HERE)
    known.answered(node(1), offers=False)
    known.answered(node(2), offers=True)
    known.answered(node(4), offers=False)
    assert set(known) == {node(2), node(3), node(4)}, "who signed for it once stays one"
    assert not any(map(known.is_hint, known))


def test_who_does_not_answer_is_forgotten() -> None:
    known = Candidates()
    known.found(node(1), HERE)
    known.hinted(node(2), HERE)
    for number in (1, 2, 3):
        known.failed(node(number))
    assert not known and not known.is_hint(node(2))


def test_candidates_are_bounded_and_the_oldest_goes_first() -> None:
    known = Candidates()
    known.hinted(node(0), HERE)
    for number in range(1, PEERS_KNOWN_MAX):
        known.found(node(number), HERE)
    known.found(node(1), HERE)
    known.found(node(PEERS_KNOWN_MAX), HERE)
    known.found(node(PEERS_KNOWN_MAX + 1), HERE)
    assert len(known) == PEERS_KNOWN_MAX
    assert node(0) not in known and not known.is_hint(node(0))
    assert node(1) in known and node(2) not in known
