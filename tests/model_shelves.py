"""Shelves for tests: records on disk, and a source that loads them in virtual time and counts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from cyxnode.executor.model_record import Record, Shelved, write_record
from cyxnode.executor.model_shelf import ModelShelf
from cyxnode.executor.model_sources import Found
from cyxnode.executor.simulated_inference import SimulatedInference
from cyxnode.protocol.errors import CyxError
from cyxnode.protocol.inference import InferSpec, InferTask, ModelFiles, ModelManifest
from cyxnode.protocol.ports import InferenceSession
from inference_models import ask

BACKEND = SimulatedInference("shelf", seconds_per_token=1.0)


def gguf_record(name: str, **changes: Any) -> Record:
    """A model named so that its digest follows from its name."""
    manifest = ModelManifest(
        name=name,
        kind="gguf",
        digest=name.encode().ljust(32, b"."),
        tokenizer="model",
        quantisation="Q4_1",
        context_length=256,
    )
    fields: dict[str, Any] = {
        "manifest": manifest,
        "prompt_rate": 500,
        "generated_rate": 2_000,
        "path": f"/{name}.gguf",
    }
    return Record(**(fields | changes))


def shelf_of(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Put models on a shelf; their ids by name."""
    return {name: write_record(folder, gguf_record(name)).id for name in names}


def spec_for(model: bytes, **options: Any) -> InferSpec:
    """A small task for a model of these shelves."""
    return InferSpec(model=model, backend=BACKEND.execution_class, task=ask("Hello", **options), secret=bytes(32))


class CountingSource:
    """Loads simulated models of `sizes` bytes. `down` holds the errors of models that are not there now."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.down: dict[str, CyxError] = {}
        self.broken: dict[str, CyxError] = {}
        """Errors of models that do not load."""
        self.stamps: dict[str, str] = {}
        self.loaded: list[str] = []
        """In memory now, in the order of loading."""
        self.loads: list[str] = []
        """All that were tried to be loaded."""
        self.prepared: list[str] = []
        self.most = 0
        """Most bytes that were in memory at once."""

    async def look(self, shelved: Shelved) -> Found:
        await trio.lowlevel.checkpoint()
        name = shelved.record.manifest.name
        if name in self.down:
            raise self.down[name]
        return Found(BACKEND.execution_class, self.sizes[name], self.stamps.get(name, ""))

    async def load(self, shelved: Shelved) -> CountingModel:
        name = shelved.record.manifest.name
        self.loads.append(name)
        await trio.sleep(3.0)
        if name in self.broken:
            raise self.broken[name]
        self.loaded.append(name)
        self.most = max(self.most, sum(self.sizes[one] for one in self.loaded))
        return CountingModel(self, shelved)


class CountingModel:
    """What a CountingSource has loaded."""

    def __init__(self, source: CountingSource, shelved: Shelved) -> None:
        self._source, self._shelved = source, shelved
        self._name = shelved.record.manifest.name

    def prepare(self) -> None:
        self._source.prepared.append(self._name)

    def session(self, task: InferTask) -> AbstractAsyncContextManager[InferenceSession]:
        return self._session(task)

    @asynccontextmanager
    async def _session(self, task: InferTask) -> AsyncIterator[InferenceSession]:
        async with BACKEND.inference_session(ModelFiles(self._shelved.record.manifest), task) as session:
            yield session

    async def free(self) -> None:
        await trio.sleep(1.0)
        self._source.loaded.remove(self._name)


def warm(shelf: ModelShelf) -> list[str]:
    """Names of the models that are offered and loaded."""
    return [offer.name for offer in shelf.offers() if offer.warm]


def names(shelf: ModelShelf) -> list[str]:
    """Names of the models that are offered."""
    return [offer.name for offer in shelf.offers()]


async def used(shelf: ModelShelf, model: bytes, seconds: float = 0.0) -> None:
    """A session of so long, once the model is loaded."""
    async with shelf.session(spec_for(model)):
        await trio.sleep(seconds)
