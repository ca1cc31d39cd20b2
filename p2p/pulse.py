"""Who is at the other end of a connection is asked when it has said nothing for a while, and given up when it does not
answer: a frozen process, a machine that sleeps, a cable that was pulled leave a connection that looks alive for ever.

Rule 1: after PULSE_INTERVAL_S without a byte the peer is asked (a ping of the muxer, which any libp2p answers).
Rule 2: after CONNECTION_SILENCE_MAX_S without a byte the connection is closed: before presence calls the peer suspect.
Rule 3: a peer that takes more of a backlog lives, too, since our question waits in it.
Rule 4: of several connections with one peer the newest direct one is used: the peer has chosen it, and an older one may
be what is left of its last life.
Rule 5: time in which we ourselves stood still counts for one interval only: what came meanwhile is not read yet.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import structlog
import trio
from libp2p.connection_types import ConnectionType
from libp2p.network.swarm import Swarm
from libp2p.security.secure_session import SecureSession
from libp2p.stream_muxer.yamux import yamux

from ..protocol.limits import CONNECTION_SILENCE_MAX_S, PULSE_INTERVAL_S, SHUTDOWN_TIMEOUT_S

if TYPE_CHECKING:
    from .hardening import Patches

_log = structlog.get_logger()


class Act(Enum):
    """What to do about a peer."""

    NOTHING = "nothing"
    ASK = "ask"
    HANG_UP = "hang up"


@dataclass(slots=True)
class Silence:
    """How long a peer has said nothing, looked at every PULSE_INTERVAL_S. Pure: the times are the caller's."""

    looked_at_s: float
    heard_at_s: float
    silent_s: float = 0.0

    def look(self, now_s: float, heard_at_s: float) -> Act:
        """What follows from the last byte having come at `heard_at_s`."""
        passed_s, self.looked_at_s = now_s - self.looked_at_s, now_s
        if heard_at_s > self.heard_at_s:
            self.heard_at_s, self.silent_s = heard_at_s, 0.0
            return Act.NOTHING
        self.silent_s += min(passed_s, PULSE_INTERVAL_S)
        return Act.HANG_UP if self.silent_s >= CONNECTION_SILENCE_MAX_S else Act.ASK


def notice_silence(patches: Patches) -> None:
    """Instead of measuring a round trip now and then, and doing nothing about it, look whether the peer lives."""
    read: Any = SecureSession.read

    async def noted_read(self: Any, n: int | None = None) -> bytes:
        data: bytes = await read(self, n)
        self.heard_at_s = trio.current_time()
        return data

    async def pulse(self: Any) -> None:
        started_s = trio.current_time()
        silence = Silence(started_s, started_s)
        while not self.event_shutting_down.is_set():
            with trio.move_on_after(PULSE_INTERVAL_S):
                await self.event_shutting_down.wait()
                return
            act = silence.look(trio.current_time(), getattr(self.secured_conn, "heard_at_s", started_s))
            if act is Act.HANG_UP:
                await _hang_up(self, silence.silent_s)
            elif act is Act.ASK:
                with trio.move_on_after(PULSE_INTERVAL_S):
                    await _ask(self)

    def newest(self: Any, connections: list[Any]) -> Any:
        direct = [one for one in connections if one.get_connection_type() == ConnectionType.DIRECT]
        return (direct or connections)[-1]

    patches.set(Swarm, "_best_connection", newest)
    patches.set(SecureSession, "read", noted_read)
    patches.set(yamux.Yamux, "_measure_rtt_loop", pulse)


async def _ask(connection: Any) -> None:
    connection._ping_id = (connection._ping_id + 1) & 0xFFFF_FFFF
    connection._ping_sent_time = trio.current_time()
    ping = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_PING, yamux.FLAG_SYN, 0, connection._ping_id)
    try:
        await connection._write_frame(ping)
    except Exception as error:
        # The connection broke, in one of the library's dozen ways: its reader sees it, too.
        _log.debug("pulse_failed", peer=str(connection.peer_id), cause=repr(error)[:200])


async def _hang_up(connection: Any, silent_s: float) -> None:
    _log.info("peer_silent", peer=str(connection.peer_id), seconds=round(silent_s))
    with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S):
        await connection._cleanup_on_error()
