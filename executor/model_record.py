"""What a node keeps of each model that it serves: a folder with one small file a model, its record.

`<short id>.json` is the record, where the short id is the first 16 hex digits of the model's id. A torch model's graph
and weights lie beside it; a GGUF file stays where it is; of a model server there is the URL. Everything in the folder
is somebody's until it has been checked: what cannot be served is told apart, with the reason, and hides nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..protocol.errors import LocalError
from ..protocol.fields import Amount
from ..protocol.inference import ModelManifest, check_manifest, model_id
from ..protocol.limits import MODEL_NAME_MAX_CHARS, MODEL_RECORD_MAX_BYTES, MODELS_SHELVED_MAX

SHORT_ID_CHARS = 16
_RECORD, _GRAPH, _WEIGHTS = ".json", ".graph", ".safetensors"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model, its price, and where it is."""

    version: Literal[1] = 1
    manifest: ModelManifest
    prompt_rate: Amount
    """Micro-CYX for 1,000 tokens that are read."""
    generated_rate: Amount
    """Micro-CYX for 1,000 tokens that are written."""
    path: Annotated[str, Meta(max_length=4_096)] = ""
    """gguf: absolute path of the file."""
    server: Annotated[str, Meta(max_length=512, pattern=r"^(https?://[^\s]+)?\Z")] = ""
    """ollama: URL."""
    server_model: Annotated[str, Meta(max_length=MODEL_NAME_MAX_CHARS)] = ""
    """ollama: what the server calls it."""
    tokens_per_s_micro: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """As it was measured when it was put here; 0: it was not."""


@dataclass(frozen=True, slots=True)
class Shelved:
    """A checked record and the folder that it lies in."""

    record: Record
    folder: Path

    @property
    def id(self) -> bytes:
        """`model_id` of the manifest."""
        return model_id(self.record.manifest)

    @property
    def short_id(self) -> str:
        """Its beginning, in hex."""
        return short_id(self.id)

    @property
    def graph_path(self) -> Path:
        """torch: canonical JSON of the graph."""
        return self.folder / f"{self.short_id}{_GRAPH}"

    @property
    def weights_path(self) -> Path:
        """torch: safetensors."""
        return self.folder / f"{self.short_id}{_WEIGHTS}"

    @property
    def files(self) -> tuple[Path, ...]:
        """What must be readable here for the model to be served."""
        match self.record.manifest.kind:
            case "torch":
                return (self.graph_path, self.weights_path)
            case "gguf":
                return (Path(self.record.path),)
            case _:
                return ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A file of the folder that is no record, and why."""

    path: Path
    reason: str


def short_id(model: bytes) -> str:
    """How a model's id is shown and its files are named."""
    return model.hex()[:SHORT_ID_CHARS]


def read_shelf(folders: Iterable[Path]) -> tuple[tuple[Shelved, ...], tuple[Fault, ...]]:
    """All records by name, and what is none. Of two records of one model, that of the earlier folder counts."""
    found: dict[bytes, Shelved] = {}
    faults = []
    for folder in folders:
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix == _RECORD)
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(Fault(folder, error.strerror or "cannot be read"))
            continue
        faults += [Fault(path, f"the folder has more than {MODELS_SHELVED_MAX}") for path in paths[MODELS_SHELVED_MAX:]]
        for path in paths[:MODELS_SHELVED_MAX]:
            try:
                one = Shelved(_read_record(path), folder)
            except (LocalError, OSError, ValueError) as error:
                faults.append(Fault(path, str(error).splitlines()[0][:200] if str(error) else type(error).__name__))
            else:
                found.setdefault(one.id, one)
    return tuple(sorted(found.values(), key=lambda one: (one.record.manifest.name, one.id))), tuple(faults)


def _read_record(path: Path) -> Record:
    # a pipe in its place would keep its reader waiting
    if not path.is_file():
        raise ValueError("is no file")
    with path.open("rb") as file:
        data = file.read(MODEL_RECORD_MAX_BYTES + 1)
    if len(data) > MODEL_RECORD_MAX_BYTES:
        raise ValueError(f"has more than {MODEL_RECORD_MAX_BYTES} bytes")
    record = msgspec.json.decode(data, type=Record)
    check_record(record)
    if path.stem != short_id(model_id(record.manifest)):
        raise ValueError(f"is of the model {short_id(model_id(record.manifest))}, which its name is not")
    return record


def check_record(record: Record) -> None:
    """Refuse a record whose parts do not fit its kind. Raises LocalError with field 'model.…'."""
    check_manifest(record.manifest)
    kind = record.manifest.kind
    wanted = {"path": kind == "gguf", "server": kind == "ollama", "server_model": kind == "ollama"}
    for name, needed in wanted.items():
        if bool(getattr(record, name)) != needed:
            what = "is missing" if needed else f"has no meaning for {kind}"
            raise LocalError(what, field=f"model.{name}", fix="cyxnode models remove, then add it again")
    if record.path and not Path(record.path).is_absolute():
        raise LocalError("is not absolute", field="model.path", fix="write the whole path")


def write_record(folder: Path, record: Record, *, graph: bytes = b"", weights: bytes = b"") -> Shelved:
    """Put a model on the shelf, or change its record there. A torch model's blobs are written when they are given.

    A reader sees the old record or the new one, and never one without its blobs. Raises LocalError, field 'home'.
    """
    check_record(record)
    shelved = Shelved(record, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, data in ((shelved.graph_path, graph), (shelved.weights_path, weights)):
            if data:
                _replace(path, data)
        _replace(folder / f"{shelved.short_id}{_RECORD}", msgspec.json.format(msgspec.json.encode(record)))
    except OSError as error:
        raise LocalError(f"{folder}: {error.strerror}", field="home", fix="choose a writable --home") from None
    return shelved


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def remove_record(shelved: Shelved) -> None:
    """Take a model off the shelf: its record and, of a torch model, its blobs. Raises LocalError, field 'home'."""
    own = shelved.files if shelved.record.manifest.kind == "torch" else ()
    try:
        for path in (shelved.folder / f"{shelved.short_id}{_RECORD}", *own):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise LocalError(f"{shelved.folder}: {error.strerror}", field="home", fix="choose a writable --home") from None


def find(shelved: Iterable[Shelved], text: str) -> Shelved:
    """The one model with this name, or whose id begins so, with at least 6 digits. Raises LocalError, field 'model'."""
    everything = tuple(shelved)
    begins = text.lower() if len(text) >= 6 else "-"
    matches = [one for one in everything if one.record.manifest.name == text or one.id.hex().startswith(begins)]
    if len(matches) == 1:
        return matches[0]
    names = ", ".join(one.record.manifest.name for one in everything)
    if matches:
        ids = ", ".join(one.short_id for one in matches)
        raise LocalError(f"{text!r} may be each of {ids}", field="model", fix="give the id")
    there = f"there is {names}"[:200] if names else "the shelf is empty: cyxnode models add"
    raise LocalError(f"there is no {text[:96]!r} on the shelf", field="model", fix=there)
