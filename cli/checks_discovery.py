"""What `cyxnode doctor` asks of the DHT: whether it can be joined, how large it looks, how long a look-up takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog
import trio

from ..p2p.transport import Libp2pTransport
from ..protocol.errors import CyxError
from ..protocol.identity import KeyPair
from ..protocol.limits import LOOKUP_SLOW_S
from .checkup import Finding, fine, warning

log = structlog.get_logger()
_DIAL_S = 8.0


@dataclass(frozen=True, slots=True)
class DhtCheck:
    """Joins as a stranger that does not serve, through the bootstrap addresses."""

    open_transport: Callable[[KeyPair], AbstractAsyncContextManager[Libp2pTransport]]
    genesis: Callable[[], AbstractAsyncContextManager[bytes]]
    addresses: Callable[[], tuple[str, ...]]

    async def dht(self) -> Sequence[Finding]:
        """One look-up of a place of nobody's."""
        from ..p2p.dht.node import Dht
        from ..p2p.raw_streams import RawStreams

        addresses, stranger = self.addresses(), KeyPair.generate()
        if not addresses:
            return [warning("nobody is known through whom to join it", "give --bootstrap ADDRESS, or --mdns on a LAN")]
        async with self.genesis() as genesis, self.open_transport(stranger) as transport:
            dht = Dht(RawStreams(transport), genesis)
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    nursery.start_soon(_try, transport, address)
            with trio.move_on_after(_DIAL_S):
                while transport.connected() and not dht.table.size():
                    await dht.meet()
                    await trio.sleep(0.05)
            if not dht.table.size():
                fix = "see the check of peers; a bootstrap node of this version serves the DHT of its network"
                return [warning("no peer that answers serves the DHT of this network", fix)]
            found = await dht.find_closest(stranger.node_id)
        return [judged(dht.table.size(), len(found.lookup.closest()), found.lookup.asked, found.took_s)]


def judged(table: int, answered: int, asked: int, took_s: float) -> Finding:
    """What the figures of one look-up say."""
    text = f"{table} peers in the table; a look-up asked {asked}, {answered} answered, in {took_s * 1000:.0f} ms"
    if not answered:
        return warning(text, "nobody answered: see whether this machine can dial out")
    if took_s > LOOKUP_SLOW_S:
        return warning(text, "peers near this node are slow or gone; try again in some minutes")
    return fine(text)


async def _try(transport: Libp2pTransport, address: str) -> None:
    with trio.move_on_after(_DIAL_S):
        try:
            await transport.connect(address)
        except CyxError as error:
            log.debug("not reached", address=address, cause=str(error))  # told by the check of peers
