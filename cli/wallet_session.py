"""What the money commands share: the wallet that a command speaks for, and the question before money moves."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..protocol.identity import KeyPair
from ..protocol.units import base58, format_cyx, format_sol, parse_id
from .paying import send_policy
from .settings import Command

if TYPE_CHECKING:
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import HttpRpc


@dataclass(frozen=True, slots=True)
class Wallet:
    """A key, and the chain through which it acts."""

    key: KeyPair
    rpc: HttpRpc
    chain: ChainClient

    @property
    def address(self) -> bytes:
        """Of the key."""
        return self.key.node_id

    async def facts(self, signature: str) -> dict[str, Any]:
        """What a transaction cost, when the server says so, and what is left."""
        from ..ledger.wallet_history import read_transaction

        past, balance = await read_transaction(self.rpc, signature), await self.chain.balance(self.address)
        return {
            "signature": signature,
            "fee_lamports": past.fee if past else None,
            "balance_micro_cyx": balance.micro_cyx,
            "balance_lamports": balance.lamports,
        }


@asynccontextmanager
async def open_wallet(rpc: str, program: str | None, key: KeyPair) -> AsyncIterator[Wallet]:
    """Connections close with the context; `program` in base58, that of the local chain when None."""
    from ..ledger.addresses import LOCAL_PROGRAM_ID
    from ..ledger.chain_client import ChainClient
    from ..ledger.http_rpc import open_http_rpc

    program_id = LOCAL_PROGRAM_ID if program is None else parse_id(program, field="program")
    async with open_http_rpc(rpc, send_policy()) as client:
        yield Wallet(key, client, ChainClient(client, key, program_id))


def yes_option(command: Command) -> Command:
    """--yes"""
    return click.option("--yes", is_flag=True, help="Do not ask. Nothing is asked without a terminal either.")(command)


def on_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask(question: str, *, yes: bool) -> None:
    """Ask before money moves, on a terminal only; a no ends the command."""
    if yes or not on_terminal():
        return
    if not click.confirm(question, err=True):
        click.echo("nothing was sent", err=True)
        raise click.Abort


def say_done(as_json: bool, text: str, facts: dict[str, Any]) -> None:
    """The end of a command that sent a transaction: what was done, its signature, its fee and the new balance."""
    if as_json:
        click.echo(json.dumps(facts))
        return
    fee = facts["fee_lamports"]
    click.echo(text)
    click.echo(f"signature  {facts['signature']}")
    click.echo(f"fee        {format_sol(fee) + ' SOL' if fee is not None else 'not known yet'}")
    click.echo(f"balance    {format_cyx(facts['balance_micro_cyx'])} CYX, {format_sol(facts['balance_lamports'])} SOL")


def address_or_own(text: str | None, own: bytes) -> bytes:
    """An address that was given, else the key's own."""
    return parse_id(text, field="address") if text is not None else own


def named(address: bytes, own: bytes) -> str:
    """An address, or 'this wallet'."""
    return "this wallet" if address == own else base58(address)
