"""Commands to one worker and what comes back, for sessions of every kind: load once, then ask, in bounded time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from ..protocol.errors import ExecutionFailed
from .pipes import WorkerPipe
from .wire import Alive

T = TypeVar("T")


class Conversation:
    """One session with one worker. `load` is sent before the first command; the first failure ends the session."""

    def __init__(self, pipe: WorkerPipe, load: object, *, silence_max_s: float, time_max_s: float) -> None:
        self._pipe, self._load = pipe, load
        self._silence_max_s, self._time_max_s = silence_max_s, time_max_s
        self._loaded = False

    async def ask(
        self,
        command: object,
        answer: type[T],
        events: tuple[type, ...] = (),
        emit: Callable[[Any], Awaitable[None]] | None = None,
    ) -> T:
        """The answer to a command; reports of the types `events` on the way go to `emit`.

        Raises what the worker reports as its failure, and ExecutionFailed when it is gone, silent or too slow.
        """
        with trio.move_on_after(self._time_max_s):
            if not self._loaded:
                await self._pipe.send(self._load)
                await self._pipe.receive(silence_max_s=self._silence_max_s)
                self._loaded = True
            await self._pipe.send(command)
            while True:
                report = await self._pipe.receive(silence_max_s=self._silence_max_s)
                if isinstance(report, answer):
                    return report
                if isinstance(report, events) and emit is not None:
                    await emit(report)
                elif not isinstance(report, Alive):
                    raise ExecutionFailed(f"the worker process sent {type(report).__name__} out of turn")
        raise ExecutionFailed(f"the worker process took longer than {self._time_max_s:g} s")
