"""`cyxnode bootstrap run | list sign | list verify`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click
import trio

from ..protocol.limits import SEED_LIST_DAYS_MAX
from ..protocol.units import base58
from .discovering import mdns_option, wants_lan
from .paying import send_policy
from .seeding import SeedSources, seed_options, seeds
from .serving import metrics_option, ready_options, run_until_told, say_ready
from .settings import (
    BOOTSTRAP_PORT,
    SEEDS_FILE,
    chain_options,
    deny_list_of,
    deny_list_option,
    home_option,
    identity,
    key_options,
    program_id,
)


@click.group()
def bootstrap() -> None:
    """Run a bootstrap node, and publish lists of them."""


@bootstrap.command("run")
@home_option
@key_options("bootstrap")
@chain_options
@seed_options("; other bootstrap nodes", environment=False)
@click.option("--listen", default=f"127.0.0.1:{BOOTSTRAP_PORT}", show_default=True, help="HOST:PORT for peers.")
@deny_list_option
@mdns_option
@metrics_option
@ready_options
def run_bootstrap(
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    bootstrap: SeedSources,
    listen: str,
    deny_list: Path | None,
    mdns: bool | None,
    metrics: str | None,
    as_json: bool,
    until_stdin_closes: bool,
) -> None:
    """A well-known address for newcomers. Its address is written into --home for other commands here. It calls nodes
    back that want to know whether they can be reached, and carries connections to those that cannot.

    At SIGTERM it lets nobody in any more, finishes what it was asked, hangs up and ends within 5 s.
    """
    from ..bootstrap.discovery import Ways, open_discovery
    from ..bootstrap.server import open_bootstrap
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc
    from ..ledger.journal import LevelJournal
    from ..p2p.bans import Bans
    from ..p2p.transport import Libp2pTransport
    from .compose import parse_listen
    from .metrics import Gauges
    from .metrics_server import open_metrics
    from .world import SystemClock, SystemRandomness

    peers = seeds(home, bootstrap) if bootstrap != SeedSources() else ()
    denied = deny_list_of(deny_list)
    pair, folder = identity(home, name, key)
    host, port = parse_listen(listen)

    figures = parse_listen(metrics, "metrics") if metrics else None

    async def serve(told: trio.Event) -> None:
        async with open_http_rpc(rpc, send_policy()) as client:
            genesis = (await ChainClient(client, pair, program_id(program)).config()).genesis
        with closing(LevelJournal(folder / "journal")) as journal:
            await light(told, genesis, Bans(journal))

    async def light(told: trio.Event, genesis: bytes, bans: Bans) -> None:
        transport = Libp2pTransport(pair, host=host, port=port, deny_list=denied, bans=bans, relay=True)
        async with (
            transport.run(),
            open_bootstrap(pair, transport, genesis, SystemClock(), SystemRandomness(), peers) as presence,
            open_discovery(transport, presence, Ways(point=True, lan=wants_lan(host, mdns))) as discovery,
            open_metrics(figures, Gauges(transport, presence, discovery=discovery)) as url,
        ):
            addresses = transport.addresses()
            (home / SEEDS_FILE).write_text("".join(f"{address}\n" for address in addresses))
            text = (
                "bootstrap node ready at\n  " + "\n  ".join(addresses) + (f"\n  metrics {url}/metrics" if url else "")
            )
            say_ready(as_json, text, addresses=addresses, metrics=url)
            await told.wait()
            await transport.drain()

    run_until_told(serve, until_stdin_closes=until_stdin_closes)


@bootstrap.group("list")
def seed_list() -> None:
    """Signed lists of bootstrap addresses."""


@seed_list.command("sign")
@click.argument("addresses", nargs=-1, required=True)
@home_option
@key_options("bootstrap")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, SEED_LIST_DAYS_MAX), help="It holds for.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default="seeds.json", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sign_list(
    addresses: tuple[str, ...], home: Path, name: str, key: Path | None, days: int, out: Path, as_json: bool
) -> None:
    """Sign a list of bootstrap addresses for users of --seeds and --seeds-key."""
    from ..bootstrap.seed_list import sign_seed_list, write_seed_list
    from .world import SystemClock

    pair, _ = identity(home, name, key)
    raw = sign_seed_list(pair, addresses, SystemClock().unix_ms() // 1000, days * 86_400)
    write_seed_list(out, raw)
    facts = {"path": str(out), "seeds_key": base58(pair.node_id), "addresses": len(addresses), "days": days}
    click.echo(
        json.dumps(facts)
        if as_json
        else f"wrote {out}: {len(addresses)} addresses for {days} days\nuse it with --seeds {out} --seeds-key "
        f"{base58(pair.node_id)}"
    )


@seed_list.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seeds-key", required=True, envvar="CYXNODE_SEEDS_KEY", help="Public key of the publisher.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify_list(file: Path, seeds_key: str, as_json: bool) -> None:
    """Check a list as --seeds does: its signature, its end, each address."""
    from ..bootstrap.seed_list import read_seed_list
    from .world import SystemClock

    now_s = SystemClock().unix_ms() // 1000
    found = read_seed_list(file, seeds_key, now_s)
    days = (found.expires_at_s - now_s) // 86_400
    if as_json:
        click.echo(json.dumps({"addresses": found.addresses, "expires_at_s": found.expires_at_s}))
    else:
        click.echo("\n".join(found.addresses) + f"\nthe list holds for {days} more days")
