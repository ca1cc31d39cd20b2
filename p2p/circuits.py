"""Connections through relays, seen from their two ends: reserving, calling, being called.

What a circuit carries is a connection like any other: Noise proves who is at the other end and hides all from the
relay, and yamux lies above. So a relay that lies about who calls can only make a handshake fail. Calls are taken only
from relays where we hold a reservation, at most CIRCUITS_INBOUND_MAX at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
import trio
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from multiaddr import Multiaddr

from ..protocol.errors import PeerUnreachable, RemoteError
from ..protocol.limits import (
    CIRCUITS_INBOUND_MAX,
    CONNECTION_WRITE_TIMEOUT_S,
    RELAY_RESERVATION_S,
    RESET_TIMEOUT_S,
    SHUTDOWN_TIMEOUT_S,
)
from ..protocol.units import NodeId, base58
from .circuit_wire import (
    HOP,
    HopMessage,
    Status,
    StopMessage,
    connect_through,
    named,
    read_message,
    write_message,
)
from .host import libp2p_id, node_of
from .muxed_stream import MuxedStream
from .peer_id import peer_id_text

OpenRaw = Callable[[NodeId, str], Awaitable[MuxedStream]]
"""Opens a stream of a protocol on a standing direct connection, and never dials."""
_log = structlog.get_logger()


class CircuitStream:
    """A stream through a relay in the place of a socket: what the library asks of one."""

    def __init__(self, stream: MuxedStream) -> None:
        self._stream = stream
        self.ended = trio.Event()

    async def read(self, n: int | None = None) -> bytes:
        """Between 1 and `n` bytes; b'' at the end."""
        try:
            return await self._stream.read(n if n is not None else 65_536)
        except PeerUnreachable as error:
            raise ConnectionClosedError(str(error), transport="relay") from error

    async def write(self, data: bytes) -> None:
        """All of `data`, also when the task is cancelled: half an encrypted packet would spoil the rest."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CONNECTION_WRITE_TIMEOUT_S) as patience:
            try:
                await self._stream.write(data)
            except PeerUnreachable as error:
                raise ConnectionClosedError(str(error), transport="relay") from error
        if patience.cancelled_caught:
            await self._stream.reset()
            raise ConnectionClosedError("the peer stopped reading", transport="relay")

    async def close(self) -> None:
        """End our side, so that what was sent arrives; the relay ends the other soon after."""
        if self.ended.is_set():
            return
        self.ended.set()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RESET_TIMEOUT_S):
            with suppress(PeerUnreachable):
                await self._stream.close_write()
            await self._stream.release()

    def get_remote_address(self) -> tuple[str, int] | None:
        """None: the relay's address is not the peer's."""
        return None


class Circuits:
    """Both ends' part of one node. `open_raw` opens streams to relays, `on_call` is told who has called through one."""

    def __init__(self, network: Swarm, open_raw: OpenRaw, on_call: Callable[[NodeId], None]) -> None:
        self._network, self._open_raw, self._on_call = network, open_raw, on_call
        self._reserved_until_s: dict[NodeId, float] = {}
        self._inbound = 0

    def holds(self, relay: NodeId) -> bool:
        """Whether we have a reservation there."""
        return self._reserved_until_s.get(relay, 0.0) > trio.current_time()

    def drop(self, relay: NodeId) -> None:
        """Our connection to a relay has ended, or it is not wanted any more."""
        self._reserved_until_s.pop(relay, None)

    async def reserve(self, relay: NodeId) -> None:
        """Ask to be called through `relay`, which we are connected with; PeerUnreachable or RemoteError when it will
        not."""
        stream = await self._open_raw(relay, HOP)
        try:
            await write_message(stream, HopMessage(type=HopMessage.RESERVE))
            answer = await read_message(stream, HopMessage)
        finally:
            await stream.reset()
        if answer.type != HopMessage.STATUS or answer.status != Status.OK:
            raise RemoteError(f"the relay refused: {_status(answer.status)}", peer=relay)
        self._reserved_until_s[relay] = trio.current_time() + RELAY_RESERVATION_S

    async def dial(self, relay: NodeId, target: NodeId) -> None:
        """Connect with `target` through `relay`, which we are connected with; PeerUnreachable or RemoteError."""
        stream = await self._open_raw(relay, HOP)
        whole = False
        try:
            await write_message(stream, connect_through(target))
            answer = await read_message(stream, HopMessage)
            if answer.type != HopMessage.STATUS or answer.status != Status.OK:
                raise PeerUnreachable(f"{base58(relay)} does not connect us: {_status(answer.status)}")
            raw = _raw(CircuitStream(stream), relay, target, initiator=True)
            await self._network.upgrade_outbound_raw_conn(raw, libp2p_id(target))
            whole = True
        finally:
            if not whole:
                await stream.reset()

    async def called(self, relay: NodeId, stream: MuxedStream) -> None:
        """One STOP stream to the end of the connection that comes through it; raises nothing but cancellation."""
        if not self.holds(relay) or self._inbound >= CIRCUITS_INBOUND_MAX:
            _log.info("circuit_refused", peer=base58(relay), cause="total" if self.holds(relay) else "reservation")
            await stream.reset()
            return
        self._inbound += 1
        try:
            await self._take(relay, stream)
        except Exception as error:
            # A stranger's handshake, as in admission: it ends this circuit, never the node.
            _log.debug("circuit_failed", peer=base58(relay), cause=repr(error)[:200])
        finally:
            self._inbound -= 1
            await stream.reset()

    async def _take(self, relay: NodeId, stream: MuxedStream) -> None:
        call = await read_message(stream, StopMessage)
        if call.type != StopMessage.CONNECT:
            raise RemoteError("the message is not a call", peer=relay)
        source = named(call)
        await write_message(stream, StopMessage(type=StopMessage.STATUS, status=Status.OK))
        circuit = CircuitStream(stream)
        connection = await self._network.upgrade_inbound_raw_conn(
            _raw(circuit, relay, source, initiator=False), Multiaddr(f"/p2p/{peer_id_text(relay)}/p2p-circuit")
        )
        proven = node_of(connection.peer_id)
        if proven is not None:
            self._on_call(proven)
        await connection.event_shutting_down.wait()  # type: ignore[attr-defined]
        with trio.move_on_after(SHUTDOWN_TIMEOUT_S):
            await connection.event_closed.wait()  # type: ignore[attr-defined]


def _raw(circuit: CircuitStream, relay: NodeId, peer: NodeId, *, initiator: bool) -> RawConnection:
    path = Multiaddr(f"/p2p/{peer_id_text(relay)}/p2p-circuit/p2p/{peer_id_text(peer)}")
    return RawConnection(circuit, initiator, ConnectionType.RELAYED, [path])  # type: ignore[arg-type]


def _status(status: Status.ValueType) -> str:
    try:
        return str(Status.Name(status)).lower().replace("_", " ")
    except ValueError:
        return str(status)
