"""The verification rule for generated text: what a claim must look like, and how far its tokens may be from the best.

No torch. First comes what costs nothing: counts, bounds, text and stop reason must fit one another and the task. Then
statistics over the gaps of all tokens, measured against one prefill of the verifier's own (docs/inference.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..protocol.inference import Generated, InferenceCheck, InferTask
from ..protocol.limits import INEXACT_TOKENS_PPM, MEAN_GAP_MAX_MICRO, MICRO, TOKEN_GAP_MAX_MICRO, TRACE_GAP_MAX_MICRO
from .tokens import END, VOCABULARY, decode_tokens

_GAP_MICRO_MAX = 10**12


def malformed(claim: Generated, prompts: Sequence[Sequence[int]], task: InferTask, context: int) -> str:
    """Why no honest worker could have sent this, or ''."""
    if not 0 <= claim.prompt_index < len(prompts):
        return f"prompt_index: there is no prompt {claim.prompt_index}"
    prompt, tokens = prompts[claim.prompt_index], claim.tokens
    room = min(task.num_predict, context - len(prompt))
    if claim.prompt_tokens != len(prompt):
        return f"prompt_tokens: says {claim.prompt_tokens}, the prompt has {len(prompt)}"
    if claim.generated_tokens != len(tokens):
        return f"generated_tokens: says {claim.generated_tokens}, and {len(tokens)} are delivered"
    if not 1 <= len(tokens) <= room:
        return f"tokens: has {len(tokens)}, from 1 to {room} are possible"
    if not all(0 <= token < VOCABULARY for token in tokens):
        return f"tokens: one is not below {VOCABULARY}"
    if END in tokens[:-1]:
        return "tokens: goes on after the end token"
    if claim.stop_reason != _stop_reason(tokens, len(prompt), task.num_predict, context):
        return f"stop_reason: {claim.stop_reason} does not fit {len(tokens)} tokens that end with {tokens[-1]}"
    if claim.text != decode_tokens(tokens):
        return "text: is not the text of the tokens"
    if not claim.trace:
        # sealed: whoever opens it compares it with the verifier's
        return ""
    if len(claim.trace) != 4 * len(tokens) or not np.isfinite(np.frombuffer(claim.trace, "<f4")).all():
        return f"trace: is not {len(tokens)} finite numbers"
    return ""


def _stop_reason(tokens: Sequence[int], prompt: int, num_predict: int, context: int) -> str:
    if tokens[-1] == END:
        return "end"
    if len(tokens) == num_predict:
        return "length"
    return "context" if prompt + len(tokens) == context else "nothing"


def judge(claim: Generated, gaps: Sequence[float], trace: bytes) -> InferenceCheck:
    """The verdict on a well-formed claim. `gaps`: one per token, in logits; `trace`: the verifier's own logits."""
    values = np.asarray(gaps, np.float64)
    inexact = int((values > 0).sum())
    exact_ppm = MICRO * (len(values) - inexact) // len(values)
    largest, mean = _micro(values.max()), _micro(values.mean())
    apart = np.abs(np.frombuffer(claim.trace or trace, "<f4").astype(np.float64) - np.frombuffer(trace, "<f4"))
    reason = ""
    if largest > TOKEN_GAP_MAX_MICRO:
        position = int(values.argmax())
        reason = f"tokens[{position}]: {claim.tokens[position]} lies {values.max():.3g} logits below the best token"
    elif inexact > max(1, len(values) * INEXACT_TOKENS_PPM // MICRO):
        reason = f"tokens: {inexact} of {len(values)} are not the best token"
    elif mean > MEAN_GAP_MAX_MICRO:
        reason = f"tokens: lie {mean} micro-logits below the best ones in the mean"
    elif _micro(apart.max()) > TRACE_GAP_MAX_MICRO:
        position = int(apart.argmax())
        reason = f"trace[{position}]: is {apart.max():.3g} logits away from this model's"
    return InferenceCheck(not reason, exact_ppm, largest, mean, reason, trace)


def _micro(value: float) -> int:
    return min(_GAP_MICRO_MAX, round(float(value) * MICRO))
