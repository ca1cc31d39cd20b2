"""`cyxnode chain run | info | airdrop | deploy`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import click
import trio

from ..protocol.units import base58, format_cyx, parse_cyx, parse_id
from .deploy import deploy
from .paying import paying_options, send_policy
from .serving import ready_options, run_until_stopped, say_ready
from .settings import CHAIN_PORT, chain_options, home_option, identity, key_options, program_id, rpc_option


@click.group()
def chain() -> None:
    """Run or use a local Solana chain with the escrow program."""


chain.add_command(deploy)


@chain.command("run")
@home_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback address to listen on.")
@click.option(
    "--port",
    default=CHAIN_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="0 takes any free one; the next port serves websockets.",
)
@click.option("--in-memory", is_flag=True, help="Forget everything at the end.")
@click.option(
    "--unbonding",
    type=int,
    default=None,
    show_default="31 days",
    help="Seconds for which stakes stay liable on a new chain; no job may last longer.",
)
@click.option("--bare", is_flag=True, help="Leave the escrow program out, for `cyxnode chain deploy`.")
@ready_options
def run_chain(
    home: Path,
    host: str,
    port: int,
    in_memory: bool,
    unbonding: int | None,
    bare: bool,
    as_json: bool,
    until_stdin_closes: bool,
) -> None:
    """Serve a local chain: LiteSVM behind Solana's JSON-RPC, with the escrow program, CYX and a faucet."""
    from ..ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
    from ..ledger.chain_service import serve_chain

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            data_dir = None if in_memory else home
            serving = partial(serve_chain, host, port, data_dir, unbonding_s=unbonding, bare=bare)
            url = await nursery.start(serving)
            program, mint = base58(LOCAL_PROGRAM_ID), base58(LOCAL_MINT)
            say_ready(
                as_json,
                f"chain ready at {url}\n  escrow program {'none' if bare else program}\n  CYX mint {mint}",
                url=url,
                program=None if bare else program,
                mint=mint,
            )

    run_until_stopped(serve, until_stdin_closes=until_stdin_closes)


@chain.command("info")
@chain_options
@click.option("--json", "as_json", is_flag=True)
def chain_info(rpc: str, program: str | None, as_json: bool) -> None:
    """What the chain says of itself: slot, escrow program, fees, minimum stake, nodes."""
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc
    from ..protocol.identity import KeyPair

    async def read() -> dict[str, object]:
        async with open_http_rpc(rpc, send_policy()) as client:
            reader = ChainClient(client, KeyPair.generate(), program_id(program))
            config, now, nodes = await reader.config(), await reader.time(), await reader.nodes()
            return {
                "rpc": rpc,
                "slot": now.slot,
                "unix_s": now.unix_s,
                "genesis": base58(config.genesis),
                "program": base58(reader.program),
                "mint": base58(config.mint),
                "fee_bps": config.fee_bps,
                "verifier_share_bps": config.verifier_share_bps,
                "minimum_stake_cyx": format_cyx(config.minimum_stake),
                "unbonding_s": config.unbonding_s,
                "nodes": len(nodes),
            }

    facts = trio.run(read)
    click.echo(json.dumps(facts) if as_json else "\n".join(f"{name:20} {value}" for name, value in facts.items()))


@chain.command("airdrop")
@home_option
@key_options("requester")
@rpc_option
@paying_options
@click.option("--to", default=None, help="Address in base58 (default: the identity's own).")
@click.option("--cyx", default="200", show_default=True, help="Tokens to ask for.")
@click.option("--sol", default=1, show_default=True, type=click.IntRange(0, 1000), help="SOL to ask for.")
def airdrop(home: Path, name: str, key: Path | None, rpc: str, to: str | None, cyx: str, sol: int) -> None:
    """Play money from the local chain's faucet."""
    from ..ledger.faucet import request_airdrop, request_tokens
    from ..ledger.http_rpc import open_http_rpc

    amount = parse_cyx(cyx, field="cyx")
    address = parse_id(to, field="to") if to else identity(home, name, key)[0].node_id

    async def ask() -> None:
        async with open_http_rpc(rpc, send_policy()) as client:
            if sol:
                await request_airdrop(client, address, sol * 1_000_000_000)
            if amount:
                await request_tokens(client, address, amount)

    trio.run(ask)
    click.echo(f"{sol} SOL and {format_cyx(amount)} CYX to {base58(address)}")
