"""`cyxnode keygen`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ..protocol.units import base58
from .settings import home_option, make_key


@click.command()
@home_option
@click.option("--name", default="node", show_default=True, help="Folder of the identity in --home.")
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write to this file instead."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def keygen(home: Path, name: str, key: Path | None, as_json: bool) -> None:
    """Make an ed25519 key: libp2p identity, Solana address and signing key at once."""
    path = key or home / name / "key.json"
    node = base58(make_key(path).node_id)
    click.echo(json.dumps({"node": node, "path": str(path)}) if as_json else f"{node}\n{path}")
