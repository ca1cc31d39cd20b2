"""Makes a schedule's happenings happen."""

from __future__ import annotations

import trio

from .desk import Desk, JobRecord
from .plan import Happening, JobArrives, NetworkSplits, NodeCrashes, NodeLeaves, NodePauses
from .world import World


async def play(world: World, desks: list[Desk], happenings: list[Happening], jobs: list[JobRecord]) -> None:
    """All happenings in their time; returns when every job has come to its end."""
    async with trio.open_nursery() as nursery:
        for happening in happenings:
            await trio.sleep_until(happening.at_s)
            match happening.what:
                case JobArrives(number, requester):
                    desk = desks[requester]
                    record = JobRecord(number, desk.name, trio.current_time())
                    jobs.append(record)
                    nursery.start_soon(desk.submit, record)
                case NodeCrashes(node, down_s):
                    world.nursery.start_soon(_crash, world, node, down_s)
                case NodePauses(node, pause_s):
                    world.nursery.start_soon(_pause, world, node, pause_s)
                case NodeLeaves(node):
                    world.kill(world.peers[node])
                case NetworkSplits(regions, heal_s):
                    world.nursery.start_soon(_split, world, regions, heal_s)


async def _crash(world: World, number: int, down_s: float) -> None:
    peer = world.peers[number]
    if peer.node is None:
        return
    world.kill(peer)
    await trio.sleep(down_s)
    if peer.node is None:
        await world.start(peer)


async def _pause(world: World, number: int, pause_s: float) -> None:
    peer = world.peers[number]
    if peer.node is None:
        return
    world.trace.event("pause", peer.name)
    world.network.stall(peer.node_id, pause_s)
    await trio.sleep(pause_s)
    world.trace.event("resume", peer.name)


async def _split(world: World, regions: tuple[str, ...], heal_s: float) -> None:
    away = [node for node, region in world.geography.region.items() if region in regions]
    world.trace.event("split", " ".join(regions))
    world.network.partition([away])
    await trio.sleep(heal_s)
    world.network.heal()
    world.trace.event("heal", " ".join(regions))
