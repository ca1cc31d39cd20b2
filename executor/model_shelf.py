"""The models that a node serves: what is on its shelf and can be computed now, loaded when needed, unloaded when not.

1. An offer stands while the last look found its model. A file that has gone or a model server that is down withdraws
   it, in words; it comes back by itself. The folder is read again at each look, so it may change under a running node.
2. Loaded models share one budget of memory (model_room.py). A model that could not fit alone is never offered.
3. What failed to load is not tried again before its files change or MODEL_RETRY_S has passed.
4. A shelf that works `ahead` loads what it offers for the first time while there is room beside the others: the first
   answer, too, shall begin soon.
5. Speeds are measured in sessions, in tokens over the time that generating them took.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
import trio

from ..protocol.errors import CyxError, ExecutionFailed, TransientError
from ..protocol.inference import InferSpec, ModelKind, check_task
from ..protocol.limits import MODEL_LOOK_S, MODEL_RETRY_S, MODELS_OFFERED_MAX
from ..protocol.messages import ModelOffer
from ..protocol.ports import InferenceSession
from .model_record import Fault, read_shelf, short_id
from .model_room import ModelRoom
from .model_served import Served
from .model_session import MeasuredSession, Speed
from .model_sources import Found, Source

log = structlog.get_logger()


class ModelShelf:
    """Serves the models of some folders. Get one from `open_shelf`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        folders: Sequence[Path],
        sources: Mapping[ModelKind, Source],
        *,
        budget: int,
        gpu: Callable[[], int | None] = lambda: None,
        ahead: bool = False,
    ) -> None:
        """`budget`: bytes for all loaded models; `gpu`: utilisation of the card that models run on, in ppm."""
        self._ahead, self._seen, self._turn = ahead, set[bytes](), trio.Lock()
        self._nursery, self._folders, self._sources = nursery, tuple(folders), sources
        self._room, self._gpu = ModelRoom(sources, budget), gpu
        self._served: dict[bytes, Served] = {}
        self._faults: tuple[Fault, ...] = ()

    # what is served -------------------------------------------------------------------------------------------------

    @property
    def served(self) -> tuple[Served, ...]:
        """Every model of the shelf, by name, with or without an offer."""
        return tuple(self._served.values())

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Files of the shelf that are no records."""
        return self._faults

    def offers(self) -> tuple[ModelOffer, ...]:
        """What is served right now, by name."""
        offers = (one.offer() for one in self._served.values())
        return tuple(offer for offer in offers if offer is not None)[:MODELS_OFFERED_MAX]

    def why_not(self, served: Served) -> str:
        """Why a model has no offer; empty when it has one."""
        if not served.reason and all(offer.model != served.shelved.id for offer in self.offers()):
            return f"a node offers {MODELS_OFFERED_MAX} models at most, the first by name"
        return served.reason

    def gpu_utilization_ppm(self) -> int | None:
        """Of the card that torch models run on; None without one, or when it does not tell."""
        return self._gpu()

    async def look(self) -> None:
        """See what there is now. Never raises for what it finds."""
        # some small files: about a millisecond
        shelved, faults = read_shelf(self._folders)
        for fault in set(faults) - set(self._faults):
            log.warning("model_record_unusable", path=str(fault.path), cause=fault.reason)
        self._faults = faults
        before, self._served = self._served, {}
        for one in shelved:
            served = before.pop(one.id) if one.id in before else Served(one, Speed(one.record))
            served.shelved = one
            self._served[one.id] = served
        for gone in before.values():
            gone.gone = gone.stale = True
            gone.withdraw("it is not on the shelf any more")
        async with trio.open_nursery() as nursery:
            for served in tuple(self._served.values()):
                nursery.start_soon(self._look_at, served)
        if self._ahead:
            self._nursery.start_soon(self._load_ahead)

    async def _look_at(self, served: Served) -> None:
        source = self._sources.get(served.shelved.record.manifest.kind)
        try:
            if source is None:
                raise ExecutionFailed("this node has no backend for it")
            found = await source.look(served.shelved)
            self._room.check(found.size)
        except CyxError as error:
            served.withdraw(str(error))
            return
        if served.found is not None and served.found.stamp != found.stamp:
            served.stale = served.loaded is not None
        served.found = found
        if served.failed is not None and not self._retried(served.failed, found):
            served.withdraw(served.failed[2])
        elif served.reason:
            log.info("model_offered", model=served.shelved.record.manifest.name, model_id=served.shelved.short_id)
            served.reason = ""

    async def _load_ahead(self) -> None:
        """Load what is offered for the first time, one after another, unless another would have to go for it."""
        async with self._turn:
            for model, served in tuple(self._served.items()):
                if model in self._seen or served.reason or served.found is None:
                    continue
                self._seen.add(model)
                if served.loaded is None and self._room.is_free_for(served.found.size):
                    await self._warm_up(served)

    def _retried(self, failed: tuple[str, float, str], found: Found) -> bool:
        stamp, since_s, _ = failed
        return stamp != found.stamp or trio.current_time() - since_s >= MODEL_RETRY_S

    # sessions -------------------------------------------------------------------------------------------------------

    def prepare(self, model: bytes) -> None:
        """Load a model in the background, unless it is loaded. Never waits."""
        served = self._served.get(model)
        if served is not None and not served.reason and not served.loading.locked():
            self._nursery.start_soon(self._warm_up, served)

    async def _warm_up(self, served: Served) -> None:
        try:
            async with self._room.held(served) as loaded:
                loaded.prepare()
        except CyxError as error:
            log.warning("model_not_loaded", model=served.shelved.record.manifest.name, cause=str(error))

    def session(self, spec: InferSpec) -> AbstractAsyncContextManager[InferenceSession]:
        """A session for the spec's model and task, once the model is loaded.

        Entering raises ExecutionFailed when it is not served here, or not on that backend, or does not load; LocalError
        when the task cannot be one of this model; TransientError when a model server does not answer.
        """
        return self._session(spec)

    @asynccontextmanager
    async def _session(self, spec: InferSpec) -> AsyncIterator[InferenceSession]:
        check_task(spec.task)
        served = self._served.get(spec.model)
        if served is None:
            raise ExecutionFailed(f"the model {short_id(spec.model)} is not served here")
        name = served.shelved.record.manifest.name
        if served.reason or served.found is None:
            raise ExecutionFailed(f"{name} is not served just now: {served.reason}"[:400])
        if served.found.backend != spec.backend:
            raise ExecutionFailed(f"{name} is not served on the backend {short_id(spec.backend)}")
        async with self._room.held(served) as loaded, AsyncExitStack() as stack:
            try:
                session = await stack.enter_async_context(loaded.session(spec.task))
            except (ExecutionFailed, TransientError) as error:
                self._session_failed(served, error)
                raise
            yield MeasuredSession(session, served.speed, lambda error: self._session_failed(served, error))

    def _session_failed(self, served: Served, error: CyxError) -> None:
        """A server that does not answer has no offer until the next look; what died is loaded anew."""
        if isinstance(error, ExecutionFailed):
            served.stale = True
        else:
            served.withdraw(str(error))

    # time -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look again and again, and unload what is idle, until cancelled."""
        while True:
            await trio.sleep(MODEL_LOOK_S)
            await self.look()
            await self.unload_idle()

    async def unload_idle(self) -> None:
        """Unload what nobody has used for long, and what is not on the shelf any more or has changed."""
        await self._room.unload_idle()

    async def close(self) -> None:
        """Unload everything."""
        await self._room.close()


@asynccontextmanager
async def open_shelf(
    folders: Sequence[Path],
    sources: Mapping[ModelKind, Source],
    *,
    budget: int,
    gpu: Callable[[], int | None] = lambda: None,
    ahead: bool = False,
) -> AsyncIterator[ModelShelf]:
    """A shelf that has been looked at once, and is from then on while the context is open."""
    shelf: ModelShelf | None = None
    try:
        async with trio.open_nursery() as nursery:
            shelf = ModelShelf(nursery, folders, sources, budget=budget, gpu=gpu, ahead=ahead)
            await shelf.look()
            nursery.start_soon(shelf.run)
            try:
                yield shelf
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # background tasks handle their errors: what is alone in the group was raised in the caller's block
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    finally:
        if shelf is not None:
            await shelf.close()
