"""Peers that harm the network itself: floods, old messages, and a wall around whoever asks them."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

import trio

from ...protocol.bundle import pack
from ...protocol.errors import CyxError, RemoteError
from ...protocol.limits import DEAD_AFTER_MS, PEER_EXCHANGE_MAX
from ...protocol.messages import Decline, DeclineReason, Heartbeat, PeersAnswer
from ...protocol.ports import GossipMessage, RequestHandler, Runner
from ...protocol.units import NodeId
from ...scheduler.node import Ports
from ...scheduler.wire import PEERS
from ..world import Peer
from .cheat import Ending, Fate
from .meddling import Meddler

BURST_INTERVAL_S = 5.0
BURSTS_MAX = 12
VALID_PER_BURST, INVALID_PER_BURST = 60, 8
"""More heartbeats, and over time more declines, than gossip lets one author say."""
SETTLING_S = 2.0
"""How long after a try its effect is looked for."""
REMEMBERED_MAX = 512
REPLAYS_PER_ROUND = 4
REPLAY_INTERVAL_S = 7.0


def plain_transport(peer: Peer) -> Any:
    """The in-memory transport of a living peer, under whatever dresses it."""
    assert peer.node is not None
    return peer.node.context.wire.transport


class Spammer(Meddler):
    """Floods its topics with well-formed messages about nothing and with garbage. A try is a burst.

    It is caught when an honest node has banned it for the garbage, and paid when an honest node lost a message of
    others because its queue overflowed.
    """

    name: ClassVar[str] = "spammer"
    role = "network"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fates: dict[bytes, Fate] = {}
        self.topics: dict[str, str] = {}

    def hears(self, message: GossipMessage) -> None:
        """Learns the names of its topics."""
        self.topics[message.topic.split("/")[2]] = message.topic

    async def act(self) -> None:
        """BURSTS_MAX bursts; what is already banned spams in the dark."""
        for number in range(BURSTS_MAX):
            await trio.sleep(BURST_INTERVAL_S)
            if self.peer.node is None:
                continue
            key = number.to_bytes(4, "little")
            self.tried(key)
            lost = self._lost()
            await self._burst()
            await trio.sleep(SETTLING_S)
            banned = any(self.me in plain_transport(peer)._bans for peer in self.honest())
            self.fates[key] = Fate.PAID if self._lost() > lost else Fate.CAUGHT if banned else Fate.NEITHER

    def _lost(self) -> int:
        topics = [plain_transport(peer)._subscriptions._topics for peer in self.honest()]
        return sum(one.dropped for subscriptions in topics for one in subscriptions.values())

    async def _burst(self) -> None:
        for number in range(VALID_PER_BURST):
            decline = Decline(job=self.rng.randbytes(32), reason=DeclineReason.BUSY, hint="")
            now_ms = self.peer.clock.unix_ms()
            beat = Heartbeat(
                sequence=now_ms + number,
                sent_at_ms=now_ms,
                status="idle",
                queue_length=0,
                running=0,
                load_ppm=0,
                shards=1,
                membership_digest=self.rng.randbytes(32),
            )
            await self._publish("market", pack([self.seal(decline)]))
            await self._publish("presence", pack([self.seal(beat)]))
        for _ in range(INVALID_PER_BURST):
            await self._publish("presence", self.rng.randbytes(200))

    async def _publish(self, kind: str, data: bytes) -> None:
        if kind in self.topics:
            await self.transport.publish(self.topics[kind], data)

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """As found right after the burst."""
        return self.fates.get(key, Fate.NEITHER)


class Replayer(Meddler):
    """Sends old messages of others again: gossip to all, requests to whoever might believe them.

    A request is caught when it is refused. Gossip is caught unless somebody believes it: a node that has been dead for
    long counts as alive again, or a job has a second room.
    """

    name: ClassVar[str] = "replayer"
    role = "network"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gossip: deque[GossipMessage] = deque(maxlen=REMEMBERED_MAX)
        self.requests: deque[tuple[str, bytes]] = deque(maxlen=REMEMBERED_MAX)
        self.fates: dict[bytes, Fate] = {}
        self.gone_since: dict[NodeId, float] = {}

    def hears(self, message: GossipMessage) -> None:
        """Takes everything down."""
        self.gossip.append(message)

    async def answers(self, node: NodeId, protocol: str, payload: bytes, handler: RequestHandler) -> bytes:
        """Takes down what others ask, and answers honestly."""
        if protocol != PEERS:
            self.requests.append((protocol, payload))
        return await super().answers(node, protocol, payload, handler)

    async def act(self) -> None:
        """A few of each every REPLAY_INTERVAL_S, until the world ends."""
        while True:
            await trio.sleep(REPLAY_INTERVAL_S)
            self._note_deaths()
            if self.peer.node is None:
                continue
            old = list(self.gossip)[: REMEMBERED_MAX // 2]
            for message in self.rng.sample(old, min(REPLAYS_PER_ROUND, len(old))):
                await self._gossip_again(message)
            for protocol, payload in self.rng.sample(list(self.requests), min(2, len(self.requests))):
                await self._ask_again(protocol, payload)

    def _note_deaths(self) -> None:
        for peer in self.world.peers:
            if peer.node is not None:
                self.gone_since.pop(peer.node_id, None)
            else:
                self.gone_since.setdefault(peer.node_id, trio.current_time())

    async def _gossip_again(self, message: GossipMessage) -> None:
        key = len(self.attempts).to_bytes(4, "little")
        self.tried(key, 1.0)
        believed = self._believed(message.author)
        await self.gossips(message.topic, message.data)
        await trio.sleep(SETTLING_S)
        self.fates[key] = Fate.PAID if self._believed(message.author) > believed else Fate.CAUGHT

    def _believed(self, author: NodeId) -> int:
        """How many honest nodes take a long dead author for alive."""
        gone = trio.current_time() - self.gone_since.get(author, float("inf"))
        if gone < DEAD_AFTER_MS / 1000:
            return 0
        return sum(author in peer.node.presence.alive() for peer in self.honest() if peer.node is not None)

    async def _ask_again(self, protocol: str, payload: bytes) -> None:
        victims = self.honest()
        if not victims:
            return
        key = len(self.attempts).to_bytes(4, "little")
        self.tried(key, 1.0)
        try:
            await self.transport.request(self.rng.choice(victims).node_id, protocol, payload, timeout_s=SETTLING_S)
        except RemoteError:
            self.fates[key] = Fate.CAUGHT
        except CyxError:
            return
        else:
            self.fates[key] = Fate.PAID

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """As found right after the try."""
        return self.fates.get(key, Fate.NEITHER)


class Eclipse(Meddler):
    """Tells whoever asks for peers of its own gang only, and forwards nothing. A try is a victim that asked.

    It is paid when at the end the victim knows and is connected to nobody but the gang.
    """

    name: ClassVar[str] = "eclipse"
    role = "network"

    def dress(self, peer: Peer, ports: Ports, runner: Runner) -> tuple[Ports, Runner]:
        """Also stops the transport from forwarding."""
        transport: Any = ports.transport
        spread, me = transport._spread, peer.node_id
        transport._spread = lambda flood, *links: spread(flood, *links) if flood.author == me else 0
        return super().dress(peer, ports, runner)

    async def answers(self, node: NodeId, protocol: str, payload: bytes, handler: RequestHandler) -> bytes:
        """The gang's records, in a well-formed answer."""
        honest = await super().answers(node, protocol, payload, handler)
        if protocol != PEERS:
            return honest
        self.tried(node, 1.0)
        living = [one.peer.node.presence.own_record for one in self.gang if one.peer.node is not None]
        records = tuple(record for record in living if record)[:PEER_EXCHANGE_MAX]
        return self.seal(PeersAnswer(records=records, silent_ms=(0,) * len(records)))

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By whom the victim knows at the end."""
        victim = next((peer for peer in self.honest() if peer.node_id == key), None)
        if victim is None or victim.node is None:
            return Fate.NEITHER
        others = {peer.node_id for peer in self.honest()} - {victim.node_id}
        known = set(victim.node.presence.alive()) & others
        return Fate.CAUGHT if known and victim.node.context.wire.transport.connected() & others else Fate.PAID
