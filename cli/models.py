"""`cyxnode models`: the language models that the nodes of this home serve, and their prices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from ..executor.model_record import Fault, Shelved, find, read_shelf, remove_record, write_record
from ..protocol.errors import LocalError
from ..protocol.units import format_cyx
from .models_add import add, place_options, price_options, rate
from .shelf import facts, missing, price_text, shelf_folders, size_text, speed_text, where
from .text import plain


@click.group()
def models() -> None:
    """Choose the language models that nodes of this home serve, and their prices."""


models.add_command(add)


@models.command("list")
@place_options
def list_models(home: Path, name: str | None, as_json: bool) -> None:
    """What is on the shelf. Whether a model server is up, a running node finds out."""
    shelved, faults = read_shelf(shelf_folders(home, name))
    if as_json:
        for one in shelved:
            click.echo(json.dumps({**facts(one), "missing": missing(one)}))
        for fault in faults:
            click.echo(json.dumps({"record": str(fault.path), "fault": fault.reason}))
        return
    if shelved:
        click.echo("\n".join(_table(shelved)))
    for fault in faults:
        click.echo(_fault_line(fault))
    if not shelved and not faults:
        click.echo("nothing is on the shelf (cyxnode models add)")


def _table(shelved: tuple[Shelved, ...]) -> list[str]:
    rows = [("name", "id", "kind", "quantised", "context", "read", "written", "files", "speed")]
    for one in shelved:
        record, manifest = one.record, one.record.manifest
        prices = format_cyx(record.prompt_rate), format_cyx(record.generated_rate)
        state = missing(one) or speed_text(record.tokens_per_s_micro)
        sizes = manifest.quantisation, str(manifest.context_length)
        rows.append((manifest.name, one.short_id, manifest.kind, *sizes, *prices, size_text(one), state))
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of a table with columns of equal width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _fault_line(fault: Fault) -> str:
    return f"{fault.path}: {plain(fault.reason)}"


@models.command()
@click.argument("model")
@place_options
def show(model: str, home: Path, name: str | None, as_json: bool) -> None:
    """All about one model. MODEL is its name, or how its id begins."""
    one = find(read_shelf(shelf_folders(home, name))[0], model)
    if as_json:
        click.echo(json.dumps({**facts(one), "missing": missing(one)}))
        return
    manifest = one.record.manifest
    lines = {
        "name": manifest.name,
        "id": one.id.hex(),
        "kind": f"{manifest.kind}, {manifest.quantisation}, tokenizer {manifest.tokenizer}",
        "context": f"{manifest.context_length} tokens of prompt and answer",
        "digest": manifest.digest.hex(),
        "graph": manifest.graph_cid or "",
        "weights": manifest.weights_cid or "",
        "price": price_text(one.record),
        "speed": speed_text(one.record.tokens_per_s_micro),
        "from": where(one),
        "shelf": str(one.folder),
        "missing": missing(one),
    }
    click.echo("\n".join(f"{key:8} {plain(value)}" for key, value in lines.items() if value))


@models.command()
@click.argument("model")
@place_options
def remove(model: str, home: Path, name: str | None, as_json: bool) -> None:
    """Take a model off the shelf; nodes that run end what they have begun. A GGUF file is left where it is."""
    one = find(read_shelf(shelf_folders(home, name))[0], model)
    remove_record(one)
    click.echo(json.dumps({"removed": one.id.hex()}) if as_json else f"removed {one.record.manifest.name}")


@models.command()
@click.argument("model")
@place_options
@price_options
def price(
    model: str, home: Path, name: str | None, prompt_price: str | None, generated_price: str | None, as_json: bool
) -> None:
    """Change a model's prices; offers of nodes that run follow within seconds, jobs that are sold keep theirs."""
    if prompt_price is None and generated_price is None:
        raise LocalError("name a price", field="price", fix="give --prompt-price, --generated-price, or both")
    one = find(read_shelf(shelf_folders(home, name))[0], model)
    changes = {"prompt_rate": (prompt_price, "prompt-price"), "generated_rate": (generated_price, "generated-price")}
    rates = {key: rate(text, field) for key, (text, field) in changes.items() if text is not None}
    changed = write_record(one.folder, msgspec.structs.replace(one.record, **rates))
    click.echo(
        json.dumps(facts(changed)) if as_json else f"{changed.record.manifest.name}: {price_text(changed.record)}"
    )
