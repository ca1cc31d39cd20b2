"""The composition root: builds nodes from the real ports.

Here and nowhere else it is decided that the network is libp2p, the chain an RPC server, the runner a sandboxed process
and the journal LevelDB.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..bootstrap.discovery import Ways, open_discovery
from ..ledger.chain_client import ChainClient
from ..ledger.faucet import request_airdrop, request_tokens
from ..ledger.http_rpc import open_http_rpc
from ..ledger.journal import LevelJournal
from ..p2p.addresses import parse_address
from ..p2p.bans import Bans
from ..p2p.blob_store import FileBlobs
from ..p2p.deny_list import DenyList
from ..p2p.reachability import Verdict, is_public
from ..p2p.transport import Libp2pTransport
from ..protocol.errors import LocalError
from ..protocol.identity import KeyPair
from ..protocol.limits import MICRO, REACH_PATIENCE_S
from ..protocol.ports import Transport
from ..protocol.units import base58
from ..scheduler.known_peers import KnownPeers
from ..scheduler.node import Ports
from .paying import send_policy
from .seeding import nobody_known
from .world import SystemClock, SystemRandomness

if TYPE_CHECKING:
    from ..scheduler.requester_service import News, RequesterService

FAUCET_LAMPORTS = 1_000_000_000
FAUCET_MICRO_CYX = 200 * MICRO
BLOB_QUOTA_BYTES = 50 * 1024**3


@dataclass(frozen=True, slots=True)
class Place:
    """Where an identity listens, and where it finds its chain and its peers."""

    rpc: str
    program: bytes
    bootstrap: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 0
    announce: tuple[str, ...] = ()
    deny_list: DenyList | None = None
    lan: bool = False
    """Whether peers may be found by mDNS, so that nobody need be known at the start."""


@asynccontextmanager
async def open_ports(key: KeyPair, folder: Path, place: Place, *, faucet: bool) -> AsyncIterator[Ports]:
    """All real ports of one identity. `faucet` asks the local chain for SOL and CYX where they are short."""
    journal = LevelJournal(folder / "journal")
    try:
        if not place.bootstrap and not place.lan and not KnownPeers(journal, SystemClock()).latest():
            raise nobody_known(folder.parent)
        async with open_http_rpc(place.rpc, send_policy()) as rpc:
            chain = ChainClient(rpc, key, place.program)
            await chain.config()
            if faucet:
                balance = await chain.balance(key.node_id)
                if balance.lamports < FAUCET_LAMPORTS // 2:
                    await request_airdrop(rpc, key.node_id, FAUCET_LAMPORTS)
                if balance.micro_cyx < FAUCET_MICRO_CYX // 2 and await chain.node(key.node_id) is None:
                    await request_tokens(rpc, key.node_id, FAUCET_MICRO_CYX)
            blobs = FileBlobs(folder / "data", BLOB_QUOTA_BYTES)
            transport = Libp2pTransport(
                key,
                host=place.host,
                port=place.port,
                announce=place.announce,
                deny_list=place.deny_list,
                bans=Bans(journal),
            )
            async with transport.run():
                yield Ports(key, transport, chain, blobs, journal, SystemClock(), SystemRandomness())
    finally:
        journal.close()


@asynccontextmanager
async def open_client(
    key: KeyPair, folder: Path, place: Place, observe: Callable[[News], None], *, faucet: bool = False
) -> AsyncIterator[RequesterService]:
    """A requester on the real network, which looks into the DHT when it is short of peers, and serves nobody there."""
    from ..scheduler.requester import open_requester

    async with (
        open_ports(key, folder, place, faucet=faucet) as ports,
        open_requester(ports, place.bootstrap, observe) as service,
        open_discovery(figured(ports.transport), service.presence, Ways(serves=False)),
    ):
        await _be_reachable(figured(ports.transport), place.bootstrap)
        yield service


async def _be_reachable(transport: Libp2pTransport, bootstrap: tuple[str, ...]) -> None:
    """A requester tells its addresses once, with the job: who is on the internet without an address of it waits until a
    relay has a place, or others have dialled it, for REACH_PATIENCE_S at most."""
    roots = [parse_address(text) for text in bootstrap]
    if not any(at.network.startswith("dns") or is_public(at.host) for at in roots) or any(
        is_public(parse_address(text).host) for text in transport.addresses()
    ):
        return
    with trio.move_on_after(REACH_PATIENCE_S):
        while transport.reach_report.leaning is not Verdict.REACHABLE and not transport.reach_report.relays:
            await transport.reach_changed.wait()


def parse_listen(text: str, field: str = "listen") -> tuple[str, int]:
    """'127.0.0.1:4001' -> (host, port)."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise LocalError(f"{text!r} is not HOST:PORT", field=field, fix="write it like 127.0.0.1:4001")
    return host.strip("[]"), int(port)


def figured(transport: Transport) -> Libp2pTransport:
    """The transport of real ports as what it is, for its figures."""
    assert isinstance(transport, Libp2pTransport)
    return transport


def name_of(key: KeyPair) -> str:
    """The public id of a key."""
    return base58(key.node_id)
