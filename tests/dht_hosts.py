"""Many real hosts with a DHT in one process, joined as strangers join: each knows one of those before it."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

import trio

from cyxnode.protocol.envelope import seal
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import Capability
from cyxnode.protocol.units import NodeId

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p.dht import node as dht_node
    from cyxnode.p2p.dht.node import Dht
    from cyxnode.p2p.raw_streams import RawStreams
    from cyxnode.p2p.transport import Libp2pTransport

GENESIS = b"g" * 32
WITHIN_S = 10.0


@dataclass
class Host:
    """One peer."""

    key: KeyPair
    transport: Libp2pTransport
    dht: Dht

    @property
    def node(self) -> NodeId:
        return self.key.node_id

    @property
    def address(self) -> str:
        return self.transport.addresses()[0]

    def record(self, sent_at_ms: int) -> bytes:
        """Its capability record, signed."""
        return seal(self.key, GENESIS, capability(sent_at_ms, self.transport.addresses()))


def capability(sent_at_ms: int, addresses: tuple[str, ...]) -> Capability:
    return Capability(
        sequence=sent_at_ms,
        sent_at_ms=sent_at_ms,
        execution_class=b"c" * 32,
        device="cpu",
        memory_mb=1,
        sandbox="none",
        rate_micro_per_s=1,
        region="",
        datasets=(),
        version="1",
        verifier=True,
        addresses=addresses,
        hardware={},
    )


async def until(condition: object, within_s: float = WITHIN_S) -> None:
    assert callable(condition)
    with trio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 -- any state of a host
            await trio.sleep(0.01)


@asynccontextmanager
async def opened(number: int, *, width: int = 20, serves: bool = True, genesis: bytes = GENESIS) -> AsyncIterator[Host]:
    """A running host."""
    key = KeyPair(number.to_bytes(32, "big"))
    transport = Libp2pTransport(key)
    async with transport.run():
        dht = Dht(RawStreams(transport), genesis, width=width)
        dht.serve(serves)
        yield Host(key, transport, dht)


async def join(newcomer: Host, known: Host) -> None:
    """Be in one another's table."""
    await newcomer.transport.connect(known.address)

    async def met() -> None:
        while not newcomer.dht.table.holds(known.node):
            await newcomer.dht.meet()
            await trio.sleep(0.01)

    with trio.fail_after(WITHIN_S):
        await met()


@asynccontextmanager
async def network(count: int, *, width: int, linger_s: float = 0.2) -> AsyncIterator[list[Host]]:
    """`count` hosts: each dialled one of the earlier ones and looked for its own place."""
    plain, dht_node.DHT_LINGER_S = dht_node.DHT_LINGER_S, linger_s
    rng = Random(7)
    try:
        async with AsyncExitStack() as stack:
            hosts: list[Host] = []
            for number in range(1, count + 1):
                newcomer = await stack.enter_async_context(opened(number, width=width))
                if hosts:
                    await join(newcomer, rng.choice(hosts))
                    await newcomer.dht.find_closest(newcomer.node)
                hosts.append(newcomer)
            yield hosts
    finally:
        dht_node.DHT_LINGER_S = plain
