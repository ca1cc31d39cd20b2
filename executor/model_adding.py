"""From what an operator has (files, or a model of a server) to a record for the shelf, and the proof that it works.

What decides about the answers is read from the files and the server and not asked of a person, so that two nodes with
the same model name it alike. Each Draft passes the same checks that a shelf makes again at every look.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import trio

from ..protocol.cid import cid_of
from ..protocol.errors import ExecutionFailed, LocalError
from ..protocol.inference import Generated, InferTask, ModelFiles, ModelManifest, TokensGenerated
from ..protocol.limits import (
    CONTEXT_MAX,
    GRAPH_MAX_BYTES,
    MODEL_CONTEXT_DEFAULT,
    MODEL_FILE_MAX_BYTES,
    MODEL_LOOK_PATIENCE_S,
    MODEL_TRY_TOKENS,
    STATE_MAX_BYTES,
)
from .causal import check_model, parse_causal_graph
from .gguf import read_gguf_header
from .graph import canonical_graph
from .model_record import Record, check_record, write_record
from .model_session import Speed
from .model_sources import Source
from .ollama_server import open_ollama

_READ_BYTES = 1 << 20
TRIAL = InferTask(prompts=("Hi",), num_predict=MODEL_TRY_TOKENS)


@dataclass(frozen=True, slots=True)
class Draft:
    """A record that is on no shelf yet, with the blobs of a torch model."""

    record: Record
    graph: bytes = b""
    weights: bytes = b""


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-CYX for 1,000 tokens."""

    prompt: int
    generated: int


def draft_torch(name: str, graph_path: Path, weights_path: Path, rates: Rates) -> Draft:
    """A graph and safetensors, as a training job delivers them. Raises LocalError with field and fix."""
    graph = canonical_graph(_read(graph_path, GRAPH_MAX_BYTES, "torch.graph"))
    weights = _read(weights_path, STATE_MAX_BYTES, "torch.weights")
    manifest = ModelManifest(
        name=name,
        kind="torch",
        digest=sha256(weights).digest(),
        graph_cid=cid_of(graph),
        weights_cid=cid_of(weights),
        tokenizer="bytes",
        quantisation="float32",
        context_length=parse_causal_graph(graph).input_shape[0],
    )
    check_model(ModelFiles(manifest, graph, weights))
    return Draft(_checked(manifest, rates), graph, weights)


def draft_gguf(name: str, path: Path, rates: Rates, *, context: int | None = None) -> Draft:
    """A GGUF file, read once from end to end for its digest. `context`: None for what the file says, bounded."""
    header = read_gguf_header(path)
    manifest = ModelManifest(
        name=name,
        kind="gguf",
        digest=_digest(path),
        tokenizer="model",
        quantisation=_quantisation(header.quantisation),
        context_length=_context(context, header.context_length),
    )
    return Draft(_checked(manifest, rates, path=str(path.resolve())))


async def draft_ollama(name: str, server: str, model: str, rates: Rates, *, context: int | None = None) -> Draft:
    """A model that a server has. Raises TransientError when the server does not answer."""
    if not re.fullmatch(r"https?://[^\s/]+/?", server):
        raise LocalError(f"{server[:80]!r} is no URL", field="ollama", fix="write it like http://127.0.0.1:11434")
    async with open_ollama(server, silence_max_s=MODEL_LOOK_PATIENCE_S) as backend:
        digest = await backend.digest_of(model)
        quantisation, trained = await backend.about(model)
    if len(digest) != 32:
        fix = "serve it with Ollama: without a digest nobody knows which model it is"
        raise LocalError(f"the server names no digest of {model}", field="ollama", fix=fix)
    manifest = ModelManifest(
        name=name,
        kind="ollama",
        digest=digest,
        tokenizer="model",
        quantisation=_quantisation(quantisation),
        context_length=_context(context, trained),
    )
    return Draft(_checked(manifest, rates, server=server, server_model=model))


def _checked(
    manifest: ModelManifest, rates: Rates, *, path: str = "", server: str = "", server_model: str = ""
) -> Record:
    record = Record(
        manifest=manifest,
        prompt_rate=rates.prompt,
        generated_rate=rates.generated,
        path=path,
        server=server,
        server_model=server_model,
    )
    check_record(record)
    return record


def _quantisation(said: str) -> str:
    return said if re.fullmatch(r"[A-Za-z0-9_]{1,16}", said) else "unknown"


def _context(wanted: int | None, trained: int) -> int:
    if wanted is None:
        return min(trained or MODEL_CONTEXT_DEFAULT, MODEL_CONTEXT_DEFAULT)
    most = trained or CONTEXT_MAX
    if not 2 <= wanted <= most:
        raise LocalError(f"{wanted} tokens are not possible", field="context", fix=f"from 2 to {most}")
    return wanted


def _read(path: Path, most: int, field: str) -> bytes:
    try:
        if path.stat().st_size > most:
            raise LocalError(f"{path} has more than {most} bytes", field=field, fix="serve a smaller model")
        return path.read_bytes()
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field=field, fix="correct the path") from None


def _digest(path: Path) -> bytes:
    try:
        if path.stat().st_size > MODEL_FILE_MAX_BYTES:
            raise LocalError(f"has more than {MODEL_FILE_MAX_BYTES} bytes", field="gguf", fix="serve a smaller model")
        hasher = sha256()
        with path.open("rb") as file:
            while part := file.read(_READ_BYTES):
                hasher.update(part)
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="gguf", fix="correct the path") from None
    return hasher.digest()


async def try_draft(draft: Draft, source: Source, say: Callable[[str], None]) -> Draft:
    """Load the model as a shelf would, have it write a few tokens, and check them as a verifier would.

    Returns the draft with its measured speed; pieces of text go to `say`. Raises ExecutionFailed when the node could
    not prove its own answer, and what sessions raise.
    """

    async def emit(event: TokensGenerated) -> None:
        say(event.text)
        await trio.lowlevel.checkpoint()

    with TemporaryDirectory(prefix="cyxnode-model-") as folder:
        shelved = write_record(Path(folder), draft.record, graph=draft.graph, weights=draft.weights)
        await source.look(shelved)
        loaded = await source.load(shelved)
        try:
            async with loaded.session(TRIAL) as session:
                (answer,) = await session.generate(emit)
                verdict = await session.check(answer)
        finally:
            await loaded.free()
    if not verdict.ok:
        raise ExecutionFailed(f"the model does not stand by its own answer, so others would not: {verdict.reason}")
    return Draft(_measured(draft.record, answer), draft.graph, draft.weights)


def _measured(record: Record, answer: Generated) -> Record:
    speed = Speed(record)
    # what a quick answer took is rounded to milliseconds
    speed.add(answer.generated_tokens, max(1, answer.compute_ms))
    return msgspec.structs.replace(record, tokens_per_s_micro=speed.tokens_per_s_micro)
