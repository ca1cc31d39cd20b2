"""A session that tells how fast its model writes, and what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..protocol.errors import CyxError, ExecutionFailed, TransientError
from ..protocol.inference import Generated, InferenceCheck, TokensGenerated
from ..protocol.limits import MICRO, MODEL_SPEED_SESSIONS
from ..protocol.ports import InferenceSession
from .model_record import Record


class Speed:
    """A moving figure of tokens per second: each session counts for one in MODEL_SPEED_SESSIONS."""

    def __init__(self, record: Record) -> None:
        """Begins with what the record says, which was measured when the model was added."""
        self.tokens_per_s_micro = record.tokens_per_s_micro

    def add(self, tokens: int, compute_ms: int) -> None:
        """One session's tokens and the time that they took."""
        if tokens <= 0 or compute_ms <= 0:
            return
        latest, before = 1000 * MICRO * tokens // compute_ms, self.tokens_per_s_micro
        self.tokens_per_s_micro = before + (latest - before) // MODEL_SPEED_SESSIONS if before else latest


class MeasuredSession:
    """Passes everything on."""

    def __init__(self, session: InferenceSession, speed: Speed, failed: Callable[[CyxError], None]) -> None:
        self._session, self._speed, self._failed = session, speed, failed

    async def generate(self, emit: Callable[[TokensGenerated], Awaitable[None]]) -> tuple[Generated, ...]:
        """Answer every prompt; the speed is that of all of them together."""
        try:
            answers = await self._session.generate(emit)
        except (ExecutionFailed, TransientError) as error:
            self._failed(error)
            raise
        self._speed.add(sum(one.generated_tokens for one in answers), sum(one.compute_ms for one in answers))
        return answers

    async def check(self, generated: Generated) -> InferenceCheck:
        """Judge a claim."""
        try:
            return await self._session.check(generated)
        except (ExecutionFailed, TransientError) as error:
            self._failed(error)
            raise
