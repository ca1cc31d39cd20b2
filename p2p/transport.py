"""The `Transport` port over libp2p: dialling, streams, requests and gossip between nodes named by their keys.

Importing this module imports libp2p (more than a second of CPU), so only what really opens a network does. The
library runs in one task of ours: whatever ends it comes out of `run` as one error, never as an exception group, and
leaving `run` disconnects every peer, so that none takes us for alive.
"""

from __future__ import annotations

from . import libp2p_quiet  # noqa: F401 -- before anything of libp2p

# isort: split

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

import structlog
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.network.stream.net_stream import NetStream

from ..protocol.errors import CyxError, LocalError, PeerUnreachable, TransientError
from ..protocol.identity import KeyPair
from ..protocol.limits import ADDRESSES_MAX, DENY_LIST_POLL_S, DRAIN_TIMEOUT_S, KEEPALIVE_INTERVAL_S, SHUTDOWN_TIMEOUT_S
from ..protocol.ports import GossipMessage, GossipValidator, RequestHandler, Stream, StreamHandler
from ..protocol.units import NodeId, base58
from . import hardening, requests
from .addresses import parse_address
from .admission import Admission
from .bans import Bans
from .deny_list import DenyList
from .dialling import bounded
from .fast_gossip import internals
from .figures import TransportFigures, counted
from .gossip import Gossip
from .host import build_host, forget_strangers, libp2p_id, listen_address, node_of, reachable_addresses, refuse_peers
from .inbound import Inbound
from .open_streams import OpenStreams
from .reach_figures import ReachReport
from .reaching import Reaching

_log = structlog.get_logger()


class Libp2pTransport:
    """A node on the network while `run()` is open. `port` 0 takes any free one; `announce` replaces the addresses
    that peers are told, for a node behind a forwarded port (multiaddrs without /p2p). With peers on `deny_list` or
    among `bans` there is no connection, whoever dials; bans that are given may outlive this object. `fast_gossip`
    chooses between our own path for gossip and the library's; None leaves it to the environment
    (CYXNODE_FAST_GOSSIP). With `relay` it carries connections between others, and calls back whoever asks."""

    def __init__(
        self,
        key: KeyPair,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        announce: Sequence[str] = (),
        deny_list: DenyList | None = None,
        fast_gossip: bool | None = None,
        bans: Bans | None = None,
        relay: bool = False,
    ) -> None:
        hardening.apply()
        fast = internals.chosen(fast_gossip)
        self._node_id, self._listen, self._port = key.node_id, listen_address(host, port), port
        self._host, self._network = build_host(key, announce, fast=fast)
        self._denied, self._bans = deny_list, bans if bans is not None else Bans()
        refuse_peers(self._network, self._refuses)
        self._gossip = Gossip(self._host, self.ban, fast=fast)
        self._inbound, self._admission, self._streams = Inbound(), Admission(self._network), OpenStreams()
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._reaching = Reaching(self._host, self._node_id, self, self._streams.on, self._direct, relay=relay)
        self._dialler = self._reaching.dialler
        self._nursery: trio.Nursery | None = None
        self._stop = trio.Event()

    @property
    def node_id(self) -> NodeId:
        """Our key."""
        return self._node_id

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Libp2pTransport]:
        """Listen and serve while the context is open; once. LocalError(field='port') when the port is taken."""
        if self._stop.is_set() or self._nursery is not None:
            raise LocalError("the transport has run already", field="transport", fix="make a new one")
        failure: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(self._serve)
                    yield self
                except Exception as error:
                    failure = error  # raised below: the nursery would wrap it
                finally:
                    self._stop.set()
        except ExceptionGroup as group:
            failure = failure or _one_of(group)
        if failure is not None:
            raise failure

    async def _serve(self, task_status: Any) -> None:
        try:
            async with self._host.run(listen_addrs=[self._listen]):
                if not self._network.listeners:
                    raise LocalError(
                        f"{self._port} is in use", field="port", fix="stop the other program or choose another port"
                    )
                async with self._gossip.run(), trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._streams.keep_alive)
                    nursery.start_soon(self._show_out)
                    nursery.start_soon(self._reaching.run)
                    nursery.start_soon(self._heed_deny_list)
                    task_status.started()
                    await self._stop.wait()
                    self._reaching.stop()
                    await self._disconnect_all()
                    nursery.cancel_scope.cancel()
        except Exception as error:
            raise _one_of(error) from None
        finally:
            self._nursery = None

    def addresses(self) -> tuple[str, ...]:
        """Where peers can dial us: through relays first, while we cannot be dialled otherwise."""
        return (*self._reaching.reach.circuit_addresses(), *self._direct())[:ADDRESSES_MAX]

    @property
    def reach_report(self) -> ReachReport:
        """Whether others can dial us, as far as that is known."""
        return self._reaching.reach.report

    @property
    def reach_changed(self) -> trio.Event:
        """Set when `reach_report` changes; another one then takes its place."""
        return self._reaching.reach.changed

    def _direct(self) -> tuple[str, ...]:
        return tuple(one for address in self._host.get_addrs() for one in reachable_addresses(str(address)))

    def connected(self) -> frozenset[NodeId]:
        """Peers with a live connection."""
        peers = self._network.connections
        live = (node_of(peer) for peer in peers if any(not one.is_closed for one in peers[peer]))
        return frozenset(node for node in live if node is not None)

    def learn(self, node: NodeId, addresses: Sequence[str]) -> None:
        """Remember where `node` can be dialled; what is not an address of it is dropped."""
        dropped = self._dialler.book.learn(node, addresses)
        if dropped:
            _log.info("addresses_dropped", peer=base58(node), count=dropped)

    async def connect(self, address: str) -> NodeId:
        """Dial `address`, unless its node is connected already."""
        target = parse_address(address)
        self._check_peer(target.node)
        await self._dialler.connect(target, named=True)
        return target.node

    def figures(self) -> TransportFigures:
        """What goes on here, in numbers."""
        return TransportFigures(
            connected=len(self.connected()),
            addresses_known=len(self._dialler.book),
            inbound_open=self._admission.doors.open,
            inbound_refused=dict(self._admission.doors.refused),
            streams_open=self._inbound.open,
            streams_served=dict(self._inbound.served),
            streams_refused=dict(self._inbound.refused),
            gossip=dict(self._verdicts),
            banned=len(self._bans.nodes),
            reach=self._reaching.figures(),
        )

    async def drain(self) -> None:
        """Let nobody in any more, and finish what is being served, within DRAIN_TIMEOUT_S. Connections stay open."""
        self._admission.doors.draining = True
        with trio.move_on_after(DRAIN_TIMEOUT_S):
            while self._inbound.open:  # noqa: ASYNC110 -- it ends once in a process, within seconds
                await trio.sleep(0.02)

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._admission.doors.draining

    async def disconnect(self, node: NodeId) -> None:
        """Close all connections to `node`; streams to it break. A relay through which others reach us is kept."""
        if not self._reaching.reach.is_held(node):
            await self._hang_up(node)

    async def _hang_up(self, node: NodeId) -> None:
        with trio.move_on_after(SHUTDOWN_TIMEOUT_S):
            await self._network.close_peer(libp2p_id(node))

    def subscribe(
        self, topic: str, validator: GossipValidator
    ) -> AbstractAsyncContextManager[AsyncIterator[GossipMessage]]:
        """Join a topic while the context is open; LocalError when it is joined already."""
        return self._gossip.subscribe(topic, counted(topic, validator, self._verdicts))

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip `data`; logged as unheard when no connected peer has joined the topic."""
        await self._gossip.publish(topic, data)

    def serve(self, protocol: str, handler: RequestHandler) -> None:
        """Answer requests of `protocol`; once per protocol."""
        self._inbound.serve(protocol, handler)
        self._accept(protocol)

    def serve_stream(self, protocol: str, handler: StreamHandler) -> None:
        """Serve streams of `protocol`; once per protocol."""
        self._inbound.serve_stream(protocol, handler)
        self._accept(protocol)

    async def request(self, node: NodeId, protocol: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Ask `node`, dialling it when needed."""
        return await requests.ask(self.open_stream, node, protocol, payload, timeout_s)

    async def open_stream(self, node: NodeId, protocol: str) -> Stream:
        """Open a stream to `node`, dialling it when needed."""
        return self._streams.track(node, await self.open_raw(node, protocol))

    async def open_raw(self, node: NodeId, protocol: str) -> NetStream:
        """As `open_stream`, for a protocol of the library's that has frames of its own."""
        self._check_peer(node)
        await self._dialler.reach(node)
        raw = await bounded(
            lambda: self._host.new_stream(libp2p_id(node), [TProtocol(protocol)]), f"open {protocol} to", node
        )
        return cast(NetStream, raw)

    def _accept(self, protocol: str) -> None:
        async def accepted(stream: INetStream) -> None:
            peer = node_of(stream.muxed_conn.peer_id)
            if peer is None or self._refuses(peer):
                await stream.reset()
                return
            await self._inbound.handle(protocol, self._streams.track(peer, cast(NetStream, stream)))

        self._host.set_stream_handler(TProtocol(protocol), accepted)

    def _check_peer(self, node: NodeId) -> None:
        if node == self._node_id:
            raise LocalError("that is this node itself", field="node", fix="ask another one")
        if self._nursery is None:
            raise LocalError("the transport is not running", field="transport", fix="enter run() first")
        if node in self._bans:
            raise PeerUnreachable(f"{base58(node)} is banned here")
        if self._denied is not None and node in self._denied:
            raise PeerUnreachable(f"{base58(node)} is on the deny list")

    def _refuses(self, node: NodeId) -> bool:
        """Whether there is to be no connection with `node`."""
        return node in self._bans or (self._denied is not None and node in self._denied)

    def ban(self, node: NodeId) -> None:
        """Hang up on a forwarder that must go, and let it in no more until its ban ends; then it begins anew.

        The library's own blacklist is not used: it has no end, and takes the network down when the peer leaves first.
        """
        self._bans.add(node)
        if self._nursery is not None:
            self._nursery.start_soon(self._hang_up, node)

    async def _show_out(self) -> None:
        """Hang up on banned peers that came in again, and forget peers of long ago."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(KEEPALIVE_INTERVAL_S)
                for node in self.connected() & self._bans.nodes:
                    nursery.start_soon(self._hang_up, node)
                forget_strangers(self._network)

    async def _heed_deny_list(self) -> None:
        """Cut the connections with whoever was put on the deny list; who is on it already gets none."""
        if self._denied is None:
            return
        async with trio.open_nursery() as nursery:
            while True:
                if self._denied.refresh():
                    _log.info("deny_list_changed", peers=len(self._denied.nodes))
                for node in self.connected() & self._denied.nodes:
                    nursery.start_soon(self._hang_up, node)
                await trio.sleep(DENY_LIST_POLL_S)

    async def _disconnect_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for node in self.connected():
                nursery.start_soon(self._hang_up, node)


def _one_of(error: BaseException) -> Exception:
    """Our own error inside nested groups, or a TransientError that names the library's."""
    leaf: BaseException = error
    while isinstance(leaf, BaseExceptionGroup):
        ours, _ = leaf.split(CyxError)
        leaf = (ours or leaf).exceptions[0]
    return leaf if isinstance(leaf, CyxError) else TransientError(f"the network stopped: {leaf!r}"[:300])
