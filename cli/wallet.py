"""`cyxnode wallet balance | send | stake | unstake | withdraw | history`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import trio

from ..protocol.errors import LocalError
from ..protocol.identity import KeyPair
from ..protocol.limits import HISTORY_PAGE_MAX
from ..protocol.units import base58, format_sol, parse_cyx, parse_id, parse_sol
from .settings import chain_options, home_option, identity, key_options
from .wallet_session import ask, open_wallet, say_done, yes_option
from .wallet_stake import stake, unstake, withdraw
from .wallet_text import balance_json, balance_lines, entry_json, entry_lines

if TYPE_CHECKING:
    from ..ledger.wallet_history import Entry

HISTORY_PAGE = 10


@click.group()
def wallet() -> None:
    """See and move the money of a key."""


@wallet.command()
@click.argument("address", required=False)
@home_option
@key_options("requester")
@chain_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def balance(
    address: str | None, home: Path, name: str, key: Path | None, rpc: str, program: str | None, as_json: bool
) -> None:
    """SOL, CYX, and for a node its stake, earned shares and record. Of the identity, or of ADDRESS."""
    given = parse_id(address, field="address") if address is not None else None
    pair = identity(home, name, key)[0] if given is None else KeyPair.generate()
    whose = given or pair.node_id

    async def read() -> None:
        from ..protocol.units import NodeId

        async with open_wallet(rpc, program, pair) as opened:
            chain = opened.chain
            config, held = await chain.config(), await chain.balance(whose)
            account, now = await chain.node(NodeId(whose)), await chain.time()
        if as_json:
            click.echo(json.dumps(balance_json(whose, held, account, config, now.unix_s)))
        else:
            click.echo("\n".join(balance_lines(whose, held, account, config, now.unix_s)))

    trio.run(read)


@wallet.command()
@click.argument("address")
@click.argument("amount")
@click.option("--sol", is_flag=True, help="Send SOL instead of CYX.")
@home_option
@key_options("requester")
@chain_options
@yes_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def send(
    address: str,
    amount: str,
    sol: bool,
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Send CYX, or SOL with --sol, to a wallet. A CYX account that the receiver lacks is made at the sender's cost."""
    to = parse_id(address, field="address")
    units = parse_sol(amount, field="amount") if sol else parse_cyx(amount, field="amount")
    pair, _ = identity(home, name, key)

    async def work() -> None:
        from ..ledger.wallet import pay, plan_lamports, plan_tokens

        async with open_wallet(rpc, program, pair) as opened:
            client, me = opened.rpc, opened.address
            mint = (await opened.chain.config()).mint
            plan = await (plan_lamports(client, me, to, units) if sol else plan_tokens(client, mint, me, to, units))
            rent = f"; making its CYX account costs {format_sol(plan.rent)} SOL" if plan.rent else ""
            unseen = " (the chain has never seen this address: check it)" if plan.unseen else ""
            ask(f"send {plan.text} to {base58(to)}{unseen}{rent}?", yes=yes)
            signature = await pay(client, pair, mint, plan, reference=f"cyxnode {os.urandom(8).hex()}")
            facts = await opened.facts(signature)
        amounts = {"lamports" if sol else "micro_cyx": plan.amount, "rent_lamports": plan.rent}
        made = f"\nmade its CYX account for {format_sol(plan.rent)} SOL" if plan.rent else ""
        say_done(as_json, f"sent {plan.text} to {base58(to)}{made}", {"to": base58(to), **amounts, **facts})

    trio.run(work)


@wallet.command()
@click.argument("address", required=False)
@home_option
@key_options("requester")
@chain_options
@click.option(
    "--limit", default=HISTORY_PAGE, show_default=True, type=click.IntRange(1, HISTORY_PAGE_MAX), help="Transactions."
)
@click.option("--before", default=None, help="Only what is older than the transaction with this signature.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per transaction.")
def history(
    address: str | None,
    home: Path,
    name: str,
    key: Path | None,
    rpc: str,
    program: str | None,
    limit: int,
    before: str | None,
    as_json: bool,
) -> None:
    """The last transactions in words, newest first, of the identity or of ADDRESS."""
    given = parse_id(address, field="address") if address is not None else None
    pair = identity(home, name, key)[0] if given is None else KeyPair.generate()
    if before is not None:
        _check_signature(before)

    async def read() -> list[Entry]:
        from ..ledger.wallet_history import read_history

        async with open_wallet(rpc, program, pair) as opened:
            mint, whose = (await opened.chain.config()).mint, given or pair.node_id
            return await read_history(opened.rpc, whose, mint, opened.chain.program, limit=limit, before=before)

    entries = trio.run(read)
    for entry in entries:
        click.echo(json.dumps(entry_json(entry)) if as_json else "\n".join(entry_lines(entry)))
    if not as_json:
        if not entries:
            click.echo("no transactions" + (" before that one" if before else ""))
        elif len(entries) == limit:
            click.echo(f"older: --before {entries[-1].signature}", err=True)


def _check_signature(text: str) -> None:
    from solders.signature import Signature

    try:
        Signature.from_string(text)
    except ValueError:
        fix = "copy the whole signature of a transaction"
        raise LocalError(f"{text[:100]!r} is not a signature", field="before", fix=fix) from None


for command in (stake, unstake, withdraw):
    wallet.add_command(command)
