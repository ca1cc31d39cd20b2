"""Rendezvous: nodes register under the name of their class at well-known nodes, and find others there.

The library's service and client, behind bounds: its service makes an entry for every name that anybody asks about, has
no bound on names, on a peer's registrations or on their addresses, and waits for ever for a request; its client
believes 4 MiB of whatever it is told.
"""

from __future__ import annotations

from . import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
from google.protobuf.message import DecodeError
from libp2p.custom_types import TProtocol
from libp2p.discovery.rendezvous.client import RendezvousClient
from libp2p.discovery.rendezvous.pb.rendezvous_pb2 import Message
from libp2p.discovery.rendezvous.service import RegistrationRecord, RendezvousService
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from ..protocol.discovery import namespace_prefix, rendezvous_protocol
from ..protocol.errors import PeerUnreachable
from ..protocol.limits import (
    ADDRESSES_MAX,
    DHT_ANSWER_MAX_BYTES,
    RENDEZVOUS_NAMESPACES_MAX,
    RENDEZVOUS_PER_NAMESPACE_MAX,
    RENDEZVOUS_PER_PEER_MAX,
    RENDEZVOUS_PER_SUBNET_MAX,
    RENDEZVOUS_REGISTRATIONS_MAX,
    RENDEZVOUS_REQUEST_MAX_BYTES,
    RENDEZVOUS_TOLD_MAX,
    RENDEZVOUS_TTL_MIN_S,
    RENDEZVOUS_TTL_S,
    REQUEST_TIMEOUT_S,
)
from ..protocol.units import NodeId, base58
from .dht.providers import subnet_of
from .discovery_gate import Gate, Passed, Refused
from .host import libp2p_id, node_of
from .peer_id import peer_id_bytes
from .raw_streams import RawStreams, believed, in_text

_REGISTER, _UNREGISTER, _DISCOVER = Message.REGISTER, Message.UNREGISTER, Message.DISCOVER


class RendezvousPoint:
    """Serves one network's registrations from now on."""

    def __init__(self, raw: RawStreams, genesis: bytes) -> None:
        self._raw, self._prefix = raw, namespace_prefix(genesis)
        self._service = RendezvousService(_Host(raw))  # type: ignore[arg-type]
        self.gate = Gate(self._judge, self._handle, request_max_bytes=RENDEZVOUS_REQUEST_MAX_BYTES, ban=raw.ban)
        raw.accept(rendezvous_protocol(genesis), self.gate.handle)

    def __len__(self) -> int:
        return sum(map(len, self._spaces.values()))

    @property
    def _spaces(self) -> dict[str, dict[ID, RegistrationRecord]]:
        return self._service.registrations

    async def _handle(self, exchange: Any) -> None:
        await self._service._handle_stream(exchange)
        # The library keeps every name that anybody asked about.
        for name in [name for name, entries in self._spaces.items() if not entries]:
            del self._spaces[name]

    def _judge(self, peer: NodeId, raw: bytes) -> Passed | Refused:
        message = Message()
        try:
            message.ParseFromString(raw)
        except DecodeError:
            return Refused("malformed")
        match message.type:
            case Message.REGISTER:
                refused = self._flaw_of_registration(peer, message.register)
            case Message.UNREGISTER:
                mine = message.unregister.id == peer_id_bytes(peer)
                refused = None if mine and self._is_name(message.unregister.ns) else Refused("unregister")
            case Message.DISCOVER:
                refused = self._flaw_of_question(message.discover)
            case _:
                refused = Refused("kind")
        kind = {_REGISTER: "register", _UNREGISTER: "unregister", _DISCOVER: "discover"}.get(message.type, "")
        return refused or Passed(kind, message.SerializeToString())

    def _is_name(self, name: str) -> bool:
        digits = name.removeprefix(self._prefix)
        return name.startswith(self._prefix) and len(digits) == 16 and not set(digits) - set("0123456789abcdef")

    def _flaw_of_question(self, question: Message.Discover) -> Refused | None:
        if not self._is_name(question.ns):
            return Refused("namespace")
        if len(question.cookie) > 4:
            return Refused("cookie")
        self._shuffle(question.ns)
        question.limit = min(question.limit or RENDEZVOUS_TOLD_MAX, RENDEZVOUS_TOLD_MAX)
        return None

    def _shuffle(self, name: str) -> None:
        """Whoever came first is not told first."""
        if name in self._spaces:
            entries = list(self._spaces[name].items())
            random.shuffle(entries)
            self._spaces[name] = dict(entries)

    def _flaw_of_registration(self, peer: NodeId, entry: Message.Register) -> Refused | None:
        """Cuts its addresses to those that can be the peer's."""
        if entry.peer.id != peer_id_bytes(peer):
            return Refused("peer")
        if not self._is_name(entry.ns):
            return Refused("namespace")
        if not RENDEZVOUS_TTL_MIN_S <= entry.ttl <= RENDEZVOUS_TTL_S:
            return Refused("ttl", malformed=False)
        fit = believed(in_text(entry.peer.addrs), peer, self._raw.remote_host(peer) or "127.0.0.1")
        del entry.peer.addrs[:]
        entry.peer.addrs.extend(Multiaddr(text).to_bytes() for text in fit)
        if not fit:
            return Refused("address")
        return None if self._has_room(libp2p_id(peer), entry.ns) else Refused("full", malformed=False)

    def _has_room(self, peer: ID, name: str) -> bool:
        entries = self._spaces.get(name, {})
        if peer in entries:
            return True
        if not self._fits(peer, name):
            self._service.cleanup_all_expired()
        return self._fits(peer, name)

    def _fits(self, peer: ID, name: str) -> bool:
        entries = self._spaces.get(name, {})
        subnet = self._subnet(peer)
        return (
            len(self) < RENDEZVOUS_REGISTRATIONS_MAX
            and len(entries) < RENDEZVOUS_PER_NAMESPACE_MAX
            and (bool(entries) or len(self._spaces) < RENDEZVOUS_NAMESPACES_MAX)
            and sum(peer in others for others in self._spaces.values()) < RENDEZVOUS_PER_PEER_MAX
            and (not subnet or sum(self._subnet(one) == subnet for one in entries) < RENDEZVOUS_PER_SUBNET_MAX)
        )

    def _subnet(self, peer: ID) -> str:
        node = node_of(peer)
        return subnet_of(self._raw.remote_host(node)) if node is not None else ""

    def tidy(self) -> None:
        """Forget what is out of date."""
        self._service.cleanup_all_expired()


async def register(raw: RawStreams, genesis: bytes, point: NodeId, namespace: str) -> None:
    """Register ourselves with `point` for RENDEZVOUS_TTL_S. PeerUnreachable when it does not take us."""
    await _bounded(point, partial(_client(raw, genesis, point).register, namespace, RENDEZVOUS_TTL_S))


async def discover(raw: RawStreams, genesis: bytes, point: NodeId, namespace: str) -> dict[NodeId, tuple[str, ...]]:
    """Who is registered with `point`, RENDEZVOUS_TOLD_MAX at most, and where; without ourselves. PeerUnreachable."""
    peers, _ = await _bounded(point, partial(_client(raw, genesis, point).discover, namespace, RENDEZVOUS_TOLD_MAX))
    found: dict[NodeId, tuple[str, ...]] = {}
    for peer in peers[:RENDEZVOUS_TOLD_MAX]:
        node = node_of(peer.peer_id)
        if node is not None and node != raw.node_id:
            told = [str(address) for address in peer.addrs[: 2 * ADDRESSES_MAX]]
            if addresses := believed(told, node, raw.remote_host(point)):
                found[node] = addresses
    return found


def _client(raw: RawStreams, genesis: bytes, point: NodeId) -> RendezvousClient:
    return RendezvousClient(_Host(raw, rendezvous_protocol(genesis)), libp2p_id(point))  # type: ignore[arg-type]


async def _bounded(point: NodeId, attempt: Callable[[], Any]) -> Any:
    cause: object = "it was silent"
    with trio.move_on_after(REQUEST_TIMEOUT_S):
        try:
            return await attempt()
        except Exception as error:
            # The library raises what it met: refusals, broken streams, addresses that are none.
            cause = error
    raise PeerUnreachable(f"the rendezvous point {base58(point)} does not help: {cause!r}"[:300])


class _Host:
    """Just as much of a host as the library's rendezvous uses."""

    def __init__(self, raw: RawStreams, protocol: str = "") -> None:
        self._raw, self._protocol = raw, protocol

    def get_id(self) -> ID:
        return libp2p_id(self._raw.node_id)

    def get_addrs(self) -> list[Multiaddr]:
        return [Multiaddr(address) for address in self._raw.addresses()]

    async def new_stream(self, peer: ID, protocols: list[TProtocol]) -> _Bounded:
        node = node_of(peer)
        assert node is not None and protocols
        return _Bounded(await self._raw.open(node, self._protocol))

    def set_stream_handler(self, protocol: str, handler: Any) -> None:
        """Our gate calls the handler."""


class _Bounded:
    """A stream of which DHT_ANSWER_MAX_BYTES are read at most."""

    def __init__(self, stream: NetStream) -> None:
        self._stream, self._left = stream, DHT_ANSWER_MAX_BYTES

    async def read(self, n: int | None = None) -> bytes:
        part = await self._stream.read(n)
        self._left -= len(part)
        if self._left < 0:
            raise ValueError("the answer is too large")
        return part

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def close(self) -> None:
        await self._stream.close()
