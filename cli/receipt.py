"""`cyxnode receipt show | verify`: offline and without a key, unless a chain is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import trio

from ..protocol.errors import LocalError
from ..protocol.receipt import RECEIPT_MAX_BYTES, load_receipt, verify_receipt
from ..protocol.units import format_cyx
from .text import plain


@click.group()
def receipt() -> None:
    """Show or verify a receipt."""


def read_receipt(path: Path) -> bytes:
    """A receipt file, unless it is larger than any; LocalError when it cannot be read."""
    try:
        if path.stat().st_size > RECEIPT_MAX_BYTES:
            raise LocalError("is larger than any receipt", field="receipt", fix="fetch the file again")
        return path.read_bytes()
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="receipt", fix="give the path of a receipt") from None


@receipt.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--rpc", "--url", default=None, metavar="URL", help="Also compare it with the chain behind this server.")
@click.option("--program", default=None, envvar="CYXNODE_PROGRAM", help="Escrow program (default: the local chain's).")
@click.option("--json", "as_json", is_flag=True)
def verify(file: Path, rpc: str | None, program: str | None, as_json: bool) -> None:
    """Check every hash and signature with no network; with --rpc also that the chain says the same."""
    loaded = load_receipt(read_receipt(file))
    checked = verify_receipt(loaded)
    if rpc is not None:
        checked += trio.run(_compare, loaded, rpc, program)
    if as_json:
        click.echo(json.dumps({"valid": True, "checked": checked}))
    else:
        click.echo("\n".join(f"ok  {line}" for line in checked))
        click.echo("the receipt holds")


async def _compare(loaded: dict[str, Any], rpc: str, program: str | None) -> list[str]:
    from ..ledger.receipt_chain import confirm_receipt
    from ..protocol.identity import KeyPair
    from .wallet_session import open_wallet

    async with open_wallet(rpc, program, KeyPair.generate()) as reader:
        return await confirm_receipt(reader.rpc, loaded, reader.chain)


@receipt.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """The readable fields, unchecked: run `verify` to trust them."""
    fields = load_receipt(read_receipt(file))
    for name in ("job", "status", "reason", "requester", "worker", "completed_in_ms", "open_slot"):
        click.echo(f"{name:16} {plain(str(fields[name]))}")
    click.echo(f"{'price':16} {format_cyx(int(fields['price_micro_cyx']))} CYX")
    for name in ("paid", "result", "metrics", "transactions", "timeline_ms"):
        for inner, value in fields[name].items():
            click.echo(f"{plain(name + '.' + inner):32} {plain(str(value))}")
    click.echo(f"{'verified_by':16} {', '.join(fields['verified_by'])}")
