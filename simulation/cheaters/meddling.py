"""Hands in a peer's network and in its runner: what it sends, publishes, answers and computes passes a cheat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ...protocol.bundle import pack, unpack
from ...protocol.envelope import Signed, open_any, seal
from ...protocol.errors import PeerUnreachable, RemoteError
from ...protocol.ports import (
    Comparison,
    GossipMessage,
    GossipValidator,
    GossipVerdict,
    Replay,
    RequestHandler,
    ResultCheck,
    Runner,
    RunnerSession,
    TrainDone,
    TrainEvent,
    TrainTask,
    Transport,
)
from ...protocol.units import NodeId
from ...scheduler.node import Ports
from ..world import Peer
from .cheat import Cheat

Emit = Callable[[TrainEvent], Awaitable[None]]
Wrap = Callable[[RunnerSession, TrainTask], RunnerSession]


@dataclass
class Session:
    """Passes everything on to an inner session."""

    inner: RunnerSession
    task: TrainTask

    async def train(self, emit: Emit) -> TrainDone:
        """As the inner session's."""
        return await self.inner.train(emit)

    async def initial_state(self) -> bytes:
        """As the inner session's."""
        return await self.inner.initial_state()

    async def replay(self, segment: int, state: bytes) -> Replay:
        """As the inner session's."""
        return await self.inner.replay(segment, state)

    async def compare(self, segment: int, state: bytes, claimed: bytes) -> Comparison:
        """As the inner session's."""
        return await self.inner.compare(segment, state, claimed)

    async def check_result(self, final_state: bytes, weights: bytes) -> ResultCheck:
        """As the inner session's."""
        return await self.inner.check_result(final_state, weights)


@dataclass(frozen=True)
class DressedRunner:
    """A runner whose sessions are wrapped."""

    inner: Runner
    wrap: Wrap

    @property
    def execution_class(self) -> bytes:
        """The inner runner's."""
        return self.inner.execution_class

    @property
    def description(self) -> dict[str, str]:
        """The inner runner's."""
        return self.inner.description

    def prepare(self) -> None:
        """As the inner runner's."""
        self.inner.prepare()

    def session(self, task: TrainTask) -> AbstractAsyncContextManager[RunnerSession]:
        """A wrapped session."""
        return self._session(task)

    @asynccontextmanager
    async def _session(self, task: TrainTask) -> AsyncIterator[RunnerSession]:
        async with self.inner.session(task) as inner:
            yield self.wrap(inner, task)


class Meddler(Cheat):
    """A cheat with a hand in its peer's transport. What a hook leaves alone passes as it is."""

    def dress(self, peer: Peer, ports: Ports, runner: Runner) -> tuple[Ports, Runner]:
        """The node gets the dressed transport; `self.ports` keeps the plain one."""
        ports, runner = super().dress(peer, ports, runner)
        return replace(ports, transport=_Dressed(ports.transport, self)), runner

    @property
    def transport(self) -> Transport:
        """The plain transport of the current life."""
        assert self.ports is not None
        return self.ports.transport

    async def sends(self, node: NodeId, protocol: str, payload: bytes) -> bytes | None:
        """What is asked of `node` instead of `payload`; None for nothing."""
        return payload

    async def publishes(self, topic: str, data: bytes) -> bytes | None:
        """What is gossiped instead of the record `data`; None for nothing."""
        return data

    async def answers(self, node: NodeId, protocol: str, payload: bytes, handler: RequestHandler) -> bytes:
        """What `node` gets for its request."""
        return await handler(node, payload)

    def hears(self, message: GossipMessage) -> None:
        """Told of all gossip that arrives, record by record."""

    async def gossips(self, topic: str, *records: bytes) -> None:
        """Publish past the hooks, in one message."""
        await self.transport.publish(topic, pack(records))

    def seal(self, message: msgspec.Struct) -> bytes:
        """An envelope in the peer's own name."""
        return seal(self.peer.key, self.genesis, message)

    def open(self, data: bytes) -> Signed[Any]:
        """Open any envelope; RemoteError when it is none."""
        return open_any(data, self.genesis)


class _Dressed:
    """A transport whose traffic passes a Meddler."""

    def __init__(self, plain: Transport, cheat: Meddler) -> None:
        self._plain, self._cheat = plain, cheat

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    @property
    def node_id(self) -> NodeId:
        return self._plain.node_id

    async def request(self, node: NodeId, protocol: str, payload: bytes, *, timeout_s: float) -> bytes:
        changed = await self._cheat.sends(node, protocol, payload)
        if changed is None:
            raise PeerUnreachable("the cheater sends nothing")
        return await self._plain.request(node, protocol, changed, timeout_s=timeout_s)

    async def publish(self, topic: str, data: bytes) -> None:
        changed = [await self._cheat.publishes(topic, record) for record in unpack(data)]
        if records := [record for record in changed if record is not None]:
            await self._plain.publish(topic, pack(records))

    def serve(self, protocol: str, handler: RequestHandler) -> None:
        async def answer(node: NodeId, payload: bytes) -> bytes:
            return await self._cheat.answers(node, protocol, payload, handler)

        self._plain.serve(protocol, answer)

    def subscribe(
        self, topic: str, validator: GossipValidator
    ) -> AbstractAsyncContextManager[AsyncIterator[GossipMessage]]:
        def listen(message: GossipMessage) -> GossipVerdict:
            with suppress(RemoteError):  # others cheat, too
                for record in unpack(message.data):
                    self._cheat.hears(replace(message, data=record))
            return validator(message)

        return self._plain.subscribe(topic, listen)
