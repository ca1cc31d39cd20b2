"""The draw of a committee: the k lowest tickets, whoever asks; who may sit; and who was passed over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.protocol.chain import JobAccount, JobState, NodeAccount
from cyxnode.protocol.committee import draw, eligible, passed_over
from cyxnode.protocol.hashing import seat_ticket
from cyxnode.protocol.units import JobId, MicroCyx, NodeId

SLOT_HASH, JOB = b"h" * 32, JobId(b"j" * 32)
NODES = [NodeId(bytes([i]) * 32) for i in range(20)]
BY_TICKET = sorted(NODES, key=lambda node: seat_ticket(SLOT_HASH, JOB, node))
NODE = NodeAccount(
    node=NODES[0], execution_class=b"c" * 32, active_since_slot=9, payout=bytes(32), stake=MicroCyx(100),
    earned=MicroCyx(0), fees_generated=MicroCyx(0), jobs_ok=0, failures=0, slashed=MicroCyx(0), unbonding_at_s=0,
)  # fmt: skip


def job(committee: tuple[NodeId, ...]) -> JobAccount:
    return JobAccount(
        job=JOB, requester=NodeId(b"r" * 32), budget=MicroCyx(1), spec_hash=bytes(32), execution_class=b"c" * 32,
        fee_bps=1_000, verifier_share_bps=0, k=3, m=2, open_slot=10, committee=committee, work_deadline_s=1,
        refund_at_s=2, units_total=1, units_paid=0, settlements=0, state=JobState.SEATED, verdict=None, worker=None,
        paid=MicroCyx(0), result_hash=bytes(32), fee_mask=0, shares=(), slashed=MicroCyx(0),
    )  # fmt: skip


@pytest.mark.parametrize("k", [3, 5, 7])
def test_the_lowest_tickets_sit_in_rising_order(k: int) -> None:
    assert draw(SLOT_HASH, JOB, NODES, k) == tuple(BY_TICKET[:k])


@given(st.permutations(NODES))
def test_the_draw_does_not_depend_on_who_lists_the_nodes(nodes: list[NodeId]) -> None:
    assert draw(SLOT_HASH, JOB, nodes, 5) == tuple(BY_TICKET[:5])


def test_another_slot_or_job_draws_another_committee() -> None:
    assert draw(b"x" * 32, JOB, NODES, 7) != draw(SLOT_HASH, JOB, NODES, 7)
    assert draw(SLOT_HASH, JobId(b"x" * 32), NODES, 7) != draw(SLOT_HASH, JOB, NODES, 7)


def test_too_few_nodes_fill_no_more_seats_than_there_are() -> None:
    assert len(draw(SLOT_HASH, JOB, NODES[:2], 3)) == 2
    assert draw(SLOT_HASH, JOB, [], 3) == ()


@given(st.binary(min_size=32, max_size=32), st.integers(0, 19))
def test_a_node_more_can_only_displace_the_last_seat(slot_hash: bytes, leaving: int) -> None:
    fewer = [node for node in NODES if node != NODES[leaving]]
    before, after = draw(slot_hash, JOB, fewer, 5), draw(slot_hash, JOB, NODES, 5)
    assert after == before or [node for node in after if node != NODES[leaving]] == list(before[:4])


def test_seats_are_spread_over_all_nodes() -> None:
    seated = {node for slot in range(100) for node in draw(slot.to_bytes(32, "big"), JOB, NODES, 3)}
    assert seated == set(NODES)


def test_an_honest_draw_passes_nobody_over() -> None:
    assert passed_over(SLOT_HASH, job(tuple(BY_TICKET[:3])), NODES) == []


def test_those_below_the_highest_seated_ticket_were_passed_over() -> None:
    seated = (BY_TICKET[0], BY_TICKET[3], BY_TICKET[5])
    assert passed_over(SLOT_HASH, job(seated), NODES) == sorted([BY_TICKET[1], BY_TICKET[2], BY_TICKET[4]])


def test_the_dead_are_not_passed_over() -> None:
    seated = (BY_TICKET[0], BY_TICKET[1], BY_TICKET[3])
    assert passed_over(SLOT_HASH, job(seated), [n for n in NODES if n != BY_TICKET[2]]) == []


def test_an_unseated_job_passed_nobody_over() -> None:
    assert passed_over(SLOT_HASH, job(()), NODES) == []


@pytest.mark.parametrize(
    ("change", "sits"),
    [
        ({}, True),
        ({"stake": 99}, False),
        ({"active_since_slot": 10}, False),
        ({"execution_class": b"d" * 32}, False),
        ({"unbonding_at_s": 1}, False),
        ({"node": NodeId(b"r" * 32)}, False),
    ],
)
def test_who_may_sit(change: dict[str, object], sits: bool) -> None:
    node = replace(NODE, **change)
    may = eligible(node, execution_class=b"c" * 32, open_slot=10, requester=b"r" * 32, minimum_stake=100)
    assert may is sits
