"""The market that a world plays: who is there, and who orders what."""

from __future__ import annotations

from functools import partial

import trio

from .cheaters import Cheat, recruit
from .desk import Desk, any_order
from .plan import MFLOP_PER_S, model_rate, node_rate
from .world import NODE_MICRO_CYX, REQUESTER_MICRO_CYX, World


async def populate(world: World) -> tuple[list[Desk], list[Cheat]]:
    """Start all peers and requesters of the plan; the plan's share of the peers cheats."""
    plan = world.plan
    for number in range(plan.peers):
        peer = world.new_peer(
            f"peer{number}",
            micro_cyx=NODE_MICRO_CYX,
            class_name=f"class{number % plan.classes}",
            rate_micro_per_s=node_rate(plan, number),
            mflop_per_s=MFLOP_PER_S,
        )
        peer.model_rate = model_rate(plan, number) if plan.prompts else 0
        world.peers.append(peer)
    cheats = recruit(world, world.peers)
    async with trio.open_nursery() as nursery:
        for peer in world.peers:
            nursery.start_soon(world.start, peer)
    desks = []
    for number in range(plan.requesters):
        peer = world.new_peer(f"requester{number}", micro_cyx=REQUESTER_MICRO_CYX)
        world.requesters.append(peer)
        desk = Desk(peer.name, partial(any_order, plan), trio.current_time, world.trace.event)
        desk.service = await world.open_requester(peer, desk.observe)
        desks.append(desk)
    for cheat in cheats:
        world.nursery.start_soon(cheat.act)
    return desks, cheats
