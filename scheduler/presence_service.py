"""Says that we live, and hears who else does (DESIGN 3).

A node that offers something speaks and listens in its cell. Who offers nothing (a requester, an observer, a bootstrap
node) is in no cell and learns from peer exchange alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import structlog
import trio

from ..protocol.envelope import Signed
from ..protocol.errors import CyxError
from ..protocol.limits import (
    CAPABILITIES_PER_INTERVAL,
    CAPABILITY_INTERVAL_MS,
    CELL_LINGER_S,
    CELL_REVIEW_S,
    CLOCK_TRUST_MS,
    DEAD_AFTER_MS,
    GOSSIP_WINDOW_S,
    HEARTBEAT_INTERVAL_MS,
    NEWCOMER_PAUSES_S,
    OBSERVER_FORGETS_MS,
    SUSPECT_AFTER_MS,
)
from ..protocol.messages import Capability, Heartbeat
from ..protocol.ports import Randomness
from ..protocol.units import NodeId, base58
from ..protocol.validation import PRESENCE_KINDS
from . import presence
from .cells import Cell, cell_of, coarser
from .connections import Connections
from .known_peers import KnownPeers
from .locating import Locator
from .peer_exchange import PeerExchange
from .split_service import SplitWatch
from .wire import PEERS, Wire

TICK_S = 1.0
OVERSLEPT_MS = 5_000
"""By which a tick comes late when the process, or the machine, stood still."""

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Load:
    """What a heartbeat reports. `load_ppm` is the CPU load per core with scale 10^6."""

    status: Literal["idle", "busy", "draining"]
    queue_length: int
    running: int
    load_ppm: int


async def _few(_execution_class: bytes) -> tuple[int, int]:
    """For who knows no chain: every class fits one cell."""
    return 0, 0


@dataclass(slots=True)
class PresenceService:
    """`offer` makes our capability record from (sequence, now), or is None for a mere observer; `registered` tells how
    many nodes of a class are registered on chain, and how many of them for CELL_LINGER_S at least."""

    wire: Wire
    randomness: Randomness
    bootstrap: tuple[str, ...]
    offer: Callable[[int, int], Capability] | None
    load: Callable[[], Load]
    registered: Callable[[bytes], Awaitable[tuple[int, int]]] = _few
    kept: KnownPeers | None = None
    """Peers of earlier lives; None for who keeps none, as a bootstrap node, which is dialled and does not dial."""
    state: presence.Presence = field(default_factory=presence.Presence)
    on_death: Callable[[NodeId], None] = lambda node: None
    changed: trio.Event = field(default_factory=trio.Event)
    exchange: PeerExchange = field(init=False)
    connections: Connections = field(init=False)
    split: SplitWatch = field(init=False)
    own_record: bytes = b""
    own_heartbeat: bytes = b""
    _record_at_ms: int = 0
    _overslept: bool = False
    _sequence: int = 0
    _nap: trio.CancelScope = field(default_factory=trio.CancelScope)
    cell: Cell | None = None
    """Where we listen and speak; None for a mere observer."""
    _joined: dict[Cell, trio.CancelScope] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.exchange, self.split = PeerExchange(self), SplitWatch(self)
        self.connections = Connections(self, self.exchange)
        self.wire.seek = Locator(self).find
        if self.offer is None:
            self.state = presence.Presence(forget_after_ms=OBSERVER_FORGETS_MS)

    def alive(self, execution_class: bytes | None = None) -> dict[NodeId, Capability]:
        """Live nodes in our sight with a capability record, of one execution class or of all."""
        return {
            node: member.capability
            for node, member in self.state.alive().items()
            if member.capability is not None
            and (execution_class is None or member.capability.execution_class == execution_class)
        }

    @property
    def whole_class(self) -> bool:
        """Whether our cell holds our whole class, so that who is not alive here is not alive."""
        return self.cell is not None and self.cell.shards == 1

    def in_sight(self, node: NodeId, execution_class: bytes) -> bool:
        """Whether we would hear of a node's death: it speaks in our cell, or we are a mere observer."""
        own = self.cell
        return self.offer is None or (own is not None and own.execution_class == execution_class and own.holds(node))

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join, then speak and listen until cancelled. Started once the cell is joined."""
        self.wire.transport.serve(PEERS, self.exchange.answer)
        async with trio.open_nursery() as nursery:
            if self.offer is not None:
                await nursery.start(self._keep_cell, nursery)
                nursery.start_soon(self._speak)
            nursery.start_soon(self.connections.keep_connected)
            nursery.start_soon(self._tick)
            task_status.started()

    async def reach(self, nodes: list[NodeId]) -> int:
        """Connect to some of `nodes`; returns to how many of them there is a connection."""
        return await self.connections.reach(nodes)

    # hearing --------------------------------------------------------------------------------------------------------

    def apply(self, stimulus: presence.Stimulus) -> None:
        """Feed the machine."""
        self.state, effects = presence.step(self.state, stimulus)
        for effect in effects:
            log.info(type(effect).__name__, peer=base58(effect.node))
            if isinstance(effect, presence.NodeDied):
                self.on_death(effect.node)
                self.split.fell(effect.node, ours=self._overslept)
        if effects:
            self.changed.set()
            self.changed = trio.Event()

    def hear(self, node: NodeId, message: object, raw: bytes, *, told_ms: int | None = None, met: bool = False) -> None:
        """A record of a node in our sight: from gossip; from a peer that has heard nothing of it for `told_ms`; or from
        the node itself, which is `met` and hence not old, whatever its record."""
        clock = self.wire.clock
        if node == self.wire.me or not isinstance(message, Heartbeat | Capability):
            return
        now_ms, delay_ms = clock.monotonic_ms(), clock.unix_ms() - message.sent_at_ms
        known = self.state.members.get(node)
        if met:
            delay_ms = min(delay_ms, CLOCK_TRUST_MS if known is None else known.lag_ms)
        silent_ms = told_ms or 0
        if isinstance(message, Heartbeat):
            news = known is None or known.heartbeat is None or message.sequence > known.heartbeat.sequence
            self.apply(presence.HeartbeatHeard(node, message, now_ms, raw, delay_ms, silent_ms))
            if news:
                self.split.hear(node, message, told=met or told_ms is not None)
        else:
            if known is None or known.capability is None or known.capability.addresses != message.addresses:
                self.wire.transport.learn(node, message.addresses)
            self.apply(presence.CapabilityHeard(node, message, raw, now_ms, delay_ms, silent_ms))
        if silent_ms:
            self._wake_within(SUSPECT_AFTER_MS - silent_ms)

    def _wake_within(self, left_ms: int) -> None:
        """Look at the time so soon: somebody has been silent for a while already."""
        self._nap.deadline = min(self._nap.deadline, trio.current_time() + max(TICK_S, left_ms / 1000))

    async def _tick(self) -> None:
        while True:
            now_ms = self.wire.clock.monotonic_ms()
            wake_ms = self.state.next_wake_ms()
            left_ms = DEAD_AFTER_MS // 3 if wake_ms is None else wake_ms - now_ms
            with trio.move_on_after(max(TICK_S, left_ms / 1000)) as self._nap:
                await trio.sleep_forever()
            late_ms = self.wire.clock.monotonic_ms() - now_ms - max(TICK_S * 1000, left_ms)
            # Who has stood still has not heard anybody: all silence of that time is our own.
            self._overslept = late_ms > OVERSLEPT_MS
            self.apply(presence.TimePassed(self.wire.clock.monotonic_ms()))
            self._overslept = False

    # the cell -------------------------------------------------------------------------------------------------------

    async def _keep_cell(self, nursery: trio.Nursery, task_status: Any) -> None:
        """Be in the cell that the chain's count of our class says, and for a while in those that it was cut from.

        Nodes notice at different times that their class has grown: meanwhile they still hear one another.
        """
        execution_class = self._make_record().execution_class
        while True:
            lately: list[Cell] = []
            try:
                now, before = await self.registered(execution_class)
                cell = cell_of(self.wire.me, execution_class, now)
                lately = coarser(cell, before)
            except CyxError as error:
                log.warning("the size of our class is not known", cause=str(error))
                cell = self.cell or Cell(execution_class)
            if cell != self.cell:
                old = {*self._joined, *lately} - {cell}
                for one in sorted({*old, cell} - self._joined.keys(), key=lambda one: one.shards):
                    await nursery.start(self._listen, one)
                self.cell = cell
                self.apply(presence.CellChanged(frozenset(n for n in self.state.members if cell.holds(n))))
                self.split.begin_anew()
                nursery.start_soon(self._leave_later, cell)
            task_status.started()
            task_status = trio.TASK_STATUS_IGNORED
            await trio.sleep(self.jittered(CELL_REVIEW_S))

    async def _listen(self, cell: Cell, task_status: Any) -> None:
        def heard(signed: Signed[msgspec.Struct]) -> None:
            message, own = signed.message, self.cell
            if own is None or not own.holds(signed.sender):
                return
            if not isinstance(message, Capability) or message.execution_class == own.execution_class:
                self.hear(signed.sender, message, signed.raw)

        with trio.CancelScope() as scope:
            async with self.wire.attend(cell.topic, PRESENCE_KINDS, heard):
                self._joined[cell] = scope
                task_status.started()
                await trio.sleep_forever()

    async def _leave_later(self, cell: Cell) -> None:
        """All other cells than `cell`, once everyone has noticed; unless we have moved on meanwhile."""
        await trio.sleep(CELL_LINGER_S)
        if cell == self.cell:
            for old in [one for one in self._joined if one != cell]:
                self._joined.pop(old).cancel()

    # speaking -------------------------------------------------------------------------------------------------------

    def _make_record(self) -> Capability:
        assert self.offer is not None
        now_ms = self.wire.clock.unix_ms()
        record = self.offer(self._next_sequence(now_ms), now_ms)
        self.own_record, self._record_at_ms = self.wire.seal(record), self.wire.clock.monotonic_ms()
        return record

    def _next_sequence(self, now_ms: int) -> int:
        """The time, so that it rises over a restart as well; more than the last one when the clock was put back, since
        peers take what does not rise for a replay."""
        self._sequence = max(self._sequence + 1, now_ms)
        return self._sequence

    def fresh_record(self) -> bytes:
        """Our capability record, made anew when it is old; empty when we offer nothing."""
        if self.offer is not None and self.wire.clock.monotonic_ms() - self._record_at_ms >= CAPABILITY_INTERVAL_MS:
            self._make_record()
        return self.own_record

    async def announce_capability(self) -> None:
        """Gossip our record now: on start, and whenever it changes."""
        self._make_record()
        await self._say(self.own_record)

    async def _say(self, *records: bytes) -> None:
        for cell in list(self._joined):
            await self.wire.post(cell.topic, *records, window_s=GOSSIP_WINDOW_S)

    async def _speak(self) -> None:
        """A heartbeat now and then; when the record is due, it goes along in the same message."""
        await self.announce_capability()
        for pause_s in NEWCOMER_PAUSES_S:
            # What was said before there were connections nobody has heard, nor whoever came a moment later than we.
            await trio.sleep(self.jittered(pause_s))
            self._make_record()
            await self._say(self.own_record, self._make_heartbeat())
        due_s = self._record_due_s()
        while True:
            await trio.sleep(self.jittered(HEARTBEAT_INTERVAL_MS / 1000))
            records = [self._make_heartbeat()]
            if trio.current_time() >= due_s:
                self._make_record()
                records, due_s = [self.own_record, *records], self._record_due_s()
            await self._say(*records)

    def _record_due_s(self) -> float:
        """When our record is to be said again: later in a large cell, give or take a heartbeat."""
        factor = 1 + len(self.state.members) // CAPABILITIES_PER_INTERVAL
        return trio.current_time() + (factor * CAPABILITY_INTERVAL_MS - HEARTBEAT_INTERVAL_MS / 2) / 1000

    def _make_heartbeat(self) -> bytes:
        self.split.review()
        load, now_ms = self.load(), self.wire.clock.unix_ms()
        heartbeat = Heartbeat(
            sequence=self._next_sequence(now_ms),
            sent_at_ms=now_ms,
            status=load.status,
            queue_length=load.queue_length,
            running=load.running,
            load_ppm=load.load_ppm,
            shards=1 if self.cell is None else self.cell.shards,
            membership_digest=self.split.state.digest,
        )
        self.own_heartbeat = self.wire.seal(heartbeat)
        return self.own_heartbeat

    def jittered(self, seconds: float) -> float:
        """The interval, 10 % more or less, so that nodes do not speak in step."""
        return seconds * (0.9 + 0.2 * self.randomness.bytes(1)[0] / 255)
