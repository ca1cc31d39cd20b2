"""`cyxnode models add`: put a language model on the shelf, once it has shown that it works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from ..protocol.errors import LocalError
from ..protocol.units import parse_cyx
from .settings import home_option
from .text import plain

if TYPE_CHECKING:
    from ..executor.model_adding import Draft, Rates

Command = Callable[..., Any]


def place_options(command: Command) -> Command:
    """--home, --name and --json"""
    name = click.option(
        "--name", default=None, help="Folder of one identity in --home (default: for every node of --home)."
    )
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return home_option(name(as_json(command)))


def price_options(command: Command) -> Command:
    """--prompt-price and --generated-price"""
    for option, what in (("--generated-price", "written"), ("--prompt-price", "read")):
        command = click.option(option, default=None, help=f"CYX for 1,000 tokens that are {what}.")(command)
    return command


@click.command("add")
@click.argument("model")
@place_options
@click.option(
    "--torch",
    nargs=2,
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Graph (JSON) and weights (safetensors), as a training job delivers them; both are copied.",
)
@click.option(
    "--gguf",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="A GGUF file for llama.cpp (extra llama); it stays where it is.",
)
@click.option(
    "--ollama", nargs=2, default=None, help="URL of a model server, and its name of the model (extra ollama)."
)
@price_options
@click.option("--context", type=int, default=None, help="Tokens of prompt and answer, for --gguf and --ollama.")
@click.option("--no-try", is_flag=True, help="Do not load it and have it write a few tokens first.")
def add(
    model: str,
    home: Path,
    name: str | None,
    torch: tuple[Path, Path] | None,
    gguf: Path | None,
    ollama: tuple[str, str] | None,
    prompt_price: str | None,
    generated_price: str | None,
    context: int | None,
    no_try: bool,
    as_json: bool,
) -> None:
    """Put a language model on the shelf; nodes that run see it within seconds. MODEL is what the market calls it."""
    from ..executor.model_adding import Rates
    from ..executor.model_record import read_shelf, write_record
    from .shelf import facts, own_folder, price_text, shelf_folders, speed_text

    if [torch, gguf, ollama].count(None) != 2:
        raise LocalError("say what it is", field="model", fix="give one of --torch, --gguf and --ollama")
    if torch is not None and context is not None:
        raise LocalError("is that of the graph", field="context", fix="leave it out")
    rates = Rates(rate(prompt_price, "prompt-price"), rate(generated_price, "generated-price"))
    folder, said = own_folder(home, name), list[str]()
    there = [one for one in read_shelf(shelf_folders(home, name))[0] if one.folder == folder]
    if any(one.record.manifest.name == model for one in there):
        fix = "choose another name, or: cyxnode models price, cyxnode models remove"
        raise LocalError(f"{plain(model)} is on the shelf already", field="model", fix=fix)

    async def work() -> Draft:
        draft = await _draft(model, torch, gguf, ollama, rates, context)
        return draft if no_try else await _tried(draft, said.append)

    draft = trio.run(work)
    shelved = write_record(folder, draft.record, graph=draft.graph, weights=draft.weights)
    if as_json:
        click.echo(json.dumps({**facts(shelved), "said": "".join(said)}))
        return
    manifest = draft.record.manifest
    click.echo(f"added {model}, which is the model {shelved.id.hex()}")
    click.echo(f"  {manifest.kind}, {manifest.quantisation}, context {manifest.context_length}")
    click.echo(f"  {price_text(draft.record)}")
    if not no_try:
        click.echo(f"  {speed_text(draft.record.tokens_per_s_micro)}; asked 'Hi' it says: {plain(''.join(said))}")
    click.echo("  `cyxnode run` offers it, also one that runs already; see it with `cyxnode market models`")


def rate(text: str | None, field: str) -> int:
    """A price as micro-CYX for 1,000 tokens. Raises LocalError when there is none."""
    if text is None:
        raise LocalError("is missing", field=field, fix=f"--{field} 0.001 is 0.001 CYX for 1,000 tokens")
    return parse_cyx(text, field=field)


async def _draft(
    model: str,
    torch: tuple[Path, Path] | None,
    gguf: Path | None,
    ollama: tuple[str, str] | None,
    rates: Rates,
    context: int | None,
) -> Draft:
    from ..executor.model_adding import draft_gguf, draft_ollama, draft_torch

    if torch is not None:
        return draft_torch(model, *torch, rates)
    if gguf is not None:
        return draft_gguf(model, gguf, rates, context=context)
    assert ollama is not None
    return await draft_ollama(model, *ollama, rates, context=context)


async def _tried(draft: Draft, say: Callable[[str], None]) -> Draft:
    from ..executor.model_adding import try_draft
    from ..executor.model_sources import LlamaSource, OllamaSource, TorchSource
    from ..executor.process import open_runner

    match draft.record.manifest.kind:
        case "torch":
            async with open_runner(warm=0) as runner:
                return await try_draft(draft, TorchSource(runner), say)
        case "gguf":
            return await try_draft(draft, LlamaSource(), say)
        case "ollama":
            return await try_draft(draft, OllamaSource(), say)
