"""A language model in a single-use worker process: the session that `ProcessRunner.inference_session` gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..protocol.inference import Generated, InferenceCheck, TokensGenerated
from .conversation import Conversation
from .wire import CheckGeneration, Generate, GenerationDone


class ProcessInferenceSession:
    """One model and one task in one process."""

    def __init__(self, pid: int, talk: Conversation) -> None:
        self.pid = pid
        """Of the worker, or of bubblewrap around it."""
        self._talk = talk

    async def generate(self, emit: Callable[[TokensGenerated], Awaitable[None]]) -> tuple[Generated, ...]:
        """Answer every prompt; while `emit` waits, the worker soon waits too."""
        return (await self._talk.ask(Generate(), GenerationDone, (TokensGenerated,), emit)).answers

    async def check(self, generated: Generated) -> InferenceCheck:
        """Judge a claim by one prefill over prompt and claimed tokens."""
        return await self._talk.ask(CheckGeneration(generated), InferenceCheck)
