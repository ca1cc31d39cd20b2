"""How models of each kind come from the shelf into memory: one source a kind, and nothing here imports torch.

A source looks (is the model there, on which backend, how much memory will it take) and loads. What it has loaded makes
sessions until it is freed. The optional packages are imported when the first model of their kind is looked at.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from typing import Protocol

import msgspec
import trio

from ..protocol.cid import cid_of
from ..protocol.errors import ExecutionFailed, LocalError, TransientError
from ..protocol.inference import InferTask, ModelFiles
from ..protocol.limits import MODEL_FILE_MAX_BYTES, MODEL_LOOK_PATIENCE_S, STATE_MAX_BYTES
from ..protocol.ports import Inference, InferenceSession
from .causal import encode_task
from .gguf import read_gguf_header
from .llama import LlamaInference, LlamaModel
from .model_record import Shelved
from .ollama_server import OllamaInference, open_ollama


@dataclass(frozen=True, slots=True)
class Found:
    """A model that could be served now."""

    backend: bytes
    """Execution class."""
    size: int
    """Bytes that it takes in this process; 0 when another computes it."""
    stamp: str
    """Other when the model's files, or its server, may be others than before."""
    warm: bool | None = None
    """What a model server says; None: it is warm while it is loaded here."""


class Loaded(Protocol):
    """A model in memory."""

    def prepare(self) -> None:
        """A session will come soon. Never waits."""

    def session(self, task: InferTask) -> AbstractAsyncContextManager[InferenceSession]: ...
    async def free(self) -> None:
        """Give the memory back; waits for open sessions, is not cancelled, never raises."""


class Source(Protocol):
    """Where models of one kind come from."""

    async def look(self, shelved: Shelved) -> Found:
        """Raises LocalError, ExecutionFailed or TransientError when it cannot be served now: the text says why."""

    async def load(self, shelved: Shelved) -> Loaded:
        """Load it. Raises ExecutionFailed or TransientError."""


class TorchRunner(Inference, Protocol):
    """What a ProcessRunner is to this module."""

    def prepare(self) -> None: ...
    async def hold(self) -> None: ...
    def release(self) -> None: ...


class TorchSource:
    """Graphs and weights, kept as bytes; each session hands them to a fresh sandboxed worker."""

    def __init__(self, runner: TorchRunner) -> None:
        self._runner = runner

    async def look(self, shelved: Shelved) -> Found:
        """Both files are there and of a size that a worker takes."""
        sizes, stamp = _stat(shelved.files, STATE_MAX_BYTES)
        return Found(self._runner.execution_class, sum(sizes), stamp)

    async def load(self, shelved: Shelved) -> Loaded:
        """Read the files, compare their digests, and have a warm worker: to start one takes longer than to answer."""
        files = await trio.to_thread.run_sync(read_torch, shelved)
        await self._runner.hold()
        return TorchLoaded(self._runner, files)


def read_torch(shelved: Shelved) -> ModelFiles:
    """The files of a torch model. Raises ExecutionFailed when they are not those of the manifest."""
    manifest = shelved.record.manifest
    try:
        graph, weights = shelved.graph_path.read_bytes(), shelved.weights_path.read_bytes()
    except OSError as error:
        raise ExecutionFailed(f"the model is not here: {error.filename}: {error.strerror}") from None
    if sha256(weights).digest() != manifest.digest:
        raise ExecutionFailed(f"{shelved.weights_path} is not what the manifest names (fix: add the model again)")
    if cid_of(graph) != manifest.graph_cid:
        raise ExecutionFailed(f"{shelved.graph_path} is not what the manifest names (fix: add the model again)")
    return ModelFiles(manifest, graph, weights)


class TorchLoaded:
    """Bytes of one model. The runner is held until it is freed."""

    def __init__(self, runner: TorchRunner, files: ModelFiles) -> None:
        self._runner, self._files = runner, files

    def prepare(self) -> None:
        """Start the worker that will be needed."""
        self._runner.prepare()

    def session(self, task: InferTask) -> AbstractAsyncContextManager[InferenceSession]:
        """A session in a worker of its own."""
        return self._session(task)

    @asynccontextmanager
    async def _session(self, task: InferTask) -> AsyncIterator[InferenceSession]:
        # what does not fit need not cost a worker
        encode_task(task, self._files.manifest.context_length)
        async with self._runner.inference_session(self._files, task) as session:
            yield session

    async def free(self) -> None:
        """Forget the bytes; open sessions have them still."""
        self._runner.release()
        await trio.lowlevel.checkpoint()


class LlamaSource:
    """GGUF files, loaded into this process by llama.cpp."""

    def __init__(self) -> None:
        self._backend: LlamaInference | None = None
        self._caches: dict[str, int] = {}

    async def look(self, shelved: Shelved) -> Found:
        """The file is there; it takes its own size and that of keys and values for its whole context."""
        (path,) = shelved.files
        sizes, stamp = _stat((path,), MODEL_FILE_MAX_BYTES)
        if self._backend is None:
            self._backend = await trio.to_thread.run_sync(LlamaInference)
        if stamp not in self._caches:
            header = await trio.to_thread.run_sync(read_gguf_header, path)
            self._caches = {**self._caches, stamp: header.cache_bytes_per_token}
        cache = self._caches[stamp] * shelved.record.manifest.context_length
        return Found(self._backend.execution_class, sizes[0] + cache, stamp)

    async def load(self, shelved: Shelved) -> LlamaModel:
        """Load the file, and compare its digest."""
        if self._backend is None:
            self._backend = await trio.to_thread.run_sync(LlamaInference)
        return await self._backend.load(ModelFiles(shelved.record.manifest, path=shelved.record.path))


class OllamaSource:
    """Models of servers. The server loads and unloads them; here they take no memory."""

    async def look(self, shelved: Shelved) -> Found:
        """The server answers, and has the model with the manifest's digest."""
        record = shelved.record
        async with open_ollama(record.server, silence_max_s=MODEL_LOOK_PATIENCE_S) as backend:
            await _same(backend, shelved)
            warm = await backend.in_memory(record.server_model)
            return Found(backend.execution_class, 0, backend.execution_class.hex(), warm)

    async def load(self, shelved: Shelved) -> Loaded:
        """Have the server load it."""
        record = shelved.record
        async with open_ollama(record.server) as backend:
            await _same(backend, shelved)
            await backend.load(record.server_model, record.manifest.context_length)
            return OllamaLoaded(shelved, backend.execution_class)


class OllamaLoaded:
    """A model that its server keeps in memory for a while after each use."""

    def __init__(self, shelved: Shelved, execution_class: bytes) -> None:
        self._shelved, self._class = shelved, execution_class

    def prepare(self) -> None:
        """The server has it."""

    def session(self, task: InferTask) -> AbstractAsyncContextManager[InferenceSession]:
        """A session on a connection of its own."""
        return self._session(task)

    @asynccontextmanager
    async def _session(self, task: InferTask) -> AsyncIterator[InferenceSession]:
        record = self._shelved.record
        files = ModelFiles(msgspec.structs.replace(record.manifest, name=record.server_model))
        async with open_ollama(record.server) as backend:
            if backend.execution_class != self._class:
                raise TransientError(f"the model server at {record.server} has become another version")
            async with backend.inference_session(files, task) as session:
                yield session

    async def free(self) -> None:
        """The server does that by itself: others may use the model."""
        await trio.lowlevel.checkpoint()


async def _same(backend: OllamaInference, shelved: Shelved) -> None:
    found = await backend.digest_of(shelved.record.server_model)
    if found != shelved.record.manifest.digest:
        name = shelved.record.server_model
        raise ExecutionFailed(f"the model server's {name} is another model by now: its digest is {found.hex()[:16]}")


def _stat(paths: tuple[Path, ...], most: int) -> tuple[list[int], str]:
    sizes, stamps = [], []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            raise ExecutionFailed(f"{path}: {error.strerror}") from None
        if not S_ISREG(status.st_mode):
            raise ExecutionFailed(f"{path} is no file")
        if not 0 < status.st_size <= most:
            raise LocalError(f"has {status.st_size} bytes", field=str(path), fix=f"from 1 to {most}")
        sizes.append(status.st_size)
        stamps.append(f"{path}:{status.st_size}:{status.st_mtime_ns}")
    return sizes, " ".join(stamps)
