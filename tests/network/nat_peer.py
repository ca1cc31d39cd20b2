"""One real transport, told what to do by lines of JSON on standard input: `[name, argument, ...]` -> `{"value":
...}`."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import structlog
import trio

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p.links import is_relayed, links
    from cyxnode.p2p.transport import Libp2pTransport

from cyxnode.protocol.errors import CyxError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.ports import GossipMessage, GossipVerdict
from cyxnode.protocol.units import NodeId

PORT = 4001
ECHO, TOPIC = "/cyx/1/echo", "cyx/1/jobs/nat"


def node(number: int) -> NodeId:
    return KeyPair(number.to_bytes(32, "big")).node_id


async def echo(_peer: NodeId, payload: bytes) -> bytes:
    return payload


class Peer:
    """What can be asked."""

    def __init__(self, transport: Libp2pTransport) -> None:
        self.transport, self.heard = transport, 0

    async def addresses(self) -> list[str]:
        return list(self.transport.addresses())

    async def connect(self, address: str) -> bool:
        await self.transport.connect(address)
        return True

    async def learn(self, number: int, addresses: list[str]) -> bool:
        self.transport.learn(node(number), addresses)
        return True

    async def ask(self, number: int, size: int = 2) -> bool:
        payload = b"a" * size
        return await self.transport.request(node(number), ECHO, payload, timeout_s=20) == payload

    async def standing(self) -> dict[str, Any]:
        now = self.transport.reach_report
        return {
            "verdict": now.verdict.value,
            "mapping": now.mapping.value,
            "relays": len(now.relays),
            "seen_as": list(now.seen_as),
        }

    async def verdict(self) -> str:
        return self.transport.reach_report.verdict.value

    async def relays(self) -> int:
        return len(self.transport.reach_report.relays)

    async def links(self, number: int) -> list[str]:
        found = links(self.transport._network, node(number))
        return sorted("relayed" if is_relayed(one) else "direct" for one in found)

    async def say(self) -> bool:
        await self.transport.publish(TOPIC, b"hello")
        return True

    async def heard_of(self) -> int:
        return self.heard


async def main(host: str, number: int, relay: bool) -> None:
    transport = Libp2pTransport(KeyPair(number.to_bytes(32, "big")), host=host, port=PORT, relay=relay)
    peer = Peer(transport)
    transport.serve(ECHO, echo)

    def accept(_message: GossipMessage) -> GossipVerdict:
        return GossipVerdict.ACCEPT

    async def listen() -> None:
        async with transport.subscribe(TOPIC, accept) as messages:
            async for _ in messages:
                peer.heard += 1

    async with transport.run(), trio.open_nursery() as nursery, trio.lowlevel.FdStream(0) as stdin:
        nursery.start_soon(listen)
        print(json.dumps({"value": True}), flush=True)
        buffer = b""
        while more := await stdin.receive_some(65_536):
            *lines, buffer = (buffer + more).split(b"\n")
            for line in lines:
                name, *arguments = json.loads(line)
                try:
                    answer = {"value": await getattr(peer, name)(*arguments)}
                except CyxError as error:
                    answer = {"error": str(error)}
                print(json.dumps(answer), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["relay"])
