"""Look-ups as a machine: they end at the closest, within bounds, whatever anybody answers."""

from __future__ import annotations

from hashlib import sha256
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.p2p.dht.lookup import Lookup, distance
from cyxnode.protocol.limits import DHT_PARALLEL, DHT_QUESTIONS_MAX
from cyxnode.protocol.units import NodeId

KEY, ME = b"key of a class", NodeId(bytes(32))
TARGET = sha256(KEY).digest()


def crowd(count: int, seed: int = 1) -> list[NodeId]:
    """Nodes, the closest to KEY first."""
    rng = Random(seed)
    return sorted((NodeId(rng.randbytes(32)) for _ in range(count)), key=lambda node: distance(node, TARGET))


def play(lookup: Lookup, answers: dict[NodeId, list[NodeId] | None]) -> None:
    """Ask until it is over; None is silence, whoever is not in `answers` is silent, too."""
    asked: set[NodeId] = set()
    while not lookup.over:
        batch = [node for _ in range(DHT_PARALLEL + 1) if (node := lookup.next()) is not None]
        assert 0 < len(batch) <= DHT_PARALLEL and not asked & set(batch)
        asked |= set(batch)
        for node in batch:
            told = answers.get(node)
            if told is None:
                lookup.failed(node)
            else:
                lookup.answered(node, told)


def test_a_chain_is_followed_to_its_end() -> None:
    chain = crowd(20)[::-1]
    lookup = Lookup(KEY, ME, width=4)
    lookup.begin(chain[:1])
    play(lookup, {node: chain[number : number + 2] for number, node in enumerate(chain)})
    assert lookup.closest() == chain[:-5:-1] and lookup.hops[chain[-1]] == 19 and lookup.asked == 20


def test_the_silent_are_passed_over() -> None:
    nodes = crowd(12)
    lookup = Lookup(KEY, ME, width=4)
    lookup.begin(nodes)
    play(lookup, {node: [] for number, node in enumerate(nodes) if number % 2})
    assert lookup.closest() == nodes[1:8:2]


def test_it_ends_when_the_closest_have_answered() -> None:
    nodes = crowd(100)
    lookup = Lookup(KEY, ME, width=4)
    lookup.begin(nodes)
    play(lookup, dict.fromkeys(nodes, nodes))
    assert lookup.closest() == nodes[:4] and lookup.asked == 4


def test_names_without_end_do_not_lead_it_on() -> None:
    """A liar that always knows somebody closer."""
    nodes = crowd(4_000)[::-1]
    lookup = Lookup(KEY, ME, width=4)
    lookup.begin(nodes[:1])
    play(lookup, {node: nodes[number + 1 : number + 1_000] for number, node in enumerate(nodes)})
    assert lookup.asked == DHT_QUESTIONS_MAX and len(lookup.hops) <= 1 + 4 * DHT_QUESTIONS_MAX


def test_we_are_not_asked_ourselves() -> None:
    (node,) = crowd(1)
    lookup = Lookup(KEY, ME, width=4)
    lookup.begin([ME, node])
    play(lookup, {node: [ME, node]})
    assert lookup.closest() == [node] and ME not in lookup.hops


def test_nobody_known_is_over_at_once() -> None:
    lookup = Lookup(KEY, ME)
    lookup.begin([])
    assert lookup.over and lookup.next() is None and lookup.closest() == []


@given(seed=st.integers(0, 2**32), known=st.integers(1, 40), width=st.integers(1, 8), loss=st.floats(0, 0.9))
def test_any_network_ends_within_its_bounds(seed: int, known: int, width: int, loss: float) -> None:
    rng, nodes = Random(seed), crowd(60, seed)
    answers = {node: rng.sample(nodes, 10) if rng.random() >= loss else None for node in nodes}
    lookup = Lookup(KEY, ME, width=width)
    lookup.begin(rng.sample(nodes, known))
    play(lookup, answers)
    found = lookup.closest()
    assert lookup.asked <= DHT_QUESTIONS_MAX and found == sorted(found, key=lambda node: distance(node, TARGET))
    assert all(answers[node] is not None for node in found) and len(found) <= width


def test_distance_is_that_of_the_library() -> None:
    sort = pytest.importorskip("libp2p.kad_dht.utils").sort_peer_ids_by_distance
    from cyxnode.p2p.host import libp2p_id

    nodes = crowd(30)
    assert sort(KEY, [libp2p_id(node) for node in reversed(nodes)]) == [libp2p_id(node) for node in nodes]
