"""Signed messages over a transport: the one place where services seal, open, publish, ask and deliver.

A handler sees only opened envelopes of the kind that it asked for. A refusal that begins with NOT_YET means that the
asker is early: `deliver` and `ask` try again within their time limit, so that parties that are a hop apart in what they
have seen do not miss one another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar

import msgspec
import structlog
import trio

from ..protocol.bundle import bundles
from ..protocol.envelope import Opener, Signed, open_any, open_as, seal
from ..protocol.errors import CyxError, PeerUnreachable, Refusal, RemoteError
from ..protocol.identity import KeyPair
from ..protocol.limits import GOSSIP_QUEUE_MAX, GOSSIP_RECORDS_KNOWN_MAX, REQUEST_TIMEOUT_S, SHUTDOWN_TIMEOUT_S
from ..protocol.messages import Message
from ..protocol.ports import Clock, GossipMessage, GossipVerdict, Transport
from ..protocol.units import NodeId, base58
from ..protocol.validation import check_gossip
from .supervision import contained

M = TypeVar("M", bound=msgspec.Struct)
NOT_YET = "not yet: "
RETRY_FIRST_S = 0.05
RETRY_LAST_S = 1.0
PEERS_PATIENCE_S = 1.0
"""A peer exchange that has failed after longer is not tried again; one over a connection that had just ended is."""

SPEC, START, CLAIM, RESULT = "/cyx/1/spec", "/cyx/1/start", "/cyx/1/claim", "/cyx/1/result"
TALLY, PROPOSAL = "/cyx/1/tally", "/cyx/1/proposal"
ANNOUNCE, CERTIFICATE, OUTCOME = "/cyx/1/announce", "/cyx/1/certificate", "/cyx/1/outcome"
HANDOVER, HANDED_OVER = "/cyx/1/handover", "/cyx/1/handed-over"
COMMIT, OPEN, REVEAL, SETTLE = "/cyx/1/verdict-commit", "/cyx/1/open", "/cyx/1/verdict-reveal", "/cyx/1/settle"
PEERS, BLOB, PROGRESS, TOKENS = "/cyx/1/peers", "/cyx/1/blob", "/cyx/1/progress", "/cyx/1/tokens"

log = structlog.get_logger()


@dataclass(slots=True)
class Wire:
    """A transport with a key, bound to one network."""

    transport: Transport
    key: KeyPair
    genesis: bytes
    clock: Clock
    opener: Opener = open_any
    seek: Callable[[NodeId], Awaitable[None]] | None = None
    """Finds out where a node can be dialled; None for who knows nobody to ask."""
    _posted: dict[str, list[bytes]] = field(default_factory=dict)
    """Records that wait for others of their topic."""

    @property
    def me(self) -> NodeId:
        return self.key.node_id

    def seal(self, message: msgspec.Struct) -> bytes:
        """Our signed envelope around `message`."""
        return seal(self.key, self.genesis, message)

    async def publish(self, topic: str, message: msgspec.Struct, *, window_s: float = 0.0) -> bytes:
        """Sign and gossip; returns the envelope."""
        raw = self.seal(message)
        await self.post(topic, raw, window_s=window_s)
        return raw

    async def post(self, topic: str, *records: bytes, window_s: float = 0.0) -> None:
        """Gossip envelopes of ours, together with whatever else is posted to the topic within `window_s`: 0 is the same
        turn of the scheduler. Returns when they are published; cancelled before, they are not."""
        waiting = self._posted.setdefault(topic, [])
        waiting += records
        try:
            await trio.sleep(window_s)
        except trio.Cancelled:
            waiting[:] = [record for record in waiting if record not in records]
            raise
        # Who wakes first takes everything along; a record in a hurry, those that still wait. They are not its own, so
        # that whatever cancels it must not lose them.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SHUTDOWN_TIMEOUT_S):
            for bundle in bundles(self._posted.pop(topic, ())):
                await self.transport.publish(topic, bundle)

    def serve(
        self, protocol: str, kind: type[M], handler: Callable[[Signed[M]], Awaitable[msgspec.Struct | None]]
    ) -> None:
        """Answer requests that carry a `kind` signed by the peer that sends it."""

        async def answer(peer: NodeId, payload: bytes) -> bytes:
            signed = open_as(payload, self.genesis, kind)
            if signed.sender != peer:
                raise Refusal("the envelope is not signed by the peer that sent it", peer=peer)
            reply = await handler(signed)
            return b"" if reply is None else self.seal(reply)

        self.transport.serve(protocol, answer)

    async def deliver(self, node: NodeId, protocol: str, raw: bytes, *, within_s: float = REQUEST_TIMEOUT_S) -> bytes:
        """Hand an envelope to a peer, trying again while it is unreachable or not ready. Whoever cannot be reached the
        second time, when it was not a connection that had just ended, is looked for once."""
        deadline, pause_s, failures = trio.current_time() + within_s, RETRY_FIRST_S, 0
        while True:
            left = deadline - trio.current_time()
            try:
                return await self.transport.request(node, protocol, raw, timeout_s=max(0.05, left))
            except (Refusal, PeerUnreachable) as error:
                early = isinstance(error, PeerUnreachable) or str(error).startswith(NOT_YET)
                if protocol == PEERS and deadline - trio.current_time() < within_s - PEERS_PATIENCE_S:
                    early = False  # nobody is waited for who may be gone: exchanges come again
                if not early or trio.current_time() + pause_s >= deadline:
                    raise
                failures += isinstance(error, PeerUnreachable)
                if failures == 2 and isinstance(error, PeerUnreachable) and protocol != PEERS:
                    with trio.move_on_at(deadline):
                        await self.find(node)
                else:
                    await trio.sleep(pause_s)
                pause_s = min(RETRY_LAST_S, 2 * pause_s)

    async def find(self, *nodes: NodeId) -> None:
        """Look for nodes that we shall have to talk to, at once."""
        if self.seek is not None:
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(self.seek, node)

    async def ask(
        self,
        node: NodeId,
        protocol: str,
        message: msgspec.Struct,
        kind: type[M],
        *,
        within_s: float = REQUEST_TIMEOUT_S,
    ) -> Signed[M]:
        """Send a message, and open the answer, which must be a `kind` signed by the peer."""
        answer = open_as(await self.deliver(node, protocol, self.seal(message), within_s=within_s), self.genesis, kind)
        if answer.sender != node:
            raise RemoteError("the answer is signed by somebody else", peer=node)
        return answer

    async def tell_all(self, nodes: tuple[NodeId, ...], protocol: str, raw: bytes, *, within_s: float) -> None:
        """Deliver to several peers at once; who cannot be reached is logged and left."""

        async def tell(node: NodeId) -> None:
            try:
                await self.deliver(node, protocol, raw, within_s=within_s)
            except CyxError as error:
                log.warning("not delivered", protocol=protocol, peer=base58(node), cause=str(error))

        async with trio.open_nursery() as nursery:
            for node in dict.fromkeys(nodes):
                if node != self.me:
                    nursery.start_soon(tell, node)

    async def tell_all_within(self, nodes: tuple[NodeId, ...], protocol: str, raw: bytes, within_s: float) -> None:
        """`tell_all` with positional arguments, for tasks."""
        await self.tell_all(nodes, protocol, raw, within_s=within_s)

    def attend(
        self, topic: str, kinds: tuple[type[Message], ...], hear: Callable[[Signed[msgspec.Struct]], None]
    ) -> AbstractAsyncContextManager[object]:
        """Join a topic while the context is open; `hear` is called with each message that the gossip rules accept.

        For what is frequent and quickly dealt with: nothing waits in a queue, and no task wakes.
        """

        known = Known()

        def validate(message: GossipMessage) -> GossipVerdict:
            verdict, records = self._judged(topic, kinds, message)
            for signed in records:
                if known.add(signed.raw):
                    contained(hear, signed)
            return GossipVerdict.TAKEN if verdict is GossipVerdict.ACCEPT else verdict

        return self.transport.subscribe(topic, validate)

    def _judged(
        self, topic: str, kinds: tuple[type[Message], ...], message: GossipMessage
    ) -> tuple[GossipVerdict, tuple[Signed[msgspec.Struct], ...]]:
        now_ms = self.clock.unix_ms()
        verdict, records, reason = check_gossip(message.data, self.genesis, kinds, now_ms, self.opener)
        if reason:
            log.info("gossip dropped", topic=topic, peer=base58(message.forwarder), cause=reason)
        return verdict, records

    @asynccontextmanager
    async def listen(
        self, topic: str, kinds: tuple[type[Message], ...]
    ) -> AsyncIterator[AsyncIterator[Signed[Message]]]:
        """Join a topic; yields the opened messages that the gossip rules accept, each once."""
        opened: OrderedDict[bytes, tuple[Signed[msgspec.Struct], ...]] = OrderedDict()
        known = Known()

        def validate(message: GossipMessage) -> GossipVerdict:
            verdict, records = self._judged(topic, kinds, message)
            if records:
                opened[message.data] = records
                if len(opened) > 2 * GOSSIP_QUEUE_MAX:
                    opened.popitem(last=False)
            return verdict

        async def messages(source: AsyncIterator[GossipMessage]) -> AsyncIterator[Signed[Message]]:
            async for message in source:
                for signed in opened.pop(message.data, ()):
                    if isinstance(signed.message, Message) and known.add(signed.raw):
                        yield Signed(signed.sender, signed.message, signed.raw)

        async with self.transport.subscribe(topic, validate) as source:
            yield messages(source)


class Known:
    """Records that were dispatched, by digest: one that comes again in another message is passed on and not heard."""

    def __init__(self) -> None:
        self._digests: OrderedDict[bytes, None] = OrderedDict()

    def add(self, record: bytes) -> bool:
        """Remember a record; whether it is new."""
        digest = sha256(record).digest()
        if digest in self._digests:
            return False
        self._digests[digest] = None
        if len(self._digests) > GOSSIP_RECORDS_KNOWN_MAX:
            self._digests.popitem(last=False)
        return True
