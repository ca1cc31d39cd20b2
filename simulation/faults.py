"""Makes a schedule's happenings happen, in virtual worlds and among real processes alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import trio

from .desk import Desk, JobRecord
from .plan import Happening, JobArrives, NetworkSplits, NodeCrashes, NodeLeaves, NodePauses
from .world import World


class Stage(Protocol):
    """Where a schedule is played. `origin_s` is the trio time of its beginning. What takes time returns when it is
    over; troubles of a node that is down already are none."""

    @property
    def origin_s(self) -> float: ...
    @property
    def nursery(self) -> trio.Nursery: ...
    async def crash(self, node: int, down_s: float) -> None:
        """The node goes without a word, and is back after `down_s` with what was on its disk."""

    async def pause(self, node: int, pause_s: float) -> None:
        """The node stands still."""

    def leave(self, node: int) -> None:
        """The node goes for good."""

    async def split(self, regions: Sequence[str], heal_s: float) -> None:
        """Participants in `regions` lose the others, and find them again; whatever else was split is whole then."""


async def play(stage: Stage, desks: list[Desk], happenings: list[Happening], jobs: list[JobRecord]) -> None:
    """All happenings in their time; returns when every job has come to its end."""
    async with trio.open_nursery() as nursery:
        for happening in happenings:
            await trio.sleep_until(stage.origin_s + happening.at_s)
            match happening.what:
                case JobArrives(number, requester):
                    desk = desks[requester]
                    record = JobRecord(number, desk.name, desk.now_s())
                    jobs.append(record)
                    nursery.start_soon(desk.submit, record)
                case NodeCrashes(node, down_s):
                    stage.nursery.start_soon(stage.crash, node, down_s)
                case NodePauses(node, pause_s):
                    stage.nursery.start_soon(stage.pause, node, pause_s)
                case NodeLeaves(node):
                    stage.leave(node)
                case NetworkSplits(regions, heal_s):
                    stage.nursery.start_soon(stage.split, regions, heal_s)
                case what:
                    assert_never(what)


@dataclass(frozen=True, slots=True)
class VirtualStage:
    """Troubles of a world in this process."""

    world: World
    origin_s: float = 0.0

    @property
    def nursery(self) -> trio.Nursery:
        """Lives as long as the world."""
        return self.world.nursery

    async def crash(self, node: int, down_s: float) -> None:
        """See Stage."""
        peer = self.world.peers[node]
        if peer.node is None:
            return
        self.world.kill(peer)
        await trio.sleep(down_s)
        if peer.node is None:
            await self.world.start(peer)

    async def pause(self, node: int, pause_s: float) -> None:
        """See Stage: the links of the node are stalled both ways."""
        peer, world = self.world.peers[node], self.world
        if peer.node is None:
            return
        world.trace.event("pause", peer.name)
        world.network.stall(peer.node_id, pause_s)
        await trio.sleep(pause_s)
        world.trace.event("resume", peer.name)

    def leave(self, node: int) -> None:
        """See Stage."""
        self.world.kill(self.world.peers[node])

    async def split(self, regions: Sequence[str], heal_s: float) -> None:
        """See Stage."""
        world = self.world
        away = [node for node, region in world.geography.region.items() if region in regions]
        world.trace.event("split", " ".join(regions))
        world.network.partition([away])
        await trio.sleep(heal_s)
        world.network.heal()
        world.trace.event("heal", " ".join(regions))
