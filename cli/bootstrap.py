"""`cyxnode bootstrap run`."""

from __future__ import annotations

from pathlib import Path

import click
import trio

from .paying import send_policy
from .serving import ready_options, run_until_stopped, say_ready
from .settings import (
    BOOTSTRAP_PORT,
    SEEDS_FILE,
    chain_options,
    checked_addresses,
    deny_list_of,
    deny_list_option,
    home_option,
    identity,
    key_options,
    program_id,
)


@click.group()
def bootstrap() -> None:
    """Run a bootstrap node."""


@bootstrap.command("run")
@home_option
@key_options("bootstrap")
@chain_options
@click.option("--bootstrap", multiple=True, help="Address of another bootstrap node.")
@click.option("--listen", default=f"127.0.0.1:{BOOTSTRAP_PORT}", show_default=True, help="HOST:PORT for peers.")
@deny_list_option
@ready_options
def run_bootstrap(
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    bootstrap: tuple[str, ...],
    listen: str,
    deny_list: Path | None,
    as_json: bool,
    until_stdin_closes: bool,
) -> None:
    """A well-known address for newcomers. Its address is written into --home for other commands here."""
    from ..bootstrap.server import open_bootstrap
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc
    from ..p2p.transport import Libp2pTransport
    from .compose import parse_listen
    from .world import SystemClock, SystemRandomness

    peers, denied = checked_addresses(bootstrap), deny_list_of(deny_list)
    pair, _ = identity(home, name, key)
    host, port = parse_listen(listen)

    async def serve() -> None:
        async with open_http_rpc(rpc, send_policy()) as client:
            genesis = (await ChainClient(client, pair, program_id(program)).config()).genesis
        transport = Libp2pTransport(pair, host=host, port=port, deny_list=denied)
        async with (
            transport.run(),
            open_bootstrap(pair, transport, genesis, SystemClock(), SystemRandomness(), peers),
        ):
            addresses = transport.addresses()
            (home / SEEDS_FILE).write_text("".join(f"{address}\n" for address in addresses))
            say_ready(as_json, "bootstrap node ready at\n  " + "\n  ".join(addresses), addresses=addresses)
            await trio.sleep_forever()

    run_until_stopped(serve, until_stdin_closes=until_stdin_closes)
