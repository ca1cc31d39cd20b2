"""An Ollama server as a backend (extra `ollama`): any server with `/api/generate`, spoken to with the official client.

The server is the operator's own and does the computing, so nothing here can pin what it does: its class is its version
and what the operator says of its machine. It gives text, no token ids and no logits; a claim is checked by running the
prompt again and comparing texts. Errors say whose fault they are: LocalError the requester's, ExecutionFailed this
node's, TransientError a server that is down or too slow and may be back later.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from hashlib import sha256
from typing import Any, cast

import trio

from ..protocol.errors import ExecutionFailed, LocalError, TransientError
from ..protocol.inference import (
    Generated,
    InferTask,
    ModelFiles,
    StopReason,
    TokensGenerated,
    check_manifest,
    check_task,
)
from ..protocol.limits import (
    CONTEXT_MAX,
    MICRO,
    MODEL_IDLE_MAX_S,
    MODEL_SERVER_CONNECT_S,
    MODEL_SERVER_REPLY_MAX_BYTES,
    MODEL_SERVER_SILENCE_S,
)
from .class_digest import class_digest
from .repeated_text import Emit, RepeatingSession

_SEEDS = 2**31


class OllamaSession(RepeatingSession):
    """One model of the server with one task. Cancelling closes the connection, at which the server stops."""

    def __init__(self, server: OllamaInference, model: ModelFiles, task: InferTask) -> None:
        super().__init__(model, task)
        self._server = server

    async def _answer(self, index: int, emit: Emit | None) -> Generated:
        started, pieces, size = trio.current_time(), list[str](), 0
        options = request_options(self._task, index, self._model.context_length)
        claim: Generated | None = None
        async with aclosing(self._server.stream(self._model.name, self._task, index, options)) as parts:
            async for part in parts:
                # JSON can hold half a surrogate pair, which no other encoding can
                text = (part.response or "").encode(errors="replace").decode()
                size += len(text.encode())
                if size > MODEL_SERVER_REPLY_MAX_BYTES:
                    raise ExecutionFailed(f"the model server sent more than {MODEL_SERVER_REPLY_MAX_BYTES} bytes")
                if emit is not None and (text or part.done):
                    await emit(TokensGenerated(index, len(pieces), (), text, bool(part.done)))
                if text:
                    pieces.append(text)
                if part.done:
                    claim = self._claim(index, pieces, part, round(1000 * (trio.current_time() - started)))
        if claim is None:
            raise ExecutionFailed("the model server ended its answer in the middle")
        return claim

    def _claim(self, index: int, pieces: list[str], last: Any, elapsed_ms: int) -> Generated:
        # a server of another make may leave counts out: then the pieces are counted, which are tokens at the least
        count = int(last.eval_count or len(pieces))
        stop: StopReason = "end"
        if last.done_reason == "length":
            stop = "length" if count >= self._task.num_predict else "context"
        prompt_tokens = int(last.prompt_eval_count or 0)
        return Generated(index, "".join(pieces), (), prompt_tokens, count, stop, elapsed_ms, b"")


def request_options(task: InferTask, index: int, context: int) -> dict[str, Any]:
    """The sampling law in Ollama's words: only top k and temperature shape the choice."""
    digest = sha256(b"cyx/infer/ollama" + struct.pack("<2Q", task.seed, index)).digest()
    return {
        "temperature": task.temperature_micro / MICRO,
        "top_k": task.top_k,
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "num_predict": task.num_predict,
        "num_ctx": context,
        "seed": int.from_bytes(digest[:8], "little") % _SEEDS,
    }


class OllamaInference:
    """Makes sessions with one server. Get one from `open_ollama`."""

    def __init__(self, client: Any, errors: type[Exception], url: str, version: str, silence_max_s: float) -> None:
        self._client, self._refused, self._url = client, errors, url
        self._silence_max_s = silence_max_s
        self._described = {"ollama": version}

    @property
    def execution_class(self) -> bytes:
        """Digest of the server's version: all that it tells."""
        return class_digest(self._described)

    @property
    def description(self) -> dict[str, str]:
        """What the class covers, `device` (the server's own), and `sandbox` (none)."""
        return {**self._described, "device": "server", "sandbox": "none"}

    def inference_session(self, model: ModelFiles, task: InferTask) -> AbstractAsyncContextManager[OllamaSession]:
        """A session; the server must have the model, with the manifest's digest, when it is entered."""
        return self._inference_session(model, task)

    @asynccontextmanager
    async def _inference_session(self, model: ModelFiles, task: InferTask) -> AsyncIterator[OllamaSession]:
        check_manifest(model.manifest)
        check_task(task)
        name = model.manifest.name
        if model.manifest.kind != "ollama":
            raise LocalError(f"is {model.manifest.kind}", field="model.kind", fix="this backend runs ollama models")
        found = await self.digest_of(name)
        if found != model.manifest.digest:
            raise ExecutionFailed(f"the model server's {name} is another model: its digest is {found.hex()}")
        yield OllamaSession(self, model, task)

    async def digests(self) -> dict[str, bytes]:
        """The server's models and their digests; empty bytes where it names none. Raises TransientError."""
        listed = await self._asked(self._client.list)
        return {str(model.model): _digest(model.digest) for model in listed.models}

    async def digest_of(self, name: str) -> bytes:
        """The digest of one of them. Raises ExecutionFailed when it is not there."""
        digests = await self.digests()
        found = digests.get(name) or digests.get(f"{name}:latest")
        if found is None:
            raise ExecutionFailed(f"the model server has no {name} (fix: ollama pull {name})")
        return found

    async def about(self, name: str) -> tuple[str, int]:
        """Quantisation and trained context of a model; '' and 0 where the server does not say."""
        try:
            shown = await self._asked(self._client.show, name)
        except ExecutionFailed:
            return "", 0
        quantisation = getattr(shown.details, "quantization_level", None) or ""
        lengths = [
            value
            for key, value in (shown.modelinfo or {}).items()
            if str(key).endswith(".context_length") and isinstance(value, int) and value > 0
        ]
        return str(quantisation)[:16], min([*lengths, CONTEXT_MAX]) if lengths else 0

    async def in_memory(self, name: str) -> bool | None:
        """Whether the server has a model loaded; None where it does not tell."""
        try:
            loaded = await self._asked(self._client.ps)
        except ExecutionFailed:
            return None
        return any(str(model.model) in (name, f"{name}:latest") for model in loaded.models)

    async def load(self, name: str, context: int) -> None:
        """Have the server load a model, with the context that its sessions ask for."""
        options = {"num_ctx": context}
        await self._asked(self._client.generate, model=name, prompt="", options=options, keep_alive=MODEL_IDLE_MAX_S)

    async def _asked(self, call: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        with trio.move_on_after(self._silence_max_s):
            async with self._errors_named(None):
                return await call(*arguments, **named)
        raise TransientError(f"the model server at {self._url} has been silent for {self._silence_max_s:g} s")

    async def stream(
        self, name: str, task: InferTask, index: int, options: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Parts of one answer. Raises what the module says."""
        prompt, system = task.prompts[index], task.system or None
        request: dict[str, Any] = {
            "model": name,
            "prompt": prompt,
            "system": system,
            "options": options,
            "stream": True,
        }
        request["keep_alive"] = MODEL_IDLE_MAX_S
        parts: Any = None
        try:
            while True:
                with trio.move_on_after(self._silence_max_s) as patience:
                    async with self._errors_named(index):
                        if parts is None:
                            parts = await self._client.generate(**request)
                        part = await anext(parts, None)
                if patience.cancelled_caught:
                    raise TransientError(f"the model server has been silent for {self._silence_max_s:g} s")
                if part is None:
                    return
                yield part
        finally:
            if parts is not None:
                await _unwind(parts)

    @asynccontextmanager
    async def _errors_named(self, index: int | None) -> AsyncIterator[None]:
        import httpx

        try:
            yield
        except self._refused as error:
            status, message = cast(Any, error).status_code, str(cast(Any, error).error)[:200]
            if status == 400 and index is not None:
                fix = "shorten or change the prompt"
                raise LocalError(
                    f"the model server refuses it: {message}", field=f"task.prompts[{index}]", fix=fix
                ) from None
            raise ExecutionFailed(f"the model server failed ({status}): {message}") from None
        except (httpx.ConnectError, httpx.ConnectTimeout, ConnectionError):
            raise TransientError(f"no model server answers at {self._url} (fix: ollama serve)") from None
        except httpx.HTTPError as error:
            raise ExecutionFailed(f"the model server broke off: {error or type(error).__name__}"[:200]) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ExecutionFailed(f"the model server sent nonsense: {str(error)[:80]}") from None


async def _unwind(parts: Any) -> None:
    """End a stream early. Generators inside httpx that are left suspended would wait for the garbage collector; a read
    that is cancelled ends them all, and the connection."""
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        async for _ in parts:
            pass


@asynccontextmanager
async def open_ollama(
    url: str = "http://127.0.0.1:11434", *, silence_max_s: float = MODEL_SERVER_SILENCE_S
) -> AsyncIterator[OllamaInference]:
    """Connect to a server and learn its version.

    Raises LocalError when the package is not installed, TransientError when no server answers.
    """
    try:
        import httpx
        import ollama
    except ImportError:
        raise LocalError("needs the ollama client", field="backend", fix="pip install 'cyxnode[ollama]'") from None
    timeout = httpx.Timeout(None, connect=MODEL_SERVER_CONNECT_S)
    # proxies from the environment are for the internet, not for the operator's own server
    async with httpx.AsyncClient(base_url=url, timeout=timeout, trust_env=False) as plain:
        version = "unknown"
        with trio.move_on_after(silence_max_s) as patience:
            try:
                reply = await plain.get("/api/version")
                if reply.is_success:
                    version = str(reply.json()["version"])[:64]
            except (ValueError, KeyError, TypeError):
                pass
            except httpx.HTTPError:
                raise TransientError(f"no model server answers at {url} (fix: ollama serve)") from None
        if patience.cancelled_caught:
            raise TransientError(f"the model server at {url} has been silent for {silence_max_s:g} s")
    client = ollama.AsyncClient(host=url, timeout=timeout, trust_env=False)
    try:
        yield OllamaInference(client, ollama.ResponseError, url, version, silence_max_s)
    finally:
        with trio.CancelScope(shield=True):
            await client._client.aclose()


def _digest(text: str | None) -> bytes:
    try:
        return bytes.fromhex((text or "").removeprefix("sha256:"))
    except ValueError:
        return b""
