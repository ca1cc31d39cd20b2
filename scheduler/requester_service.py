"""A requester: takes orders, runs each as a JobRun, and gives the direct requests of its parties to the right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
import trio

from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, Refusal
from ..protocol.limits import FRAME_MAX_BYTES, REQUEST_TIMEOUT_S
from ..protocol.messages import (
    AwardCertificate,
    Capability,
    Claim,
    HandoverCertificate,
    Outcome,
    Progress,
    SpecAnswer,
    SpecRequest,
    StartNotice,
)
from ..protocol.ports import Blobs, Chain, Journal, Randomness, Stream
from ..protocol.units import NodeId, base58
from ..protocol.validation import MARKET_KINDS
from .chronicle import Chronicle
from .data_service import DataService
from .orders import InferOrder, JobResult, News, Order, Origin, Stage, TrainOrder
from .presence_service import PresenceService
from .reclaim import reclaim
from .registry import Registry
from .requester_funding import Funding
from .requester_job import JobRun
from .requester_listener import Listener
from .requester_record import JobRecord
from .result_recovery import Recovery
from .supervision import contained
from .wire import CERTIFICATE, CLAIM, HANDED_OVER, OUTCOME, PROGRESS, SPEC, START, Wire

__all__ = ["InferOrder", "JobResult", "News", "Order", "Origin", "RequesterService", "Stage", "TrainOrder"]

log = structlog.get_logger()


@dataclass(slots=True)
class RequesterService:
    """One requester process; it runs one job at a time, and others wait their turn."""

    wire: Wire
    chain: Chain
    registry: Registry
    presence: PresenceService
    blobs: Blobs
    journal: Journal
    randomness: Randomness
    observe: Callable[[News], None]
    nursery: trio.Nursery
    _topics: set[str] = field(default_factory=set)
    _listener: Listener | None = None
    _turn: trio.Lock = field(default_factory=trio.Lock)
    _data: DataService = field(init=False)

    def __post_init__(self) -> None:
        self._data = DataService(self.wire, self.blobs)
        self._data.start()
        wire = self.wire
        wire.serve(SPEC, SpecRequest, self._on_spec)
        wire.serve(START, StartNotice, self._on_start)
        wire.serve(CLAIM, Claim, self._on_claim)
        wire.serve(CERTIFICATE, AwardCertificate, self._on_certificate)
        wire.serve(HANDED_OVER, HandoverCertificate, self._on_handover)
        wire.serve(OUTCOME, Outcome, self._on_outcome)
        wire.transport.serve_stream(PROGRESS, self._on_progress)

    async def submit(self, order: Order, origin: Origin | None = None) -> JobResult:
        """Run one job from draft to receipt. Raises LocalError or a chain error while nothing is funded."""
        async with self._turn:
            await self._reclaim()
            record = JobRecord(order, self.wire.clock, self.journal, self.observe)
            run = JobRun(self.wire, self._data, self._funding(record), record, self._join, self._listen)
            try:
                return await run.run(origin or Origin())
            finally:
                self._listener = None

    async def recover(self, told: Chronicle) -> JobResult:
        """What a job brought that an earlier life of this requester left. Raises chain errors while nothing is
        known."""
        async with self._turn:
            recovery = Recovery(self.wire, self.chain, self.presence, self._data, self.journal, told)
            result = await recovery.run()
            try:
                await self._reclaim()
            except CyxError as error:
                log.warning("nothing reclaimed", cause=str(error))
            return result

    async def _reclaim(self) -> None:
        """Escrows that an earlier life of this requester left behind."""
        for one in await reclaim(self.chain, self.journal):
            self.observe(Stage("reclaimed", self.wire.clock.unix_ms(), f"{base58(one.job)}: {one.what}"))

    def fitting(self, order: Order) -> dict[bytes, dict[NodeId, Capability]]:
        """Live nodes that could run this order, by execution class."""
        return self._funding(JobRecord(order, self.wire.clock, self.journal, self.observe)).fitting()

    def estimate(self, order: Order) -> tuple[int, int]:
        """Lowest and highest live price in micro-CYX, before anything is signed; (0, 0) when nobody fits."""
        prices = order.prices(list(max(self.fitting(order).values(), key=len, default={}).values()))
        return (min(prices), max(prices)) if prices else (0, 0)

    def _funding(self, record: JobRecord) -> Funding:
        return Funding(self.wire, self.chain, self.registry, self.presence, self.journal, self.randomness, record)

    async def _join(self, topic: str) -> None:
        """Follow a market topic for as long as this requester lives.

        GossipSub keeps a peer that left a topic out of its mesh for a while: whoever left after every job would not
        be heard with the next one.
        """
        if topic not in self._topics:
            self._topics.add(topic)
            await self.nursery.start(self._follow, topic)

    async def _follow(self, topic: str, task_status: Any) -> None:
        async with self.wire.listen(topic, MARKET_KINDS) as messages:
            task_status.started()
            async for signed in messages:
                if self._listener is not None:
                    contained(self._listener.gossip, signed)

    def _listen(self, listener: Listener) -> None:
        self._listener = listener

    def _of(self, job: bytes) -> Listener:
        if self._listener is None or self._listener.record.job != job:
            raise Refusal("not a running job of this requester")
        return self._listener

    async def _on_spec(self, signed: Signed[SpecRequest]) -> SpecAnswer:
        return await self._of(signed.message.job).on_spec(signed)

    async def _on_start(self, signed: Signed[StartNotice]) -> None:
        await self._of(signed.message.job).on_start(signed)

    async def _on_claim(self, signed: Signed[Claim]) -> None:
        await self._of(signed.message.job).on_claim(signed)

    async def _on_certificate(self, signed: Signed[AwardCertificate]) -> None:
        await self._of(signed.message.job).on_certificate(signed)

    async def _on_handover(self, signed: Signed[HandoverCertificate]) -> None:
        await self._of(signed.message.job).on_handover(signed)

    async def _on_outcome(self, signed: Signed[Outcome]) -> None:
        await self._of(signed.message.job).on_outcome(signed)

    async def _on_progress(self, stream: Stream) -> None:
        frame: bytes | None = None
        with trio.move_on_after(REQUEST_TIMEOUT_S):
            frame = await stream.receive()
        if frame is None:
            await stream.reset()
        else:
            first = open_as(frame, self.wire.genesis, Progress, max_bytes=FRAME_MAX_BYTES)
            await self._of(first.message.job).on_progress(stream, first)
