"""llama.cpp's chat format, which is OpenAI's: the request for one prompt, and what the chunks of its answer amount to.

A plain machine without the library: chunks in, pieces out, and at the end the claim.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from ..protocol.errors import ExecutionFailed, LocalError
from ..protocol.inference import Generated, InferTask, StopReason, TokensGenerated
from ..protocol.limits import MICRO

_SEEDS = 2**32 - 1
"""The largest 32-bit seed means 'random' to llama.cpp."""


@dataclass(slots=True)
class ChatAnswer:
    """What has come for one prompt."""

    prompt_index: int
    tokens: list[int] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    finish: str = ""
    prompt_tokens: int = 0
    error: LocalError | ExecutionFailed | None = None

    def add(self, chunk: Any) -> TokensGenerated | None:
        """Take one chunk of the OpenAI chat format; the event that it makes, if any."""
        if "error" in chunk:
            self.error = self._named(chunk["error"])
            return None
        usage = chunk.get("usage")
        if usage:
            self.prompt_tokens = int(usage["prompt_tokens"])
        if not chunk.get("choices"):
            return None
        choice = chunk["choices"][0]
        last = bool(choice.get("finish_reason"))
        self.finish = choice.get("finish_reason") or self.finish
        text = choice.get("delta", {}).get("content") or ""
        entries = (choice.get("logprobs") or {}).get("content") or []
        if not text and not entries and not last:
            return None
        position, tokens = len(self.tokens), tuple(int(entry["id"]) for entry in entries)
        self.tokens += tokens
        self.logits += [float(entry["logprob"]) for entry in entries]
        self.pieces.append(text)
        return TokensGenerated(self.prompt_index, position, tokens, text, last)

    def _named(self, error: Any) -> LocalError | ExecutionFailed:
        message = str(error.get("message", error))[:200]
        if error.get("type") in ("exceed_context_size_error", "invalid_request_error"):
            return LocalError(message, field=f"task.prompts[{self.prompt_index}]", fix="shorten or change the prompt")
        return ExecutionFailed(f"llama.cpp: {message}")

    def finished(self, num_predict: int, elapsed_ms: int) -> Generated:
        """The claim. Raises ExecutionFailed when the stream broke off."""
        stop: StopReason
        if self.finish == "stop":
            stop = "end"
        elif self.finish == "length":
            stop = "length" if len(self.tokens) >= num_predict else "context"
        else:
            raise ExecutionFailed(f"llama.cpp ended without an answer ({self.finish or 'no reason'})")
        trace = struct.pack(f"<{len(self.logits)}f", *self.logits)
        text, count = "".join(self.pieces), len(self.tokens)
        return Generated(
            self.prompt_index, text, tuple(self.tokens), self.prompt_tokens, count, stop, elapsed_ms, trace
        )


def chat_request(task: InferTask, index: int) -> dict[str, Any]:
    """One prompt as a chat; only top k and temperature shape the choice, and nothing is remembered between prompts."""
    digest = sha256(b"cyx/infer/llama" + struct.pack("<2Q", task.seed, index)).digest()
    system = [{"role": "system", "content": task.system}] if task.system else []
    return {
        "messages": [*system, {"role": "user", "content": task.prompts[index]}],
        "max_tokens": task.num_predict,
        "temperature": task.temperature_micro / MICRO,
        "top_k": task.top_k,
        "samplers": ["top_k", "temperature"],
        "seed": int.from_bytes(digest[:8], "little") % _SEEDS,
        "cache_prompt": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 1,
    }
