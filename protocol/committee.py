"""The draw of a committee, recomputed off chain (DESIGN 8).

The program checks that the seated nodes are eligible and in ticket order; that nobody with a lower ticket was passed
over is checked here, by everyone, because a program cannot see all nodes.
"""

from __future__ import annotations

from collections.abc import Iterable

from .chain import JobAccount, NodeAccount
from .hashing import seat_ticket
from .units import JobId, NodeId


def eligible(
    node: NodeAccount, *, execution_class: bytes, open_slot: int, requester: bytes, minimum_stake: int
) -> bool:
    """Whether a registered node may sit on the committee of a job."""
    return (
        node.execution_class == execution_class
        and node.active_since_slot < open_slot
        and node.unbonding_at_s == 0
        and node.stake >= minimum_stake
        and node.node != requester
    )


def draw(slot_hash: bytes, job: JobId, nodes: Iterable[NodeId], k: int) -> tuple[NodeId, ...]:
    """The k nodes with the lowest tickets, ascending."""
    return tuple(sorted(nodes, key=lambda node: (seat_ticket(slot_hash, job, node), node))[:k])


def passed_over(slot_hash: bytes, job: JobAccount, alive: Iterable[NodeId]) -> list[NodeId]:
    """Live eligible nodes with a lower ticket than a seated one; honest nodes shun a job with more than one."""
    seated = set(job.committee)
    if not seated:
        return []
    highest = max(seat_ticket(slot_hash, job.job, node) for node in seated)
    return sorted(n for n in alive if n not in seated and seat_ticket(slot_hash, job.job, n) < highest)
