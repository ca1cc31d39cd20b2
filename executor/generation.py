"""Generating and checking as generators, as in `training.py`: one code for a worker and for the caller's process.

They yield events, and None where they merely show that they are alive; they return the outcome. A check is one pass
over prompt and claimed tokens (a teacher-forced prefill), many times cheaper than generating was. A worker ends its
answer with the same pass, so that its trace has the bits that every verifier of the class computes.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Generator, Sequence
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray

from ..protocol.errors import LocalError
from ..protocol.inference import Generated, InferenceCheck, InferTask, ModelFiles, StopReason, TokensGenerated
from ..protocol.limits import TOKENS_DELAY_MAX_MS
from .causal import check_model, encode_task
from .claimed_text import judge, malformed
from .decoder import Decoder
from .failures import failures_named
from .sampling import Law, choose, gaps
from .tokens import END, TextStream, decode_tokens


class Writer:
    """A checked model with a checked task."""

    def __init__(self, model: ModelFiles, task: InferTask, device: torch.device) -> None:
        """Raises LocalError when they are invalid or do not fit, ExecutionFailed when memory does not suffice."""
        graph = check_model(model)
        self.task, self.context = task, graph.input_shape[0]
        self.prompts = encode_task(task, self.context)
        if sha256(model.weights).digest() != model.manifest.digest:
            raise LocalError("is not that of the weights", field="model.digest", fix="fetch the weights again")
        with failures_named():
            self.decoder = Decoder(graph, model.weights, device)


def generate(writer: Writer) -> Generator[TokensGenerated | None, None, tuple[Generated, ...]]:
    """Answer each prompt. Raises ExecutionFailed when the model computes NaN or infinity."""
    answers = []
    with failures_named():
        for index in range(len(writer.prompts)):
            answers.append((yield from _answer(writer, index)))
    return tuple(answers)


def _answer(writer: Writer, index: int) -> Generator[TokensGenerated | None, None, Generated]:
    prompt, law, started = writer.prompts[index], Law.of(writer.task, index), time.monotonic()
    tokens: list[int] = []
    outbox = Outbox(index)
    writer.decoder.begin()
    fed: tuple[int, ...] = prompt
    while True:
        logits = writer.decoder.advance(fed)
        token = int(choose(logits[None], law, len(tokens))[0])
        tokens.append(token)
        stop = _stop_reason(writer, prompt, tokens)
        yield outbox.push(token, last=stop is not None)
        if stop is not None:
            break
        fed = (token,)
    # without the pass over the answer: the time tells how fast tokens come
    elapsed_ms = round(1000 * (time.monotonic() - started))
    trace, text = _trace(_passed(writer, prompt, tokens), tokens), decode_tokens(tokens)
    return Generated(index, text, tuple(tokens), len(prompt), len(tokens), stop, elapsed_ms, trace)


def _passed(writer: Writer, prompt: tuple[int, ...], tokens: Sequence[int]) -> NDArray[np.float32]:
    """Logits that each token of an answer was chosen from, by one pass."""
    return writer.decoder.prefill(prompt + tuple(tokens[:-1]), len(prompt) - 1)


def _trace(logits: NDArray[np.float32], tokens: Sequence[int]) -> bytes:
    return b"".join(struct.pack("<f", row[token]) for row, token in zip(logits, tokens, strict=True))


def _stop_reason(writer: Writer, prompt: tuple[int, ...], tokens: list[int]) -> StopReason | None:
    if tokens[-1] == END:
        return "end"
    if len(tokens) == writer.task.num_predict:
        return "length"
    return "context" if len(prompt) + len(tokens) == writer.context else None


class Outbox:
    """Gathers tokens so that fast models send fewer events. A token that waits goes with the next one after the
    interval: at an even pace it waits less than TOKENS_DELAY_MAX_MS, and a slower model sends each at once."""

    def __init__(self, prompt_index: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._index, self._position, self._clock = prompt_index, 0, clock
        self._stream = TextStream()
        self._waiting: list[int] = []
        self._sent_at = float("-inf")

    def push(self, token: int, *, last: bool) -> TokensGenerated | None:
        """The event that is due now, if any."""
        now = self._clock()
        self._waiting.append(token)
        if not last and 1000 * (now - self._sent_at) < TOKENS_DELAY_MAX_MS:
            return None
        tokens, self._waiting, self._sent_at = tuple(self._waiting), [], now
        event = TokensGenerated(self._index, self._position, tokens, self._stream.push(tokens, last=last), last)
        self._position += len(tokens)
        return event


def check(writer: Writer, claimed: Generated) -> Generator[None, None, InferenceCheck]:
    """Judge a claim. Never raises for what the claim contains."""
    reason = malformed(claimed, writer.prompts, writer.task, writer.context)
    if reason:
        return InferenceCheck(False, 0, 0, 0, reason, b"")
    prompt, law = writer.prompts[claimed.prompt_index], Law.of(writer.task, claimed.prompt_index)
    yield
    with failures_named():
        logits = _passed(writer, prompt, claimed.tokens)
    yield
    return judge(claimed, gaps(logits, law, 0, claimed.tokens), _trace(logits, claimed.tokens))
