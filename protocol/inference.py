"""What an inference is asked for and what comes out of it: models, tasks, tokens, results, and their checks.

Pure data. A task names prompts and a sampling law that has no freedom left (seed, temperature, top k), so that a
result can be checked; a manifest names one model down to the digest of its weights. The bounds stand once, in the
types: bytes from a peer are refused by the codec, a user's values by `check_manifest` and `check_task` with field and
fix. docs/inference.md describes the law. No floats: `_micro` is 10^-6.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .errors import LocalError
from .limits import (
    ANSWERS_MAX_BYTES,
    CONTEXT_MAX,
    FRAMING_TOKENS_MAX,
    MODEL_NAME_MAX_CHARS,
    PREDICT_MAX,
    PROMPT_MAX_BYTES,
    PROMPTS_MAX,
    TEMPERATURE_MICRO_MAX,
    TOP_K_MAX,
)
from .spec import Bytes32, CidText, TrainSpec

ModelKind = Literal["torch", "gguf", "ollama"]
StopReason = Literal["end", "length", "context"]
"""The model's end token; `num_predict` tokens; no room left in the context."""
PromptText = Annotated[str, Meta(max_length=PROMPT_MAX_BYTES)]


class ModelManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model, named so that it cannot be exchanged for another."""

    name: Annotated[str, Meta(max_length=MODEL_NAME_MAX_CHARS, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*\Z")]
    """As a person or a model server calls it, for example 'smollm2:135m'."""
    kind: ModelKind
    digest: Bytes32
    """sha256 of the safetensors blob or the GGUF file, or what an Ollama server lists for the model."""
    graph_cid: CidText | None = None
    """torch: canonical JSON of the model graph."""
    weights_cid: CidText | None = None
    """torch: safetensors of the parameters. Optional for gguf, where it is the CID of the file."""
    tokenizer: Literal["bytes", "model"]
    """'bytes': 256 bytes and an end token; 'model': the one inside the file or the server."""
    quantisation: Annotated[str, Meta(max_length=16, pattern=r"^[A-Za-z0-9_]+\Z")]
    """'float32' for torch; as the file says for the others, for example 'Q4_1'."""
    context_length: Annotated[int, Meta(ge=2, le=CONTEXT_MAX)]
    """Tokens of prompt and answer together."""


class InferTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prompts, and how each is to be continued. With equal fields and model every honest worker gives one answer."""

    prompts: Annotated[tuple[PromptText, ...], Meta(min_length=1, max_length=PROMPTS_MAX)]
    system: PromptText = ""
    """Stands before each prompt; how, is a matter of the backend."""
    temperature_micro: Annotated[int, Meta(ge=0, le=TEMPERATURE_MICRO_MAX)] = 0
    """0 is greedy."""
    top_k: Annotated[int, Meta(ge=1, le=TOP_K_MAX)] = 40
    """Likeliest tokens that sampling may choose from; without effect when greedy."""
    num_predict: Annotated[int, Meta(ge=1, le=PREDICT_MAX)] = 128
    """At most this many tokens for each prompt, the end token included."""
    seed: Annotated[int, Meta(ge=0, le=2**53)] = 0


class InferSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One inference job, complete. Like a TrainSpec it travels to the winner and the committee alone."""

    model: Bytes32
    """`model_id` of the manifest that workers and members have."""
    backend: Bytes32
    """Execution class of the backend."""
    task: InferTask
    secret: Bytes32


JobSpec = TrainSpec | InferSpec


def model_id(manifest: ModelManifest) -> bytes:
    """32 bytes that name all of a model that decides about its answers; what a person calls it is left out."""
    nameless = msgspec.structs.replace(manifest, name="model")
    return sha256(b"cyx/model" + msgspec.msgpack.encode(nameless, order="deterministic")).digest()


def prompt_tokens_most(task: InferTask) -> int:
    """Most tokens that prompts and system texts can have: one a byte, and some for the model's own framing of each."""
    each = len(task.system.encode()) + FRAMING_TOKENS_MAX
    return sum(len(prompt.encode()) + each for prompt in task.prompts)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A manifest and what it names, as far as the node holds it."""

    manifest: ModelManifest
    graph: bytes = b""
    """torch: the blob of `graph_cid`."""
    weights: bytes = b""
    """torch: the blob of `weights_cid`."""
    path: str = ""
    """gguf: the local file."""


@dataclass(frozen=True, slots=True)
class TokensGenerated:
    """A piece of an answer as it grows. Backends that only know text leave `tokens` empty."""

    prompt_index: int
    position: int
    """Of the first of `tokens` in the answer, 0-based; without tokens, the number of pieces before."""
    tokens: tuple[int, ...]
    text: str
    """What these tokens add to the text; empty in the middle of a character, and where only the end is told."""
    last: bool
    """Whether the answer ends here: every answer has one such piece, and none after it."""


@dataclass(frozen=True, slots=True)
class Generated:
    """The finished answer to one prompt: what a worker claims and is paid for."""

    prompt_index: int
    text: str
    tokens: tuple[int, ...]
    """All chosen tokens in order, the end token included; empty when the backend knows only text."""
    prompt_tokens: int
    """Tokens of system text and prompt."""
    generated_tokens: int
    stop_reason: StopReason
    compute_ms: int
    trace: bytes
    """Little-endian float32 logit of each chosen token, to the bit what a verifier of the class computes; empty when
    the backend knows none, or while it is sealed."""


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Generated as it is delivered; its trace stays sealed until the verdicts are."""

    text: Annotated[str, Meta(max_length=ANSWERS_MAX_BYTES)]
    tokens: Annotated[bytes, Meta(max_length=4 * PREDICT_MAX)]
    """uint32, little-endian."""
    prompt_tokens: Annotated[int, Meta(ge=0, le=CONTEXT_MAX)]
    generated_tokens: Annotated[int, Meta(ge=0, le=PREDICT_MAX)]
    stop_reason: StopReason
    compute_ms: Annotated[int, Meta(ge=0, le=2**53)]

    def __post_init__(self) -> None:
        if self.tokens and len(self.tokens) != 4 * self.generated_tokens:
            raise ValueError("tokens and generated_tokens do not agree")


class Answers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The result of an inference, one answer a prompt, in order. At most ANSWERS_MAX_BYTES when encoded."""

    answers: Annotated[tuple[Answer, ...], Meta(min_length=1, max_length=PROMPTS_MAX)]


def answer_of(generated: Generated) -> Answer:
    """What is delivered of an answer."""
    return Answer(
        text=generated.text,
        tokens=struct.pack(f"<{len(generated.tokens)}I", *generated.tokens),
        prompt_tokens=generated.prompt_tokens,
        generated_tokens=generated.generated_tokens,
        stop_reason=generated.stop_reason,
        compute_ms=generated.compute_ms,
    )


def generated_of(answer: Answer, prompt_index: int, trace: bytes = b"") -> Generated:
    """A delivered answer as what a verifier judges."""
    return Generated(
        prompt_index=prompt_index,
        text=answer.text,
        tokens=struct.unpack(f"<{len(answer.tokens) // 4}I", answer.tokens),
        prompt_tokens=answer.prompt_tokens,
        generated_tokens=answer.generated_tokens,
        stop_reason=answer.stop_reason,
        compute_ms=answer.compute_ms,
        trace=trace,
    )


@dataclass(frozen=True, slots=True)
class InferenceCheck:
    """A verifier's judgement of one Generated. Gaps are in 10^-6 logits; 0 where the backend compares tokens alone."""

    ok: bool
    exact_ppm: int
    """Share of tokens that are the verifier's own best choice, in parts per million."""
    max_gap_micro: int
    mean_gap_micro: int
    reason: str
    """Why not; empty when ok. One line that names the field or the token."""
    trace: bytes
    """Logit bits of the claimed tokens as the verifier computed them: equal among verifiers of a class, and not a copy
    of the worker's. Its digest proves the replay. Empty when the claim was refused before anything was computed."""


_FIXES = {
    "name": "letters, digits and . _ : / -, as in 'smollm2:135m'",
    "kind": "torch, gguf or ollama",
    "digest": "the 32 bytes of the sha256 of the weights",
    "graph_cid": "the CID of the model graph",
    "weights_cid": "the CID of the weights",
    "tokenizer": "bytes for torch, model for gguf and ollama",
    "quantisation": "float32 for torch, else what the file says, as in Q4_1",
    "context_length": f"from 2 to {CONTEXT_MAX}",
    "prompts": f"1 to {PROMPTS_MAX} texts of at most {PROMPT_MAX_BYTES} bytes",
    "system": f"at most {PROMPT_MAX_BYTES} bytes",
    "temperature_micro": f"from 0 (greedy) to {TEMPERATURE_MICRO_MAX}",
    "top_k": f"from 1 to {TOP_K_MAX}",
    "num_predict": f"from 1 to {PREDICT_MAX}",
    "seed": "from 0 to 2^53",
}
_WHERE = re.compile(r"(?s)(.*?)(?: - at `\$\.?(.*)`)?")


def check_manifest(manifest: ModelManifest) -> None:
    """Refuse a manifest that breaks a bound or does not fit its kind. Raises LocalError with field 'model.…'."""
    _check_bounds(manifest, "model")
    torch = manifest.kind == "torch"
    for name in ("graph_cid", "weights_cid"):
        if torch and getattr(manifest, name) is None:
            raise LocalError("is missing", field=f"model.{name}", fix=f"add {_FIXES[name]}")
    if not torch and manifest.graph_cid is not None:
        raise LocalError(f"has no meaning for {manifest.kind}", field="model.graph_cid", fix="leave it out")
    if manifest.tokenizer != ("bytes" if torch else "model"):
        raise LocalError(f"does not fit {manifest.kind}", field="model.tokenizer", fix=_FIXES["tokenizer"])
    if torch and manifest.quantisation != "float32":
        raise LocalError("is not what torch computes in", field="model.quantisation", fix="float32")


def check_task(task: InferTask) -> None:
    """Refuse a task that breaks a bound, or whose texts are no UTF-8. Raises LocalError with field 'task.…'."""
    _check_bounds(task, "task")
    for field, text in (("system", task.system), *((f"prompts[{i}]", text) for i, text in enumerate(task.prompts))):
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise LocalError("holds a lone surrogate", field=f"task.{field}", fix="write proper Unicode") from None
        if size > PROMPT_MAX_BYTES:
            fix = f"at most {PROMPT_MAX_BYTES}"
            raise LocalError(f"has {size} bytes", field=f"task.{field}", fix=fix)
        if not size and field != "system":
            raise LocalError("is empty", field=f"task.{field}", fix="write at least one character")


def _check_bounds(value: msgspec.Struct, prefix: str) -> None:
    """The types' own bounds, which msgspec applies when it decodes, applied to a value made in Python."""
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    try:
        msgspec.convert(fields, type(value), builtin_types=(bytes,))
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        match = _WHERE.fullmatch(str(error))
        message, where = (match[1], match[2] or "") if match else (str(error), "")
        fix = _FIXES.get(re.split(r"[.\[]", where)[0], "see docs/inference.md")
        raise LocalError(message[:120], field=f"{prefix}.{where}".rstrip("."), fix=fix) from None
