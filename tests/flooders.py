"""Strangers that do one thing to a network for ever, each with all it has: what floods are made of."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import trio

from cyxnode.p2p.memory import MemoryTransport
from cyxnode.protocol import codec
from cyxnode.protocol.bundle import pack
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.errors import CyxError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import FRAME_MAX_BYTES, GOSSIP_MESSAGE_MAX_BYTES, REQUEST_MAX_BYTES
from cyxnode.protocol.messages import BlobRequest, Capability, Decline, DeclineReason, Heartbeat
from cyxnode.protocol.ports import GossipMessage, GossipVerdict, Stream
from cyxnode.scheduler import wire
from sample_messages import MESSAGES

START_MS = 1_800_000_000_000


@dataclass(slots=True)
class Flooder:
    """A node of its own; `victims` are addresses, `topics` what it may gossip on."""

    key: KeyPair
    transport: MemoryTransport
    genesis: bytes
    victims: Sequence[str]
    topics: Sequence[str]
    rng: random.Random
    blob: str = ""
    """The CID of a large blob that the victims hold."""

    async def meet(self) -> None:
        """Connect to everyone that lets us in."""
        for address in self.victims:
            with suppress(CyxError):
                await self.transport.connect(address)

    async def say(self, data: bytes) -> None:
        """Gossip somewhere."""
        await self.transport.publish(self.rng.choice(self.topics), data)

    def decline(self) -> Decline:
        """About a job that does not exist."""
        return Decline(job=self.rng.randbytes(32), reason=DeclineReason.BUSY, hint="")


Act = Callable[[Flooder], Awaitable[None]]


def _accept(_message: GossipMessage) -> GossipVerdict:
    return GossipVerdict.ACCEPT


async def messages(me: Flooder) -> None:
    """Well-formed messages about nothing."""
    for _ in range(200):
        await me.say(pack([seal(me.key, me.genesis, me.decline())]))


async def garbage(me: Flooder) -> None:
    """Bytes, as many as fit a message."""
    for _ in range(10):
        await me.say(me.rng.randbytes(GOSSIP_MESSAGE_MAX_BYTES))


async def wrong_signatures(me: Flooder) -> None:
    """Messages of another network, and with a flipped bit."""
    for _ in range(50):
        sealed = bytearray(seal(me.key, me.rng.choice([me.genesis, bytes(32)]), me.decline()))
        sealed[-1] ^= 1
        await me.say(pack([bytes(sealed)]))


async def sybil_presence(me: Flooder) -> None:
    """Heartbeats and capabilities of nodes that nobody has staked for, by the hundred."""
    now_ms = START_MS + round(trio.current_time() * 1000)
    sample = next(message for message in MESSAGES if isinstance(message, Heartbeat))
    beat = msgspec.structs.replace(sample, sequence=now_ms, sent_at_ms=now_ms)
    offer = next(message for message in MESSAGES if isinstance(message, Capability))
    for _ in range(100):
        sybil = KeyPair(me.rng.randbytes(32))
        record = msgspec.structs.replace(offer, sequence=now_ms, sent_at_ms=now_ms)
        await me.say(pack([seal(sybil, me.genesis, me.rng.choice([beat, record]))]))


async def replays(me: Flooder) -> None:
    """Whatever was heard on any topic, again and again."""
    heard: list[GossipMessage] = []

    async def listen(topic: str) -> None:
        async with me.transport.subscribe(topic, _accept) as heard_there:
            async for message in heard_there:
                heard.append(message)

    async def repeat() -> None:
        while True:
            await trio.sleep(0.2)
            for message in me.rng.sample(heard[-200:], min(40, len(heard[-200:]))):
                await me.transport.publish(message.topic, message.data)

    async with trio.open_nursery() as nursery:
        for topic in me.topics:
            nursery.start_soon(listen, topic)
        nursery.start_soon(repeat)


async def connections(me: Flooder) -> None:
    """Dial and hang up."""
    for _ in range(20):
        await me.meet()
        for node in me.transport.connected():
            await me.transport.disconnect(node)


async def silent_streams(me: Flooder) -> None:
    """Open streams, as many as go, and say nothing on them."""
    for node in me.transport.connected():
        for protocol in (wire.BLOB, wire.PEERS, wire.SPEC):
            with suppress(CyxError):
                await me.transport.open_stream(node, protocol)


async def unread_answers(me: Flooder) -> None:
    """Ask for much, and read nothing of it."""
    for node in me.transport.connected():
        with suppress(CyxError):
            stream = await me.transport.open_stream(node, wire.BLOB)
            await stream.send(codec.encode(BlobRequest(cid=me.blob, job=b"", state=0)))


async def huge_requests(me: Flooder) -> None:
    """The largest question there may be, on every protocol, and a frame that is none."""
    for node in me.transport.connected():
        for protocol in (wire.PEERS, wire.SPEC, wire.TALLY):
            with suppress(CyxError):
                await me.transport.request(node, protocol, bytes(REQUEST_MAX_BYTES), timeout_s=2)


async def slow_requests(me: Flooder) -> None:
    """Questions that take for ever: a frame a second, and no end."""

    async def drip(stream: Stream) -> None:
        with suppress(CyxError):
            while True:
                await stream.send(bytes(FRAME_MAX_BYTES // 64))
                await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for node in me.transport.connected():
            for _ in range(40):
                with suppress(CyxError):
                    nursery.start_soon(drip, await me.transport.open_stream(node, wire.PEERS))


FLOODS: tuple[Act, ...] = (
    messages, garbage, wrong_signatures, sybil_presence, replays, connections, silent_streams, unread_answers,
    huge_requests, slow_requests,
)  # fmt: skip


async def flood(me: Flooder, act: Act) -> None:
    """`act` for ever, twice a second at most; whoever is thrown out comes back."""
    while True:
        await me.meet()
        with suppress(CyxError):
            await act(me)
        await trio.sleep(0.5)
