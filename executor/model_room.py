"""Loaded models in one budget of memory: who uses them, what is loaded next, and what has to go for it.

1. One model is loaded at a time. Who wants one waits for it, and for room, but not for ever.
2. What is in use stays; what is not needed any more, or has changed, goes with its last user (model_memory.py has the
   law of the rest).
3. What failed to load is withdrawn, with the reason; when to try again is the shelf's to say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog
import trio

from ..protocol.errors import CyxError, ExecutionFailed, TransientError
from ..protocol.inference import ModelKind
from ..protocol.limits import MODEL_IDLE_MAX_S, MODEL_ROOM_MAX_S
from .model_memory import Held, fits_ever, idle, mebibytes, room_for
from .model_served import Served
from .model_sources import Loaded, Source

log = structlog.get_logger()


class ModelRoom:
    """The memory that a node's models share."""

    def __init__(self, sources: Mapping[ModelKind, Source], budget: int) -> None:
        """`budget`: bytes for all of them together."""
        self._sources, self._budget = sources, budget
        self._loaded: list[Served] = []
        self._turn = trio.Lock()
        self._changed = trio.Event()

    def check(self, size: int) -> None:
        """Raises ExecutionFailed for a model that does not fit even alone."""
        fits_ever(size, self._budget)

    def is_free_for(self, size: int) -> bool:
        """Whether a model fits beside those that are loaded."""
        return room_for(size, self._budget, self._memory()) == ()

    @asynccontextmanager
    async def held(self, served: Served) -> AsyncIterator[Loaded]:
        """The model, loaded while the context is open. Raises what its source says when it does not load."""
        served.users += 1
        try:
            yield await self._load(served)
        finally:
            served.users -= 1
            served.used_s = trio.current_time()
            if served.stale:
                await self._free(served)
            self._tell_change()

    async def _load(self, served: Served) -> Loaded:
        async with served.loading:
            if served.loaded is not None:
                return served.loaded
            async with self._turn:
                found = served.found
                assert found is not None
                await self._make_room(found.size)
                source = self._sources[served.shelved.record.manifest.kind]
                try:
                    served.loaded = await source.load(served.shelved)
                except CyxError as error:
                    if not isinstance(error, TransientError):
                        served.failed = (found.stamp, trio.current_time(), str(error))
                    served.withdraw(str(error))
                    raise
                served.size, served.failed = found.size, None
                served.stale = served.gone
                served.found = found if found.warm is None else replace(found, warm=True)
                self._loaded.append(served)
            log.info("model_loaded", model=served.shelved.record.manifest.name, mebibytes=mebibytes(served.size))
            return served.loaded

    async def _make_room(self, size: int) -> None:
        self.check(size)
        with trio.move_on_after(MODEL_ROOM_MAX_S):
            while True:
                changed, loaded = self._changed, tuple(self._loaded)
                leaving = room_for(size, self._budget, self._memory())
                if leaving == ():
                    return
                for place in leaving or ():
                    await self._free(loaded[place])
                if leaving is None:
                    await changed.wait()
        raise ExecutionFailed(
            f"there is no room for {mebibytes(size)} of {mebibytes(self._budget)} MiB: models in use take the rest"
        )

    def _memory(self) -> list[Held]:
        return [Held(place, one.size, one.users, one.used_s) for place, one in enumerate(self._loaded)]

    async def _free(self, served: Served) -> None:
        """Unload it unless somebody uses it, or has begun to meanwhile. Not cancelled, lest memory be lost."""
        with trio.CancelScope(shield=True):
            async with served.loading:
                if served.users or served.loaded is None:
                    return
                await served.loaded.free()
                served.loaded, served.size, served.stale = None, 0, False
                self._loaded.remove(served)
        log.info("model_unloaded", model=served.shelved.record.manifest.name)
        self._tell_change()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def unload_idle(self) -> None:
        """Unload what nobody has used for MODEL_IDLE_MAX_S, and what is to go."""
        due = set(idle(self._memory(), trio.current_time(), MODEL_IDLE_MAX_S))
        for place, one in enumerate(tuple(self._loaded)):
            if place in due or one.stale:
                await self._free(one)

    async def close(self) -> None:
        """Unload everything."""
        for one in tuple(self._loaded):
            await self._free(one)
