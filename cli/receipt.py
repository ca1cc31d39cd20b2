"""`cyxnode receipt show | verify`: offline, no network, no key."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..protocol.errors import LocalError
from ..protocol.receipt import RECEIPT_MAX_BYTES, load_receipt, verify_receipt
from ..protocol.units import format_cyx
from .text import plain


@click.group()
def receipt() -> None:
    """Show or verify a receipt."""


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > RECEIPT_MAX_BYTES:
            raise LocalError("is larger than any receipt", field="receipt", fix="fetch the file again")
        return path.read_bytes()
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="receipt", fix="give the path of a receipt") from None


@receipt.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True)
def verify(file: Path, as_json: bool) -> None:
    """Check every hash and signature with no network."""
    checked = verify_receipt(load_receipt(_read(file)))
    if as_json:
        click.echo(json.dumps({"valid": True, "checked": checked}))
    else:
        click.echo("\n".join(f"ok  {line}" for line in checked))
        click.echo("the receipt holds")


@receipt.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """The readable fields, unchecked: run `verify` to trust them."""
    fields = load_receipt(_read(file))
    for name in ("job", "status", "reason", "requester", "worker", "completed_in_ms", "open_slot"):
        click.echo(f"{name:16} {plain(str(fields[name]))}")
    click.echo(f"{'price':16} {format_cyx(int(fields['price_micro_cyx']))} CYX")
    for name in ("paid", "result", "metrics", "transactions", "timeline_ms"):
        for inner, value in fields[name].items():
            click.echo(f"{plain(name + '.' + inner):32} {plain(str(value))}")
    click.echo(f"{'verified_by':16} {', '.join(fields['verified_by'])}")
