"""Cells: everyone derives the same ones, nodes spread over them, and small classes are one."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest

from cyxnode.protocol.limits import CELL_NODES_MAX
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.cells import Cell, cell_of, coarser, shard_of, shards_for

CLASS = sha256(b"class").digest()
NODES = [NodeId(sha256(number.to_bytes(4, "big")).digest()) for number in range(1000)]


@pytest.mark.parametrize(
    ("registered", "shards"),
    [(0, 1), (CELL_NODES_MAX, 1), (CELL_NODES_MAX + 1, 2), (4 * CELL_NODES_MAX, 4), (4 * CELL_NODES_MAX + 1, 8)],
)
def test_the_number_of_shards_is_the_smallest_power_of_two_that_is_enough(registered: int, shards: int) -> None:
    assert shards_for(registered) == shards


def test_shards_are_about_equally_full_and_split_in_two() -> None:
    sizes = Counter(shard_of(node, 8) for node in NODES)
    assert set(sizes) == set(range(8))
    assert max(sizes.values()) < 1.5 * min(sizes.values())
    assert all(shard_of(node, 16) // 2 == shard_of(node, 8) for node in NODES)


def test_a_cell_holds_its_own_shard() -> None:
    cell = cell_of(NODES[0], CLASS, 1000)
    assert cell.holds(NODES[0])
    assert sum(cell.holds(node) for node in NODES) == sum(shard_of(n, cell.shards) == cell.shard for n in NODES)


def test_topics_of_cells_differ() -> None:
    cells = [Cell(CLASS), Cell(bytes(32)), *(Cell(CLASS, 4, shard) for shard in range(4)), Cell(CLASS, 2, 1)]
    assert len({cell.topic for cell in cells}) == len(cells)


def test_a_cell_lies_within_all_coarser_ones() -> None:
    cell = cell_of(NODES[0], CLASS, 8 * CELL_NODES_MAX)
    assert coarser(cell) == [cell_of(NODES[0], CLASS, many * CELL_NODES_MAX) for many in (1, 2, 4)]
    assert coarser(Cell(CLASS)) == []


def test_only_cells_of_late_are_spoken_in_beside_ones_own() -> None:
    cell = cell_of(NODES[0], CLASS, 8 * CELL_NODES_MAX)
    assert [one.shards for one in coarser(cell, 2 * CELL_NODES_MAX)] == [2, 4]
    assert coarser(cell, 4 * CELL_NODES_MAX + 1) == [], "the class has had its cells for long"
