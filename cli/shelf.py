"""Where a node's models are, how much memory they may have, and how they look in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from ..executor.hardware import HardwareSampler
from ..executor.model_memory import mebibytes
from ..executor.model_record import Record, Shelved
from ..executor.model_shelf import ModelShelf, open_shelf
from ..executor.model_sources import LlamaSource, OllamaSource, Source, TorchSource
from ..executor.process import ProcessRunner
from ..protocol.errors import LocalError
from ..protocol.inference import ModelKind
from ..protocol.limits import MICRO, MODELS_MEMORY_PPM
from ..protocol.ports import Runner
from ..protocol.units import format_cyx
from .text import plain

FOLDER = "models"


def shelf_folders(home: Path, name: str | None) -> list[Path]:
    """An identity's own models come first, then those of every node of this home."""
    shared = home / FOLDER
    return [shared] if name is None else [home / name / FOLDER, shared]


def own_folder(home: Path, name: str | None) -> Path:
    """Where a model is put: on the shelf of one identity, or on that of all. LocalError when the name is none."""
    if name is not None and (not name or "/" in name or name.startswith(".")):
        raise LocalError(f"{name!r} cannot be a folder", field="name", fix="use letters, digits and dashes")
    return shelf_folders(home, name)[0]


def memory_budget(mebibytes_wanted: int | None) -> int:
    """Bytes that loaded models may have together."""
    if mebibytes_wanted is not None:
        return mebibytes_wanted * 1024**2
    return int(psutil.virtual_memory().total) * MODELS_MEMORY_PPM // MICRO


@asynccontextmanager
async def open_models(runner: Runner, folders: list[Path], budget: int) -> AsyncIterator[ModelShelf]:
    """The shelf of a running node. Torch models need the real runner: a stand-in trains nothing and says nothing."""
    sources: dict[ModelKind, Source] = {"gguf": LlamaSource(), "ollama": OllamaSource()}
    if isinstance(runner, ProcessRunner):
        sources["torch"] = TorchSource(runner)
    sampler = HardwareSampler() if runner.description["device"].startswith("cuda") else None
    try:
        gpu = sampler.gpu_utilization_ppm if sampler is not None else lambda: None
        async with open_shelf(folders, sources, budget=budget, gpu=gpu, ahead=True) as shelf:
            yield shelf
    finally:
        if sampler is not None:
            sampler.close()


def price_text(record: Record) -> str:
    """Both prices."""
    return f"{format_cyx(record.prompt_rate)} / {format_cyx(record.generated_rate)} CYX per 1,000 tokens read / written"


def speed_text(tokens_per_s_micro: int) -> str:
    """A speed, or that there is none yet."""
    return f"{tokens_per_s_micro / MICRO:.1f} tokens/s" if tokens_per_s_micro else "not measured"


def shelf_lines(shelf: ModelShelf) -> list[str]:
    """One line for each model: that it is served, at what price, warm or cold; or why it is not."""
    lines = []
    for one in shelf.served:
        why_not = shelf.why_not(one)
        record = one.shelved.record
        state = f"{price_text(record)}, {'warm' if one.warm else 'cold'}" if not why_not else f"not served: {why_not}"
        lines.append(f"model {plain(record.manifest.name)} ({one.shelved.short_id}): {plain(state)}")
    return lines + [f"model record {fault.path}: not served: {plain(fault.reason)}" for fault in shelf.faults]


def shelf_facts(shelf: ModelShelf) -> list[dict[str, Any]]:
    """The same for a program."""
    return [{**facts(one.shelved), "warm": one.warm, "not_served": shelf.why_not(one)} for one in shelf.served] + [
        {"record": str(fault.path), "not_served": fault.reason} for fault in shelf.faults
    ]


def facts(shelved: Shelved) -> dict[str, Any]:
    """A model of the shelf for a program."""
    record = shelved.record
    manifest = record.manifest
    return {
        "name": manifest.name,
        "model": shelved.id.hex(),
        "kind": manifest.kind,
        "quantisation": manifest.quantisation,
        "context_length": manifest.context_length,
        "digest": manifest.digest.hex(),
        "prompt_rate_micro_cyx": record.prompt_rate,
        "generated_rate_micro_cyx": record.generated_rate,
        "tokens_per_s_micro": record.tokens_per_s_micro,
        "where": where(shelved),
        "folder": str(shelved.folder),
    }


def where(shelved: Shelved) -> str:
    """The file that is served, or the server and its name of the model."""
    record = shelved.record
    if record.manifest.kind == "ollama":
        return f"{record.server} {record.server_model}"
    return str(shelved.files[-1])


def missing(shelved: Shelved) -> str:
    """Which file of a model is not there; empty when all are, or when a server has it."""
    return next((f"{path} is missing" for path in shelved.files if not path.is_file()), "")


def size_text(shelved: Shelved) -> str:
    """Of its files."""
    try:
        return f"{mebibytes(sum(path.stat().st_size for path in shelved.files))} MiB" if shelved.files else "-"
    except OSError:
        return "?"
