"""Amounts and counters at their edges. Random ones are compared with a model in test_escrow_model.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chain_world import CLASS, World, node_id
from cyxnode.ledger import escrow_layout as layout
from cyxnode.ledger.genesis import FEE_BPS, VERIFIER_SHARE_BPS
from cyxnode.protocol.limits import AMOUNT_MAX
from cyxnode.protocol.messages import least_price
from cyxnode.protocol.units import MicroCyx


@pytest.mark.parametrize(
    ("price", "units", "total"),
    [(AMOUNT_MAX, 2**32 - 2, 2**32 - 1), (AMOUNT_MAX, 1, 2**32 - 1), (AMOUNT_MAX - 1, 3, 7), (1, 1, 2), (0, 1, 1)],
)
def test_division_at_the_edges(price: int, units: int, total: int) -> None:
    world = World(4)
    job = world.seated_job(replace(world.open_job_wish(budget=AMOUNT_MAX), units_total=total))
    world.submit(world.signed(job, replace(world.settlement(job), price=MicroCyx(price), units=units)))
    settled = world.job(job.job)
    assert settled is not None
    assert settled.paid == price * units // total


@pytest.mark.parametrize("k", [3, 5, 7])
@pytest.mark.parametrize(("below", "owed"), [(0, 1), (1, 0)])
def test_the_least_price_is_the_lowest_that_pays_every_verifier(k: int, below: int, owed: int) -> None:
    """With the fee terms of a new network (`ledger.genesis`)."""
    world = World(k + 1, fee_bps=FEE_BPS, verifier_share_bps=VERIFIER_SHARE_BPS)
    job = world.seated_job(world.open_job_wish(k=k))
    settlement = replace(world.settlement(job), price=MicroCyx(least_price(k) - below), fee_mask=(1 << k) - 1)
    world.submit(world.signed(job, settlement))
    settled = world.job(job.job)
    assert settled is not None
    assert settled.shares == (owed,) * k


def test_counters_stop_at_the_top() -> None:
    world = World(4)
    job = world.seated_job()
    worker = world.outsider(job)
    address = layout.node_address(world.program, node_id(worker))
    world.patch(address, 160, b"\xff" * 8)  # fees_generated
    world.patch(address, 184, b"\xff" * 4)  # jobs_ok
    world.settle(job)
    node = world.node(worker)
    assert (node.fees_generated, node.jobs_ok, node.execution_class) == (2**64 - 1, 2**32 - 1, CLASS)
