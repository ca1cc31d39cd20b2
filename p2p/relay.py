"""A circuit relay (version 2): carries streams between two nodes of which one cannot be dialled.

It sees nothing but Noise packets of the two, and holds no more of them than one chunk each way; a slow reader stops the
sender by the streams' windows. `relay_quota.py` says how much anybody gets. Circuits lead along connections that stand:
a relay never dials for others. The library's own relay is not used; docs/adr/0013 says why.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable

import structlog
import trio
from libp2p.network.swarm import Swarm

from ..protocol.errors import CyxError, PeerUnreachable, RemoteError
from ..protocol.limits import (
    RELAY_CHUNK_BYTES,
    RELAY_CIRCUIT_MAX_BYTES,
    RELAY_CIRCUIT_S,
    RELAY_LINGER_S,
    RELAY_MESSAGE_TIMEOUT_S,
    RELAY_PENDING_MAX,
    RELAY_RESERVATION_S,
    RELAY_STALL_S,
    RELAY_STREAMS,
)
from ..protocol.units import NodeId, base58
from .buckets import Buckets
from .circuit_wire import HopMessage, Status, StopMessage, called_by, named, read_message, write_message
from .doors import host_of
from .links import has_direct, links, remote_of
from .muxed_stream import MuxedStream
from .relay_quota import RelayQuota

OpenStop = Callable[[NodeId], Awaitable[MuxedStream]]
"""Opens a STOP stream on a standing direct connection, and never dials."""
_log = structlog.get_logger()


class Relay:
    """Serves HOP streams. `granted` and `refused` count by kind and by cause; `bytes` is what circuits carried."""

    def __init__(self, network: Swarm, open_stop: OpenStop) -> None:
        self._network, self._open_stop = network, open_stop
        self._quota, self._rates = RelayQuota(), Buckets[NodeId](RELAY_STREAMS)
        self.granted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.bytes, self._pending = 0, 0

    @property
    def reservations(self) -> int:
        """How many stand."""
        self._forget_the_gone()
        return len(self._quota.holders(trio.current_time()))

    @property
    def circuits(self) -> int:
        """How many stand or are being made."""
        return self._quota.circuits

    async def serve(self, peer: NodeId, stream: MuxedStream) -> None:
        """One HOP stream from its first byte to its end; raises nothing but cancellation."""
        if self._pending >= RELAY_PENDING_MAX:
            self.refused["pending"] += 1
            await stream.reset()
            return
        self._pending += 1
        try:
            await self._answer(peer, stream)
        finally:
            self._pending -= 1

    async def _answer(self, peer: NodeId, stream: MuxedStream) -> None:
        try:
            cause, status = await self._served(peer, stream)
        except CyxError as error:
            cause, status = "malformed" if isinstance(error, RemoteError) else "broken", Status.MALFORMED_MESSAGE
        if cause:
            self.refused[cause] += 1
            _log.info("relay_refused", peer=base58(peer), cause=cause)
            try:
                await write_message(stream, HopMessage(type=HopMessage.STATUS, status=status))
                await stream.close_write()
            except CyxError as error:
                _log.debug("relay_refusal_unheard", peer=base58(peer), cause=str(error))
            with trio.move_on_after(RELAY_LINGER_S):
                await _to_the_end(stream)  # a reset would overtake the answer
        await stream.reset()

    async def _served(self, peer: NodeId, stream: MuxedStream) -> tuple[str, Status.ValueType]:
        if not has_direct(self._network, peer):
            return "relayed", Status.PERMISSION_DENIED
        if not self._rates.take(peer, trio.current_time()):
            return "rate", Status.RESOURCE_LIMIT_EXCEEDED
        asked = await read_message(stream, HopMessage)
        if not asked.HasField("type"):
            return "malformed", Status.MALFORMED_MESSAGE
        if asked.type == HopMessage.RESERVE:
            return await self._reserve(peer, stream)
        if asked.type == HopMessage.CONNECT:
            return await self._connect(peer, named(asked), stream)
        return "malformed", Status.UNEXPECTED_MESSAGE

    async def _reserve(self, peer: NodeId, stream: MuxedStream) -> tuple[str, Status.ValueType]:
        self._forget_the_gone()
        remote = next((seen for link in links(self._network, peer) if (seen := remote_of(link)) is not None), None)
        cause = self._quota.reserve(peer, host_of(remote), trio.current_time())
        if cause:
            return f"reservation_{cause}", Status.RESERVATION_REFUSED
        self.granted["reservation"] += 1
        answer = HopMessage(type=HopMessage.STATUS, status=Status.OK)
        answer.reservation.expire = int(time.time() + RELAY_RESERVATION_S)
        answer.limit.duration, answer.limit.data = int(RELAY_CIRCUIT_S), RELAY_CIRCUIT_MAX_BYTES
        await write_message(stream, answer)
        await stream.close_write()
        with trio.move_on_after(RELAY_LINGER_S):
            await _to_the_end(stream)
        return "", Status.OK

    async def _connect(self, source: NodeId, target: NodeId, stream: MuxedStream) -> tuple[str, Status.ValueType]:
        self._forget_the_gone()
        cause = self._quota.open_circuit(source, target, trio.current_time())
        if cause == "reservation":
            return "circuit_reservation", Status.NO_RESERVATION
        if cause:
            return f"circuit_{cause}", Status.RESOURCE_LIMIT_EXCEEDED
        onward: MuxedStream | None = None
        try:
            onward = await self._called(source, target)
            if onward is None:
                return "circuit_failed", Status.CONNECTION_FAILED
            answer = HopMessage(type=HopMessage.STATUS, status=Status.OK)
            answer.limit.duration, answer.limit.data = int(RELAY_CIRCUIT_S), RELAY_CIRCUIT_MAX_BYTES
            await write_message(stream, answer)
            self.granted["circuit"] += 1
            self._pending -= 1  # it is no request any more, and counted as a circuit
            try:
                await self._carry(stream, onward)
            finally:
                self._pending += 1
        finally:
            self._quota.close_circuit(source, target)
            if onward is not None:
                await onward.reset()
        return "", Status.OK

    async def _called(self, source: NodeId, target: NodeId) -> MuxedStream | None:
        """The target's end of a circuit, once it has accepted the call; None when it does not."""
        onward: MuxedStream | None = None
        accepted = False
        try:
            with trio.fail_after(RELAY_MESSAGE_TIMEOUT_S):
                onward = await self._open_stop(target)
                await write_message(onward, called_by(source, int(RELAY_CIRCUIT_S), RELAY_CIRCUIT_MAX_BYTES))
                answer = await read_message(onward, StopMessage)
                accepted = answer.type == StopMessage.STATUS and answer.status == Status.OK
        except (CyxError, trio.TooSlowError) as error:
            _log.info("circuit_not_taken", peer=base58(target), cause=str(error))
        finally:
            if onward is not None and not accepted:
                await onward.reset()
        return onward if accepted else None

    async def _carry(self, one: MuxedStream, other: MuxedStream) -> None:
        """Pass bytes both ways until both sides have ended, one of them breaks, or the circuit has had its share."""
        left = [RELAY_CIRCUIT_MAX_BYTES]
        with trio.move_on_after(RELAY_CIRCUIT_S) as life:

            async def pass_on(source: MuxedStream, sink: MuxedStream) -> None:
                try:
                    await self._pass_on(source, sink, left)
                except PeerUnreachable:
                    life.cancel()
                else:  # the other direction may finish what it has begun
                    life.deadline = min(life.deadline, trio.current_time() + RELAY_LINGER_S)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(pass_on, one, other)
                nursery.start_soon(pass_on, other, one)

    async def _pass_on(self, source: MuxedStream, sink: MuxedStream, left: list[int]) -> None:
        while data := await source.read(RELAY_CHUNK_BYTES):
            left[0] -= len(data)
            if left[0] < 0:
                self.refused["circuit_bytes"] += left[0] + len(data) >= 0  # once, whichever side it was
                raise PeerUnreachable("the circuit has carried its share")
            self.bytes += len(data)
            delay_s = self._quota.delay_s(len(data), trio.current_time())
            if delay_s:
                await trio.sleep(delay_s)
            try:
                with trio.fail_after(RELAY_STALL_S):
                    await sink.write(data)
            except trio.TooSlowError:
                raise PeerUnreachable("the reader of the circuit takes nothing") from None
        await sink.close_write()

    def _forget_the_gone(self) -> None:
        for node in self._quota.holders(trio.current_time()):
            if not has_direct(self._network, node):
                self._quota.cancel(node)


async def _to_the_end(stream: MuxedStream) -> None:
    """Read, and throw away, until the peer has ended."""
    try:
        while await stream.read(RELAY_CHUNK_BYTES):
            pass
    except PeerUnreachable:
        return
