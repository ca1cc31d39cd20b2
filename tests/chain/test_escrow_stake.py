"""The way out: unbonding holds a stake until no job can need it, and everything goes to the payout wallet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from chain_world import CLASS, MINIMUM_STAKE, UNBONDING_S, World, key, node_id, refused
from cyxnode.protocol import chain
from cyxnode.protocol.units import MicroCyx


@pytest.fixture
def world() -> World:
    return World(5)


def _payout(world: World, node: Keypair) -> int:
    return world.tokens(Pubkey(world.node(node).payout))


def test_a_stake_comes_back_when_the_unbonding_time_is_over(world: World) -> None:
    node = world.nodes[0]
    wish = chain.WithdrawStake(node_id(node))
    with refused(170):
        world.submit(wish)
    world.submit(chain.RequestUnstake(), node)
    assert world.node(node).unbonding_at_s == world.unix_s + UNBONDING_S
    with refused(171):
        world.submit(wish)
    world.advance(seconds=UNBONDING_S - 1)
    with refused(171):
        world.submit(wish)
    world.advance(seconds=1)
    world.submit(wish)
    assert _payout(world, node) == MINIMUM_STAKE
    assert world.stakes() == 4 * MINIMUM_STAKE
    assert (world.node(node).stake, world.node(node).unbonding_at_s) == (0, 0)
    with refused(170):
        world.submit(wish)
    with refused(168):
        world.submit(chain.RequestUnstake(), node)


def test_the_unbonding_time_is_not_started_twice(world: World) -> None:
    world.submit(chain.RequestUnstake(), world.nodes[0])
    world.advance(seconds=10)
    with refused(169):
        world.submit(chain.RequestUnstake(), world.nodes[0])
    assert world.node(world.nodes[0]).unbonding_at_s == world.unix_s - 10 + UNBONDING_S


def test_no_job_outlasts_the_stakes_that_are_liable_for_it(world: World) -> None:
    """A member of the longest job that can be opened, which asks to leave at once, is held until after its end."""
    wish = replace(world.open_job_wish(), refund_at_s=world.unix_s + UNBONDING_S)
    job = world.seated_job(wish)
    member = world.members(job)[0]
    world.submit(chain.RequestUnstake(), member)
    assert world.node(member).unbonding_at_s >= job.refund_at_s


def test_an_unbonding_node_is_not_seated_but_serves_what_it_was_seated_for(world: World) -> None:
    job = world.seated_job()
    for member in world.members(job):
        world.submit(chain.RequestUnstake(), member)
    other = world.open_job(world.open_job_wish(nonce=b"\x02" * 32))
    world.advance()
    with refused(207):
        world.submit(chain.Seat(other.job, world.draw(other)))
    assert world.settle(job).paid


def test_registering_again_ends_the_unbonding_and_starts_seniority_anew(world: World) -> None:
    node = world.nodes[0]
    world.submit(chain.RequestUnstake(), node)
    world.advance(slots=7)
    world.submit(chain.Register(CLASS, MicroCyx(0), world.node(node).payout), node)
    assert (world.node(node).unbonding_at_s, world.node(node).active_since_slot) == (0, world.slot)
    world.advance(seconds=UNBONDING_S)
    with refused(170):
        world.submit(chain.WithdrawStake(node_id(node)))


def test_earned_shares_go_to_the_payout_wallet(world: World) -> None:
    job = world.settle(world.seated_job())
    member = world.members(job)[0]
    with refused(172):
        world.submit(chain.WithdrawEarned(node_id(member)))
    world.submit(chain.CloseJob(job.job))
    earned = world.node(member).earned
    assert earned
    world.submit(chain.WithdrawEarned(node_id(member)))
    assert _payout(world, member) == earned
    assert (world.node(member).earned, world.node(member).stake) == (0, MINIMUM_STAKE)
    with refused(172):
        world.submit(chain.WithdrawEarned(node_id(member)))


def test_a_new_payout_wallet_is_paid(world: World) -> None:
    node, wallet = world.nodes[0], key("colder").pubkey()
    world.submit(chain.Register(CLASS, MicroCyx(0), bytes(wallet)), node)
    world.submit(chain.RequestUnstake(), node)
    world.advance(seconds=UNBONDING_S)
    world.submit(chain.WithdrawStake(node_id(node)))
    assert world.tokens(wallet) == MINIMUM_STAKE
