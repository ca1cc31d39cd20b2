"""The verification rule where a backend can only run a task again: claim and repetition must be equal, time apart.

Exact inside an execution class. Backends that know no token ids are compared by their text. Such a backend has one
thing to do, whether it generates or checks: answer one prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from itertools import takewhile

from ..protocol.inference import Generated, InferenceCheck, InferTask, ModelFiles, TokensGenerated
from ..protocol.limits import MICRO

Emit = Callable[[TokensGenerated], Awaitable[None]]


class RepeatingSession(ABC):
    """One model with one task."""

    def __init__(self, model: ModelFiles, task: InferTask) -> None:
        self._model, self._task = model.manifest, task

    @abstractmethod
    async def _answer(self, index: int, emit: Emit | None) -> Generated:
        """Answer one prompt; pieces go to `emit` as they come, if there is one."""

    async def generate(self, emit: Emit) -> tuple[Generated, ...]:
        """Answer all prompts in order; cancelling ends it between two pieces. LocalError for one that cannot fit."""
        return tuple([await self._answer(index, emit) for index in range(len(self._task.prompts))])

    async def check(self, generated: Generated) -> InferenceCheck:
        """Answer the prompt again, and compare."""
        if not 0 <= generated.prompt_index < len(self._task.prompts):
            reason = f"prompt_index: there is no prompt {generated.prompt_index}"
            return InferenceCheck(False, 0, 0, 0, reason, b"")
        return compare(generated, await self._answer(generated.prompt_index, None))


def compare(claim: Generated, own: Generated) -> InferenceCheck:
    """Judge a claim beside the verifier's own answer; `trace` is the verifier's."""
    theirs: Sequence[object] = claim.tokens if own.tokens else claim.text
    mine: Sequence[object] = own.tokens or own.text
    pairs = zip(theirs, mine, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    longest = max(len(theirs), len(mine), 1)
    exact_ppm = MICRO if theirs == mine else MICRO * common // longest
    unit = "tokens" if own.tokens else "text"
    reason = "" if theirs == mine else f"{unit}[{common}]: differs from a repetition in this class"
    for name in ("tokens", "text", "prompt_tokens", "generated_tokens", "stop_reason"):
        if not reason and getattr(claim, name) != getattr(own, name):
            reason = f"{name}: differs from a repetition in this class"
    return InferenceCheck(not reason, exact_ppm, 0, 0, reason, own.trace)
