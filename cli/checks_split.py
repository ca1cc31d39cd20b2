"""What `cyxnode doctor` makes of the records that peers hand it: whether they speak of one network.

A stranger hears no gossip. But heartbeats say what their authors hear: where two digests of one cell are each said by
several nodes, and lastingly so, those nodes do not hear one another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from ..protocol.envelope import Signed
from ..protocol.limits import SPLIT_DIFFERING_MIN, SPLIT_EVIDENCE_MS
from ..protocol.messages import Capability, Heartbeat
from ..protocol.units import NodeId
from ..scheduler.cells import Cell, shard_of
from .checkup import Finding, warning

Parts = dict[bytes, set[NodeId]]
"""By digest, the nodes that said it last."""


def parts_of_cells(records: Iterable[Signed[msgspec.Struct]]) -> dict[Cell, Parts]:
    """Who says the same in each cell. Heartbeats older than SPLIT_EVIDENCE_MS beside the newest say nothing of now."""
    classes: dict[NodeId, bytes] = {}
    latest: dict[NodeId, Heartbeat] = {}
    for record in records:
        match record.message:
            case Capability(execution_class=name):
                classes[record.sender] = name
            case Heartbeat() as beat:
                known = latest.get(record.sender)
                latest[record.sender] = beat if known is None or known.sequence < beat.sequence else known
            case _:
                pass
    newest_ms = max((beat.sent_at_ms for beat in latest.values()), default=0)
    cells: dict[Cell, Parts] = defaultdict(lambda: defaultdict(set))
    for node, beat in latest.items():
        if node in classes and newest_ms - beat.sent_at_ms < SPLIT_EVIDENCE_MS:
            cell = Cell(classes[node], beat.shards, shard_of(node, beat.shards))
            cells[cell][beat.membership_digest].add(node)
    return cells


def one_network(records: Iterable[Signed[msgspec.Struct]]) -> list[Finding]:
    """A warning for each cell that looks split."""
    found = []
    for cell, parts in parts_of_cells(records).items():
        sizes = sorted((len(nodes) for nodes in parts.values() if len(nodes) >= SPLIT_DIFFERING_MIN), reverse=True)
        if len(sizes) > 1:
            text = f"the nodes of class {cell.execution_class.hex()[:16]} do not all hear one another: "
            text += " and ".join(f"{size} agree" for size in sizes) + " on who is there; the network may be split"
            fix = "ask again in two minutes, since nodes come and go; if it stays: do all nodes name the same bootstrap"
            found.append(warning(text, f"{fix} addresses, and can they dial one another?"))
    return found
