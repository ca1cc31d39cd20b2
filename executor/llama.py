"""llama.cpp inside this process, through the `xllamacpp` package (extra `llama`): models as GGUF files.

One thread, because that is faster on a busy machine and part of the class. Loading computes the file's digest. Sessions
of a loaded model take turns; a session of the backend itself loads, and frees at its end. The chat template is the
model's own. A claim is checked by running the task again: llama.cpp has no teacher-forced pass through this interface,
so a check costs what generating cost. The file is the operator's choice and prompts are data; but the library is native
code in the node's own process: a crash of it is a crash of the node.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import trio

from ..protocol.errors import ExecutionFailed, LocalError
from ..protocol.inference import Generated, InferTask, ModelFiles, TokensGenerated, check_manifest, check_task
from ..protocol.limits import MODEL_FILE_MAX_BYTES
from .class_digest import class_digest
from .llama_chat import ChatAnswer, chat_request
from .repeated_text import Emit, RepeatingSession

_READ_BYTES = 1 << 20
_QUIET = -1


class LlamaSession(RepeatingSession):
    """One GGUF model with one task."""

    def __init__(self, server: Any, model: ModelFiles, task: InferTask) -> None:
        super().__init__(model, task)
        self._server = server

    async def _answer(self, index: int, emit: Emit | None) -> Generated:
        answer, started = ChatAnswer(index), trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                # a slow receiver makes the model wait: the callback blocks until there is room
                sender, receiver = trio.open_memory_channel[TokensGenerated](1)
                nursery.start_soon(self._stream, answer, sender)
                async with receiver:
                    async for event in receiver:
                        if emit is not None:
                            await emit(event)
        except BaseExceptionGroup as group:
            # what is alone in the group was raised by `emit`
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise
        if answer.error:
            raise answer.error
        return answer.finished(self._task.num_predict, round(1000 * (trio.current_time() - started)))

    async def _stream(self, answer: ChatAnswer, sender: trio.MemorySendChannel[TokensGenerated]) -> None:
        request = chat_request(self._task, answer.prompt_index)

        def heard(chunk: Any) -> bool:
            """Called in the thread for each chunk; true ends the generation. Exceptions would be lost here."""
            try:
                event = answer.add(chunk)
                if event is not None:
                    trio.from_thread.run(sender.send, event)
            except (trio.Cancelled, trio.BrokenResourceError, trio.RunFinishedError):
                return True
            except Exception as error:
                answer.error = ExecutionFailed(f"llama.cpp sent what was not expected: {error!r}"[:200])
                return True
            return answer.error is not None

        async with sender:
            reply = await trio.to_thread.run_sync(self._server.handle_chat_completions, request, heard)
            if isinstance(reply, dict):
                answer.add(reply)


class LlamaModel:
    """A loaded file, until `free`."""

    def __init__(self, server: Any, model: ModelFiles) -> None:
        self._servers, self._model = [server], model
        self._turn = trio.Lock()

    def prepare(self) -> None:
        """It is ready."""

    def session(self, task: InferTask) -> AbstractAsyncContextManager[LlamaSession]:
        """A session, once those before it have ended. Entering raises LocalError for a task that is none."""
        return self._session(task)

    @asynccontextmanager
    async def _session(self, task: InferTask) -> AsyncIterator[LlamaSession]:
        check_task(task)
        async with self._turn:
            if not self._servers:
                raise ExecutionFailed("the model has been unloaded")
            yield LlamaSession(self._servers[0], self._model, task)

    async def free(self) -> None:
        """Give its memory back, once the session that runs has ended. Idempotent."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                # its destructor waits for the library's own threads
                await trio.to_thread.run_sync(self._servers.clear)


class LlamaInference:
    """Makes sessions. Raises LocalError when the package is not installed."""

    def __init__(self) -> None:
        self._library = _library()
        self._described = {
            "llama": str(self._library.BUILD_INFO),
            "package": _version(),
            "machine": platform.machine(),
            "system": str(self._library.get_system_info()),
            "threads": "1",
        }

    @property
    def execution_class(self) -> bytes:
        """Digest of build, instruction sets and threads."""
        return class_digest(self._described)

    @property
    def description(self) -> dict[str, str]:
        """What the class covers, `device`, and `sandbox` (none: it runs in the node's process)."""
        return {**self._described, "device": "cpu", "sandbox": "none"}

    def inference_session(self, model: ModelFiles, task: InferTask) -> AbstractAsyncContextManager[LlamaSession]:
        """A session; the file is loaded when it is entered."""
        return self._inference_session(model, task)

    @asynccontextmanager
    async def _inference_session(self, model: ModelFiles, task: InferTask) -> AsyncIterator[LlamaSession]:
        check_task(task)
        loaded = await self.load(model)
        try:
            async with loaded.session(task) as session:
                yield session
        finally:
            await loaded.free()

    async def load(self, model: ModelFiles) -> LlamaModel:
        """Load a file. Raises LocalError for a manifest that is not of one, ExecutionFailed when it is not here, is
        another one, or does not load."""
        check_manifest(model.manifest)
        if model.manifest.kind != "gguf":
            raise LocalError(f"is {model.manifest.kind}", field="model.kind", fix="this backend runs gguf models")
        return LlamaModel(await trio.to_thread.run_sync(self._load, model), model)

    def _load(self, model: ModelFiles) -> Any:
        digest_matches(Path(model.path), model.manifest.digest)
        library = self._library
        parameters = library.CommonParams()
        parameters.model.path = model.path
        parameters.n_ctx = model.manifest.context_length
        parameters.n_parallel = 1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        parameters.warmup = False
        parameters.verbosity = _QUIET
        parameters.cache_ram_mib = 0
        # the library always listens on loopback too: nobody knows the key
        parameters.hostnames = ["127.0.0.1"]
        parameters.api_keys = [secrets.token_hex(32)]
        try:
            return library.Server(parameters)
        except Exception as error:
            raise ExecutionFailed(f"llama.cpp cannot load {model.path}: {str(error)[:120]}") from None


def digest_matches(path: Path, digest: bytes) -> None:
    """Raises ExecutionFailed unless the file is there and has this sha256."""
    try:
        if path.stat().st_size > MODEL_FILE_MAX_BYTES:
            raise ExecutionFailed(f"{path} has more than {MODEL_FILE_MAX_BYTES} bytes")
        hasher = sha256()
        with path.open("rb") as file:
            while part := file.read(_READ_BYTES):
                hasher.update(part)
    except OSError as error:
        raise ExecutionFailed(f"the model is not here: {path}: {error.strerror}") from None
    if hasher.digest() != digest:
        raise ExecutionFailed(f"{path} is not the model that the manifest names: its sha256 is {hasher.hexdigest()}")


def _library() -> Any:
    try:
        import xllamacpp
    except ImportError:
        raise LocalError("needs xllamacpp", field="backend", fix="pip install 'cyxnode[llama]'") from None
    return cast(Any, xllamacpp)


def _version() -> str:
    from importlib.metadata import version

    return version("xllamacpp")
