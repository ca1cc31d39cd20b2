"""Dial-back: a node asks a peer to call it, and learns whether others can reach it and how they see it.

The question names ports only. They are called at the address that the asking connection comes from, so nobody can be
made to call a third party; a connection through a relay shows no such address and is refused. A call is a TCP
connection and the proof, by Noise, that the asker answers; it opens no stream and is closed at once. Every call is
bounded in time, and their rate per peer (STREAMS_PER_PEER), per host and in all.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.rcmgr import Direction
from msgspec import Meta

from ..protocol import codec
from ..protocol.errors import PeerUnreachable, Refusal, RemoteError
from ..protocol.limits import (
    DIAL_BACK_MAX_BYTES,
    DIAL_BACK_PORTS_MAX,
    DIAL_BACK_TIMEOUT_S,
    DIAL_BACKS,
    DIAL_BACKS_MAX,
    DIAL_BACKS_PER_HOST,
    SHUTDOWN_TIMEOUT_S,
)
from ..protocol.units import NodeId
from .buckets import Buckets
from .doors import host_of, is_own_machine
from .host import libp2p_id
from .links import links, remote_of

DIAL_BACK = "/cyx/1/dial-back"
_ALL = NodeId(b"all")

Port = Annotated[int, Meta(ge=1, le=65535)]
Ports = Annotated[tuple[Port, ...], Meta(max_length=DIAL_BACK_PORTS_MAX)]
Ask = Callable[[NodeId, str, bytes, float], Awaitable[bytes]]
"""Puts a request: to whom, which, what, within how many seconds."""


class CallMe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Please call these ports of mine."""

    ports: Ports


class Called(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the asker is seen, and which of its ports were answered by the asker itself."""

    host: Annotated[str, Meta(max_length=45)]
    port: Port
    reached: Ports


class DialBack:
    """Answers such requests while `willing` says so: a node that others cannot reach may see the world wrongly."""

    def __init__(self, network: Swarm, willing: Callable[[], bool]) -> None:
        self._network, self._willing = network, willing
        self._under_way = 0
        self._hosts, self._total = Buckets[NodeId](DIAL_BACKS_PER_HOST), Buckets[NodeId](DIAL_BACKS)
        self.served: Counter[str] = Counter()
        """Requests by result: reached, silent, refused."""

    async def answer(self, peer: NodeId, payload: bytes) -> bytes:
        """Call a peer back; Refusal says why not."""
        try:
            seen = self._seen(peer)
            asked = codec.decode(payload, CallMe, max_bytes=DIAL_BACK_MAX_BYTES)
            self._admit(seen[0])
        except Refusal:
            self.served["refused"] += 1
            raise
        except RemoteError as error:
            self.served["refused"] += 1
            raise Refusal(str(error), peer=peer) from None
        self._under_way += 1
        try:
            reached = await self._call_all(peer, seen[0], asked.ports)
        finally:
            self._under_way -= 1
        self.served["reached" if reached else "silent"] += 1
        return codec.encode(Called(host=seen[0], port=seen[1], reached=reached))

    def _seen(self, peer: NodeId) -> tuple[str, int]:
        if not self._willing():
            raise Refusal("this node does not know whether it can be reached itself", peer=peer)
        # Its own calls come from where it is; where we called it, it may only be forwarded from.
        mine = sorted(links(self._network, peer), key=lambda link: link.direction is not Direction.INBOUND)
        seen = next((remote for link in mine if (remote := remote_of(link)) is not None), None)
        if seen is None:
            raise Refusal("a relayed connection does not show where the asker is", peer=peer)
        return seen

    def _admit(self, host: str) -> None:
        now_s = trio.current_time()
        if self._under_way >= DIAL_BACKS_MAX:
            raise Refusal("too many calls are under way")
        name = NodeId(host_of((host, 0)).encode())
        if not (is_own_machine(host) or self._hosts.take(name, now_s)) or not self._total.take(_ALL, now_s):
            raise Refusal("too many calls were asked for")

    async def _call_all(self, peer: NodeId, host: str, ports: Ports) -> Ports:
        answered: set[int] = set()

        async def call(port: int) -> None:
            if await reaches(self._network, peer, host, port):
                answered.add(port)

        async with trio.open_nursery() as nursery:
            for port in dict.fromkeys(ports):
                nursery.start_soon(call, port)
        return tuple(port for port in dict.fromkeys(ports) if port in answered)


async def reaches(network: Swarm, node: NodeId, host: str, port: int) -> bool:
    """Whether a new connection to that IP address is answered by `node`; it is closed again."""
    raw: RawConnection | None = None
    ipaddress.ip_address(host)  # never a name: nothing is looked up
    with trio.move_on_after(DIAL_BACK_TIMEOUT_S):
        try:
            raw = RawConnection(TrioTCPStream(await trio.open_tcp_stream(host, port)), True)
            secured = await network.upgrader.upgrade_security(raw, True, libp2p_id(node))
            await secured.close()
        except Exception:
            # Closed ports and strangers' handshakes fail in a dozen ways; all of them mean no.
            return False
        else:
            return True
        finally:
            if raw is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S):
                    await raw.close()
    return False


async def ask_to_call(ask: Ask, peer: NodeId, ports: tuple[int, ...]) -> Called:
    """Ask `peer` to call us; PeerUnreachable, Refusal, or RemoteError when the answer makes no sense."""
    question = codec.encode(CallMe(ports=ports[:DIAL_BACK_PORTS_MAX]))
    raw = await ask(peer, DIAL_BACK, question, 2 * DIAL_BACK_TIMEOUT_S)
    called = codec.decode(raw, Called, max_bytes=DIAL_BACK_MAX_BYTES)
    try:
        ipaddress.ip_address(called.host)
    except ValueError:
        raise PeerUnreachable("the peer saw us at no address") from None
    return called
