"""Says that we live, hears who else does, and keeps us connected (DESIGN 3).

Peers come from the bootstrap list and from what peers tell: the answer to a PeersRequest holds signed capability
records, whose addresses are learnt and dialled until PEERS_WANTED connections stand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import structlog
import trio

from ..protocol.envelope import Signed, open_any, open_as
from ..protocol.errors import CyxError, RemoteError
from ..protocol.limits import (
    CAPABILITY_INTERVAL_MS,
    HEARTBEAT_INTERVAL_MS,
    PEER_EXCHANGE_MAX,
    RESPONSE_MAX_BYTES,
)
from ..protocol.messages import Capability, Heartbeat, PeersAnswer, PeersRequest
from ..protocol.ports import Randomness
from ..protocol.units import NodeId, base58
from ..protocol.validation import PRESENCE_KINDS, presence_topic
from . import presence
from .wire import PEERS, Wire

PEERS_WANTED = 8
EXCHANGE_INTERVAL_S = 5.0
TICK_S = 1.0

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


@dataclass(slots=True)
class PresenceService:
    """`offer` makes our capability record from (sequence, now), or is None for a mere observer."""

    wire: Wire
    randomness: Randomness
    bootstrap: tuple[str, ...]
    offer: Callable[[int, int], Capability] | None
    load: Callable[[], Load]
    state: presence.Presence = field(default_factory=presence.Presence)
    on_death: Callable[[NodeId], None] = lambda node: None
    changed: trio.Event = field(default_factory=trio.Event)
    _own_record: bytes = b""
    _roots: set[NodeId] = field(default_factory=set)

    def alive(self, execution_class: bytes | None = None) -> dict[NodeId, Capability]:
        """Live nodes with a capability record, of one execution class or of all."""
        return {
            node: member.capability
            for node, member in self.state.alive().items()
            if member.capability is not None
            and (execution_class is None or member.capability.execution_class == execution_class)
        }

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join, then speak and listen until cancelled. Started once the topic is joined."""
        self.wire.transport.serve(PEERS, self._answer_peers)
        async with self.wire.listen(presence_topic(), PRESENCE_KINDS) as messages, trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_connected)
            if self.offer is not None:
                self._renew_record()
                nursery.start_soon(self._speak_capability)
                nursery.start_soon(self._speak_heartbeat)
            nursery.start_soon(self._tick)
            task_status.started()
            async for signed in messages:
                self._hear(signed.sender, signed.message, signed.raw)

    def _apply(self, stimulus: presence.Stimulus) -> None:
        self.state, effects = presence.step(self.state, stimulus)
        for effect in effects:
            log.info(type(effect).__name__, peer=base58(effect.node))
            if isinstance(effect, presence.NodeDied):
                self.on_death(effect.node)
        if effects:
            self.changed.set()
            self.changed = trio.Event()

    def _hear(self, node: NodeId, message: object, raw: bytes) -> None:
        now_ms = self.wire.clock.monotonic_ms()
        if node == self.wire.me:
            return
        if isinstance(message, Heartbeat):
            self._apply(presence.HeartbeatHeard(node, message, now_ms))
        elif isinstance(message, Capability):
            self.wire.transport.learn(node, message.addresses)
            self._apply(presence.CapabilityHeard(node, message, raw, now_ms))

    async def _tick(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            self._apply(presence.TimePassed(self.wire.clock.monotonic_ms()))

    def _renew_record(self) -> None:
        if self.offer is not None:
            now_ms = self.wire.clock.unix_ms()
            self._own_record = self.wire.seal(self.offer(now_ms, now_ms))

    async def announce_capability(self) -> None:
        """Gossip our record now: on start, and whenever it changes."""
        if self.offer is not None:
            self._renew_record()
            await self.wire.transport.publish(presence_topic(), self._own_record)

    async def _speak_capability(self) -> None:
        while True:
            await self.announce_capability()
            await trio.sleep(self._jittered(CAPABILITY_INTERVAL_MS))

    async def _speak_heartbeat(self) -> None:
        while True:
            await trio.sleep(self._jittered(HEARTBEAT_INTERVAL_MS))
            load, now_ms = self.load(), self.wire.clock.unix_ms()
            heartbeat = Heartbeat(
                sequence=now_ms,
                sent_at_ms=now_ms,
                status=load.status,
                queue_length=load.queue_length,
                running=load.running,
                load_ppm=load.load_ppm,
                membership_digest=self.state.digest(),
            )
            await self.wire.publish(presence_topic(), heartbeat)

    def _jittered(self, interval_ms: int) -> float:
        """Seconds: the interval, 10 % more or less, so that nodes do not speak in step."""
        tenth = interval_ms / 10
        return (interval_ms - tenth + 2 * tenth * self.randomness.bytes(1)[0] / 255) / 1000

    # peer exchange ----------------------------------------------------------------------------------------------

    async def _answer_peers(self, peer: NodeId, payload: bytes) -> bytes:
        asked = open_as(payload, self.wire.genesis, PeersRequest).message
        if asked.capability:
            record = open_as(asked.capability, self.wire.genesis, Capability)
            if record.sender == peer:
                self._hear(peer, record.message, record.raw)
        known = [m.capability_raw for node, m in self.state.alive().items() if m.capability_raw and node != peer]
        start = self.randomness.bytes(1)[0] % max(1, len(known))
        records = (known[start:] + known[:start])[:PEER_EXCHANGE_MAX]
        if self._own_record:
            records.append(self._own_record)
        return self.wire.seal(PeersAnswer(records=tuple(records)))

    async def exchange(self, peer: NodeId) -> None:
        """Ask `peer` whom it knows, and believe what is signed."""
        request = PeersRequest(capability=self._own_record)
        answer: Signed[PeersAnswer] = await self.wire.ask(peer, PEERS, request, PeersAnswer)
        for raw in answer.message.records:
            try:
                signed = open_any(raw, self.wire.genesis, max_bytes=RESPONSE_MAX_BYTES)
            except RemoteError as error:
                log.info("peer record dropped", peer=base58(peer), cause=str(error))
                continue
            if isinstance(signed.message, Capability) and self._recent(signed.message):
                self._hear(signed.sender, signed.message, raw)

    async def reach(self, nodes: list[NodeId]) -> int:
        """Connect to up to PEERS_WANTED of `nodes` at once; returns how many of them are connected."""
        async with trio.open_nursery() as nursery:
            for node in nodes[:PEERS_WANTED]:
                if node not in self.wire.transport.connected():
                    nursery.start_soon(self._try_exchange, node)
        return len(self.wire.transport.connected().intersection(nodes))

    def _recent(self, record: Capability) -> bool:
        return abs(self.wire.clock.unix_ms() - record.sent_at_ms) <= 3 * CAPABILITY_INTERVAL_MS

    async def _keep_connected(self) -> None:
        while True:
            await self._join_bootstrap()
            for peer in sorted(self.wire.transport.connected())[:PEERS_WANTED]:
                await self._try_exchange(peer)
            connected = self.wire.transport.connected()
            for node in sorted(self.alive()):
                if len(self.wire.transport.connected()) >= PEERS_WANTED + len(self._roots):
                    break
                if node not in connected:
                    await self._try_exchange(node)
            await trio.sleep(EXCHANGE_INTERVAL_S if self.alive() else 1.0)

    async def _join_bootstrap(self) -> None:
        connected = self.wire.transport.connected()
        if self._roots and self._roots <= connected:
            return
        for address in self.bootstrap:
            try:
                self._roots.add(await self.wire.transport.connect(address))
            except CyxError as error:
                log.warning("bootstrap not reached", address=address, cause=str(error))

    async def _try_exchange(self, peer: NodeId) -> None:
        try:
            await self.exchange(peer)
        except CyxError as error:
            log.info("peer exchange failed", peer=base58(peer), cause=str(error))
