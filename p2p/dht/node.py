"""One node's part in the DHT: it serves, when it can be reached, and looks up, within bounds.

Serving is the library's handler behind `discovery_gate.py`, with our routing table and stores. Looking up is ours
(`lookup.py`): the library's look-ups ask on as long as anybody names new peers, open a connection to each and leave it
open, and give up the network when they find one provider at home. A look-up here asks DHT_QUESTIONS_MAX peers at most,
one look-up runs at a time, and connections that it opened and nobody needs are closed at its end.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
import trio
import varint  # type: ignore[import-untyped]
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.network.stream.net_stream import NetStream
from libp2p.records.validator import NamespacedValidator
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from ...protocol.discovery import RECORD_NAMESPACE, dht_protocol, record_key
from ...protocol.envelope import Signed
from ...protocol.errors import CyxError, PeerUnreachable, RemoteError
from ...protocol.limits import (
    DHT_ANSWER_MAX_BYTES,
    DHT_BUCKET_SIZE,
    DHT_FRESH_S,
    DHT_LINGER_S,
    DHT_LOOKUP_TIMEOUT_S,
    DHT_NEWCOMERS_MAX,
    DHT_PARALLEL,
    DHT_QUESTION_TIMEOUT_S,
    DHT_REQUEST_MAX_BYTES,
    FOUND_PEERS_MAX,
)
from ...protocol.messages import Capability
from ...protocol.units import NodeId, base58
from ..discovery_gate import Gate, Passed, Refused
from ..host import libp2p_id, node_of
from ..peer_id import peer_id_bytes
from ..raw_streams import RawStreams
from . import requests
from .host import DhtHost, ProviderStore
from .lookup import Lookup
from .providers import Providers
from .records import BoundedValues, CapabilityRecords
from .requests import Answer
from .table import Table

_log = structlog.get_logger()


@dataclass(slots=True)
class Found:
    """What a look-up brought: who is closest to its key, where, after how many questions and hops."""

    lookup: Lookup
    contacts: dict[NodeId, tuple[str, ...]] = field(default_factory=dict)
    providers: dict[NodeId, tuple[str, ...]] = field(default_factory=dict)
    records: list[Signed[Capability]] = field(default_factory=list)
    took_s: float = 0.0


class Dht:
    """`keeps` names peers whose connections are to stay; `now_ms` is wall time. `width` is Kademlia's k: tests of long
    ways choose a small one."""

    def __init__(
        self,
        raw: RawStreams,
        genesis: bytes,
        *,
        keeps: Callable[[NodeId], bool] = lambda node: False,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        width: int = DHT_BUCKET_SIZE,
    ) -> None:
        self._raw, self.protocol, self._keeps, self._width = raw, dht_protocol(genesis), keeps, width
        self._records = CapabilityRecords(genesis, now_ms)
        self._answered_at_s: dict[NodeId, float] = {}
        host: Any = DhtHost(raw, self.protocol)
        self.table = Table(host, width, keeps=self._is_fresh, serves=self._may_serve, remote_host=raw.remote_host)
        self.providers = Providers(raw.node_id)
        self._library = KadDHT(
            host,
            DHTMode.SERVER,
            validator=NamespacedValidator({RECORD_NAMESPACE: self._records}, strict_validation=True),
            validator_changed=True,
            strict_validation=True,
        )
        self._library.routing_table = self.table
        self.values = self._library.value_store = BoundedValues(host, libp2p_id(raw.node_id), now_ms)
        self._library.provider_store = ProviderStore(self.providers, raw)  # type: ignore[assignment]
        self.gate = Gate(self._judge, self._library.handle_stream, request_max_bytes=DHT_REQUEST_MAX_BYTES, ban=raw.ban)
        self.serving = False
        """Whether others may ask us; `serve` changes it."""
        self._one_at_a_time = trio.Lock()
        self._opened: set[NodeId] = set()
        self._newcomers: set[NodeId] = set()

    # serving --------------------------------------------------------------------------------------------------------

    def serve(self, on: bool) -> None:
        """Answer others, or be a mere client, as who cannot be reached has to be."""
        if on:
            self._raw.accept(self.protocol, self._answer)
        elif self.serving:
            self._raw.refuse(self.protocol)
        self.serving = on

    async def _answer(self, peer: NodeId, stream: NetStream) -> None:
        """Serve a stream; whoever asks for the first time is entered once it has said that it serves, too."""
        await self.gate.handle(peer, stream)
        if self.table.holds(peer) or peer in self._newcomers or len(self._newcomers) >= DHT_NEWCOMERS_MAX:
            return
        self._newcomers.add(peer)
        with trio.move_on_after(DHT_LINGER_S):
            while peer in self._raw.connected() and not self._may_serve(peer):  # noqa: ASYNC110 -- no event for it
                await trio.sleep(DHT_LINGER_S / 10)
        self._newcomers.discard(peer)
        if self._may_serve(peer):
            await self.table.admit(peer)

    def _judge(self, peer: NodeId, raw: bytes) -> Passed | Refused:
        return requests.judge(peer, raw)

    def _may_serve(self, node: NodeId) -> bool:
        return node in self._raw.connected() and self._raw.speaks(node, self.protocol) and bool(self._raw.known(node))

    def _is_fresh(self, node: NodeId) -> bool:
        age_s = trio.current_time() - self._answered_at_s.get(node, float("-inf"))
        return age_s < DHT_FRESH_S or node in self._raw.connected()

    async def meet(self) -> None:
        """Enter connected peers that serve the DHT into the table; asks nobody, so it may be done often."""
        for node in sorted(self._raw.connected()):
            if not self.table.holds(node) and self._may_serve(node):
                await self.table.admit(node)

    def tidy(self) -> None:
        """Forget what is out of date."""
        self.providers.expire(trio.current_time())
        self.values.cleanup_expired()
        for node in self._answered_at_s.keys() - set(self.table.nodes()):
            del self._answered_at_s[node]

    # looking up -----------------------------------------------------------------------------------------------------

    async def find_closest(self, key: bytes) -> Found:
        """Who is closest to `key` in the network."""
        async with self._visit():
            return await self._walk(key, Message.FIND_NODE)

    async def find_node(self, node: NodeId) -> tuple[str, ...]:
        """Where `node` can be dialled, as others tell; empty when nobody knows it."""
        async with self._visit():
            key = peer_id_bytes(node)
            found = await self._walk(key, Message.FIND_NODE, lambda found: node in found.contacts)
            return found.contacts.get(node, ())

    async def find_providers(self, key: bytes, enough: int = FOUND_PEERS_MAX) -> Found:
        """Who provides `key`, without ourselves."""
        async with self._visit():
            return await self._walk(key, Message.GET_PROVIDERS, lambda found: len(found.providers) >= enough)

    async def find_record(self, node: NodeId) -> Signed[Capability] | None:
        """The newest record of `node` among those that its keepers hold."""
        async with self._visit():
            found = await self._walk(record_key(node), Message.GET_VALUE, lambda found: len(found.records) >= 3)
        return max(found.records, key=lambda record: record.message.sent_at_ms, default=None)

    async def provide(self, key: bytes) -> int:
        """Be a provider of `key`; returns how many of the closest peers took it."""
        addresses = self._raw.addresses()
        self.providers.add(key, self._raw.node_id, addresses, "", trio.current_time())
        return await self._hand_out(key, requests.provide(key, self._raw.node_id, addresses))

    async def put_record(self, record: bytes) -> int:
        """Give our own capability record to its keepers; returns how many took it."""
        key = record_key(self._raw.node_id)
        return await self._hand_out(key, requests.put(key, record))

    async def _hand_out(self, key: bytes, message: Message) -> int:
        taken = 0

        async def give(node: NodeId, places: trio.CapacityLimiter) -> None:
            nonlocal taken
            async with places:
                try:
                    await self._ask(node, message)
                    taken += 1
                except CyxError as error:
                    _log.info("dht_store_failed", peer=base58(node), cause=str(error)[:200])

        async with self._visit():
            found = await self._walk(key, Message.FIND_NODE)
            places = trio.CapacityLimiter(DHT_PARALLEL)
            with trio.move_on_after(DHT_LOOKUP_TIMEOUT_S):
                async with trio.open_nursery() as nursery:
                    for node in found.lookup.closest():
                        nursery.start_soon(give, node, places)
        return taken

    async def _walk(self, key: bytes, kind: int, enough: Callable[[Found], bool] = lambda found: False) -> Found:
        """Ask towards `key` until all is known or `enough` is; DHT_LOOKUP_TIMEOUT_S at most."""
        await self.meet()
        near = self.table.find_local_closest_peers(key, self._width)
        found = Found(Lookup(key, self._raw.node_id, self._width))
        found.lookup.begin([node for peer in near if (node := node_of(peer)) is not None])
        question = requests.question(kind, key)
        news, began_s = trio.Event(), trio.current_time()

        async def work() -> None:
            nonlocal news
            while not (found.lookup.over or enough(found)):
                node = found.lookup.next()
                if node is None:
                    await news.wait()
                    continue
                await self._ask_on(node, question, found)
                news.set()
                news = trio.Event()

        with trio.move_on_after(DHT_LOOKUP_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for _ in range(DHT_PARALLEL):
                    nursery.start_soon(work)
        found.took_s = trio.current_time() - began_s
        return found

    async def _ask_on(self, node: NodeId, question: Message, found: Found) -> None:
        """One question of a look-up, and what follows from its answer."""
        if node in found.contacts:
            self._raw.learn(node, found.contacts[node])
        try:
            answer = await self._ask(node, question)
        except CyxError as error:
            _log.debug("dht_question_failed", peer=base58(node), cause=str(error)[:200])
            found.lookup.failed(node)
            self.table.drop(node)
            return
        for contact in answer.closer:
            found.contacts.setdefault(contact.node, contact.addresses)
        self._take(question, answer, found)
        found.lookup.answered(node, (contact.node for contact in answer.closer))

    def _take(self, question: Message, answer: Answer, found: Found) -> None:
        for provider in answer.providers:
            if provider.node != self._raw.node_id and len(found.providers) < FOUND_PEERS_MAX:
                found.providers.setdefault(provider.node, provider.addresses)
        if answer.record:
            with suppress(RemoteError):
                found.records.append(self._records.opened(question.key, answer.record))

    async def _ask(self, node: NodeId, message: Message) -> Answer:
        """One request. PeerUnreachable, or RemoteError when the answer is none."""
        known = node in self._raw.connected()
        raw = b""
        with trio.move_on_after(DHT_QUESTION_TIMEOUT_S):
            raw = await self._exchange(node, message.SerializeToString())
        if not known and node in self._raw.connected():
            self._opened.add(node)
        if not raw:
            raise PeerUnreachable(f"{base58(node)} did not answer in the DHT")
        answer = requests.read_answer(raw, message, self._raw.remote_host(node))
        self._answered_at_s[node] = trio.current_time()
        await self.table.admit(node)
        return answer

    async def _exchange(self, node: NodeId, frame: bytes) -> bytes:
        stream = await self._raw.open(node, self.protocol)
        whole = False
        try:
            await stream.write(varint.encode(len(frame)) + frame)
            raw = await read_varint_prefixed_bytes_limited(stream, DHT_ANSWER_MAX_BYTES)
            await stream.close()
            whole = True
            return raw
        except Exception as error:
            # Reset, end, garbage: the library has many words for it.
            raise PeerUnreachable(f"the DHT of {base58(node)} broke off: {error!r}"[:200]) from None
        finally:
            if not whole:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1), suppress(Exception):
                    await stream.reset()

    @asynccontextmanager
    async def _visit(self) -> AsyncIterator[None]:
        """One look-up at a time; connections that it opened and nobody needs are closed after it."""
        async with self._one_at_a_time:
            try:
                yield
            finally:
                if self._opened:
                    await trio.sleep(DHT_LINGER_S)  # for the last ones to learn who we are
                opened, self._opened = self._opened, set()
                with trio.CancelScope(shield=True):  # `disconnect` is bounded
                    async with trio.open_nursery() as nursery:
                        for node in opened:
                            if not (self._keeps(node) or self._raw.busy(node)):
                                nursery.start_soon(self._raw.disconnect, node)
