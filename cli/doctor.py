"""`cyxnode doctor`: what would keep a node from working here, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import click
import trio

from .paying import send_policy
from .seeding import IN_HOME, SeedSources, seed_options, seeds
from .settings import chain_options, home_option, key_options, program_id

DOCTOR_FOUND_FAILURES = 9
_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}


@click.command()
@home_option
@key_options("node")
@chain_options
@seed_options(IN_HOME)
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HOST:PORT where `cyxnode run` will listen.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def doctor(
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    bootstrap: SeedSources,
    listen: str,
    as_json: bool,
) -> int:
    """Examine machine, chain, wallet and peers, and change nothing. Exit code 9: a node could not work here."""
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import HttpRpc, open_http_rpc
    from ..p2p.transport import Libp2pTransport
    from ..protocol.errors import LocalError
    from ..protocol.identity import KeyPair, load_key
    from . import checks_machine as machine
    from .checks_discovery import DhtCheck
    from .checks_network import ChainChecks, PeerChecks
    from .checks_reach import ReachChecks
    from .checkup import Check, Finding, Level, aside, examine
    from .compose import parse_listen
    from .world import SystemClock

    host, port = parse_listen(listen)
    escrow, policy, folder = program_id(program), send_policy(), home / name
    path = key or folder / "key.json"
    try:
        node = load_key(path).node_id if path.exists() else None
    except LocalError:
        node = None  # told by the check of the key

    @asynccontextmanager
    async def open_rpc() -> AsyncIterator[HttpRpc]:
        async with open_http_rpc(rpc, policy) as opened:
            yield opened

    @asynccontextmanager
    async def genesis() -> AsyncIterator[bytes]:
        async with open_rpc() as opened:
            yield (await ChainClient(opened, KeyPair.generate(), escrow).config()).genesis

    @asynccontextmanager
    async def open_transport(stranger: KeyPair) -> AsyncIterator[Libp2pTransport]:
        async with Libp2pTransport(stranger).run() as transport:
            yield transport

    @asynccontextmanager
    async def open_listening() -> AsyncIterator[Libp2pTransport]:
        async with Libp2pTransport(KeyPair.generate(), host=host, port=port).run() as transport:
            yield transport

    def addresses() -> tuple[str, ...]:
        return seeds(home, bootstrap, folder)

    port_tried = trio.Event()

    async def try_port() -> Sequence[Finding]:
        try:
            return await aside(lambda: machine.check_port(host, port))()
        finally:
            port_tried.set()

    async def be_dialled() -> Sequence[Finding]:
        await port_tried.wait()  # both listen there for a moment
        return await reach.reach()

    chain = ChainChecks(open_rpc, escrow, SystemClock(), node)
    peers = PeerChecks(open_transport, SystemClock(), genesis, addresses)
    reach = ReachChecks(open_listening, addresses, listen, port)
    discovery = DhtCheck(open_transport, genesis, addresses)
    checks = (
        Check("python", aside(machine.check_python)),
        Check("packages", aside(machine.check_packages)),
        Check("disk", aside(lambda: machine.check_disk(home))),
        Check("key", aside(lambda: machine.check_key(path))),
        Check("journal", aside(lambda: machine.check_journal(folder))),
        Check("sandbox", aside(machine.check_sandbox)),
        Check("gpu", aside(machine.check_gpu)),
        Check("port", try_port),
        Check("rpc", chain.rpc),
        Check("genesis", chain.genesis),
        Check("clock", chain.time),
        Check("wallet", chain.wallet),
        Check("peers", peers.peers),
        Check("reach", be_dialled),
        Check("dht", discovery.dht),
    )
    found = trio.run(examine, checks)
    if as_json:
        rows = [{"check": n, "level": f.level.value, "text": f.text, "fix": f.fix} for n, f in found]
        click.echo(json.dumps(rows))
    else:
        for check, one in found:
            level = click.style(f"{one.level.value:8}", fg=_COLOURS[one.level.value])
            click.echo(f"{level} {check:9} {one.text}" + (f" (fix: {one.fix})" if one.fix else ""))
    return DOCTOR_FOUND_FAILURES if any(one.level is Level.FAILURE for _, one in found) else 0
