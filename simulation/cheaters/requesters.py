"""A requester that wants work for nothing, or nobody to have any."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import trio

from ...protocol.cid import cid_of
from ...protocol.errors import CyxError
from ...protocol.hashing import job_id
from ...protocol.limits import MICRO
from ...protocol.messages import JobAnnounce, ScoreWeights
from ...protocol.units import JobId, MicroCyx
from ...protocol.validation import market_topic
from ...scheduler.requester_service import News, RequesterService, Stage, TrainOrder
from ..desk import simulated_spec
from ..world import REQUESTER_MICRO_CYX, Peer
from .cheat import Cheat, Ending, Fate

WINDOW_MS = 2_000
ROUND_S = 20.0
LOOK_AFTER_S = 5.0
"""Longer than the commit window in which nodes look for the escrow of an announce."""


class GriefingRequester(Cheat):
    """A peer whose owner also orders: jobs without an escrow, a job whose data does not exist, a job that it abandons.

    A try is an order. An unfunded one is caught when no honest node still follows it after the commit window; a funded
    one when it brought no weights without payment.
    """

    name: ClassVar[str] = "griefing-requester"
    role = "requester"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fates: dict[bytes, Fate] = {}
        self.face = self.world.new_peer(f"griefer of {self.peer.name}", micro_cyx=REQUESTER_MICRO_CYX)

    async def act(self) -> None:
        """One after the other, until the world ends."""
        service = await self.world.open_requester(self.face, lambda news: None)
        await trio.sleep(ROUND_S / 2)
        await self._unfunded(service)
        await self._order(service, "without data")
        ghost = self.world.new_peer(f"ghost of {self.peer.name}", micro_cyx=REQUESTER_MICRO_CYX)
        haunting = await self.world.open_requester(ghost, partial(self._vanish, ghost))
        self.world.nursery.start_soon(self._order, haunting, "abandoned", True)
        while True:
            await trio.sleep(ROUND_S)
            await self._unfunded(service)

    def _vanish(self, ghost: Peer, news: News) -> None:
        if isinstance(news, Stage) and news.name == "awarded":
            self.world.network.kill(ghost.node_id)

    async def _unfunded(self, service: RequesterService) -> None:
        if self.peer.node is None:
            return
        execution_class = self.peer.node.context.runner.execution_class
        nonce, spec = self.rng.randbytes(32), self.rng.randbytes(32)
        job = job_id(service.wire.me, nonce, spec)
        announce = JobAnnounce(
            job=job,
            kind="train",
            spec_hash=spec,
            nonce=nonce,
            sent_at_ms=service.wire.clock.unix_ms(),
            program=service.chain.program,
            execution_class=execution_class,
            device="any",
            memory_mb=0,
            region="",
            unsandboxed_ok=True,
            datasets=(),
            work_mflop=1_000,
            budget=9 * MICRO,
            reserve=9 * MICRO,
            work_deadline_s=service.wire.clock.unix_ms() // 1000 + 600,
            commit_window_ms=WINDOW_MS,
            reveal_window_ms=WINDOW_MS,
            round_ms=WINDOW_MS,
            weights=ScoreWeights(),
            k=3,
            segments=8,
            samples=2,
            addresses=service.wire.transport.addresses(),
        )
        self.tried(job, 1.0)
        await service.wire.publish(market_topic(execution_class), announce)
        await trio.sleep(LOOK_AFTER_S)
        followed = any(peer.node is not None and peer.node.market.rooms.get(job) for peer in self.honest())
        self.fates[job] = Fate.PAID if followed else Fate.CAUGHT

    async def _order(self, service: RequesterService, title: str, has_data: bool = False) -> None:
        content = f"{title}/{self.peer.name}".encode()
        data = service.blobs.put(content) if has_data else cid_of(content)
        seed, secret = self.rng.randrange(2**53), self.rng.randbytes(32)
        order = TrainOrder(
            spec=simulated_spec(data, data, 320, 64, seed=seed, secret=secret),
            budget=MicroCyx(10 * MICRO),
            work_mflop=80_000,
            unsandboxed_ok=True,
            k=3,
            work_seconds=60,
            commit_window_ms=WINDOW_MS,
            reveal_window_ms=WINDOW_MS,
            round_ms=WINDOW_MS,
        )
        try:
            result = await service.submit(order)
        except CyxError:
            return
        self.tried(result.job, 1.0)
        if result.weights is not None:
            self.fates[result.job] = Fate.PAID

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """An unfunded announce as found; a funded order by whether it was paid for what it got."""
        account = ending.job(key)
        if account is None:
            return self.fates.get(key, Fate.NEITHER)
        got_it = self.fates.get(JobId(key)) is Fate.PAID
        return Fate.PAID if got_it and not account.paid else Fate.CAUGHT
