"""The real Runner: single-use worker processes in a sandbox, one of them kept warm (DESIGN 6).

The node's own process never imports torch. A worker costs about 2 s of CPU to start and 260 MB while it is warm, so a
node may keep none (`warm=0`) and call `prepare` when it sees work coming. A worker is used for one session and killed:
nothing of one stranger's job can reach the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from ..protocol.errors import CyxError, ExecutionFailed
from ..protocol.inference import InferTask, ModelFiles, check_manifest, check_task
from ..protocol.limits import (
    WARM_IDLE_MAX_S,
    WORKER_MEMORY_MAX_BYTES,
    WORKER_SILENCE_MAX_S,
    WORKER_START_MAX_S,
    WORKER_TIME_MAX_S,
    WORKERS_MAX,
)
from ..protocol.ports import (
    BatchDone,
    Comparison,
    EpochDone,
    Replay,
    ResultCheck,
    SegmentDone,
    TrainDone,
    TrainEvent,
    TrainTask,
)
from ..protocol.spec import encode_spec
from .class_digest import class_digest
from .conversation import Conversation
from .determinism import ENVIRONMENT, DeviceChoice
from .inference_process import ProcessInferenceSession
from .pipes import WorkerPipe
from .sandbox import Sandbox, SandboxChoice, choose_sandbox, worker_command
from .wire import CheckResult, CompareSegment, InitialState, LoadModel, LoadTask, Ready, ReplaySegment, StateHash, Train

_EVENTS = (BatchDone, EpochDone, SegmentDone)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How workers are started and when they count as hung."""

    sandbox: Sandbox
    device: DeviceChoice = "auto"
    memory_bytes: int = WORKER_MEMORY_MAX_BYTES
    silence_max_s: float = WORKER_SILENCE_MAX_S
    time_max_s: float = WORKER_TIME_MAX_S
    """Per command of a session."""


class ProcessSession:
    """One task in one process. Commands run one after another; the first failure ends the session."""

    def __init__(self, pipe: WorkerPipe, task: TrainTask, settings: WorkerSettings) -> None:
        self._pipe = pipe
        load = LoadTask(encode_spec(task.spec), task.train, task.validation)
        self._talk = Conversation(pipe, load, silence_max_s=settings.silence_max_s, time_max_s=settings.time_max_s)

    @property
    def pid(self) -> int:
        """Of the worker, or of bubblewrap around it."""
        return self._pipe.pid

    async def train(self, emit: Callable[[TrainEvent], Awaitable[None]]) -> TrainDone:
        """Train and hand each event to `emit`; while `emit` waits, the worker soon waits too."""
        return await self._talk.ask(Train(), TrainDone, _EVENTS, emit)

    async def initial_state(self) -> bytes:
        """State hash that follows from the spec's seed."""
        return (await self._talk.ask(InitialState(), StateHash)).digest

    async def replay(self, segment: int, state: bytes) -> Replay:
        """Re-run a segment. Raises RemoteError when `state` is not a state of this model."""
        return await self._talk.ask(ReplaySegment(segment, state), Replay)

    async def compare(self, segment: int, state: bytes, claimed: bytes) -> Comparison:
        """Re-run a segment beside its claimed end. Raises RemoteError when either is not a state of this model."""
        return await self._talk.ask(CompareSegment(segment, state, claimed), Comparison)

    async def check_result(self, final_state: bytes, weights: bytes) -> ResultCheck:
        """Check delivered weights. Raises RemoteError when `final_state` is not a state of this model."""
        return await self._talk.ask(CheckResult(final_state, weights), ResultCheck)


class ProcessRunner:
    """Makes sessions. Get one from `open_runner`."""

    def __init__(self, nursery: trio.Nursery, settings: WorkerSettings, ready: Ready, *, warm: int) -> None:
        self._nursery, self._settings, self._holders = nursery, settings, warm
        self._class = class_digest(ready.description)
        self._description = {
            **ready.description,
            "device": ready.device,
            "sandbox": settings.sandbox,
            "seccomp": ready.seccomp,
            "memory_mb": str(settings.memory_bytes >> 20),
        }
        self._idle: list[WorkerPipe] = []
        self._starting, self._broken = 0, ""
        self._changed = trio.Event()
        self._places = trio.Semaphore(WORKERS_MAX)

    @property
    def execution_class(self) -> bytes:
        """Digest of what decides about bits, as the worker measured it."""
        return self._class

    @property
    def description(self) -> dict[str, str]:
        """What the class covers; and `device`, `sandbox` (bubblewrap or none), `seccomp`, `memory_mb`."""
        return dict(self._description)

    def prepare(self) -> None:
        """Have a warm worker soon: starts one in the background unless one is warm or starting. Never waits."""
        if not self._starting and not any(pipe.alive for pipe in self._idle):
            self._starting += 1
            self._nursery.start_soon(self._warm_up)

    async def hold(self) -> None:
        """Keep a warm worker from now on, however long it is idle, until as many `release`; returns once there is one.
        Raises ExecutionFailed when none can be started, and then holds nothing."""
        self._holders += 1
        try:
            while not any(pipe.alive for pipe in self._idle):
                self.prepare()
                await self._changed.wait()
                if self._broken:
                    raise ExecutionFailed(self._broken)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """One of those who `hold` needs no warm worker any more."""
        self._holders -= 1
        if not self._holders:
            self._nursery.start_soon(self._let_cool)

    def adopt(self, pipe: WorkerPipe) -> None:
        """Keep a started worker as the warm one."""
        self._idle.append(pipe)

    def session(self, task: TrainTask) -> AbstractAsyncContextManager[ProcessSession]:
        """A session in a warm worker if there is one; at most WORKERS_MAX at a time, others wait."""
        return self._session(task)

    def inference_session(
        self, model: ModelFiles, task: InferTask
    ) -> AbstractAsyncContextManager[ProcessInferenceSession]:
        """The same for a language model, kind torch."""
        return self._inference_session(model, task)

    @asynccontextmanager
    async def _session(self, task: TrainTask) -> AsyncIterator[ProcessSession]:
        async with self._worker() as pipe:
            yield ProcessSession(pipe, task, self._settings)

    @asynccontextmanager
    async def _inference_session(self, model: ModelFiles, task: InferTask) -> AsyncIterator[ProcessInferenceSession]:
        check_manifest(model.manifest)
        check_task(task)
        async with self._worker() as pipe:
            settings = self._settings
            load = LoadModel(model.manifest, model.graph, model.weights, task)
            talk = Conversation(pipe, load, silence_max_s=settings.silence_max_s, time_max_s=settings.time_max_s)
            yield ProcessInferenceSession(pipe.pid, talk)

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[WorkerPipe]:
        async with self._places:
            pipe = await self._take()
            try:
                yield pipe
            finally:
                await pipe.close()
                if self._holders and trio.current_effective_deadline() > float("-inf"):
                    self.prepare()

    async def _take(self) -> WorkerPipe:
        while True:
            while self._idle:
                pipe = self._idle.pop()
                if pipe.alive:
                    return pipe
                await pipe.close()
            if not self._starting:
                return await self._start()
            await self._changed.wait()

    async def _start(self) -> WorkerPipe:
        pipe, ready = await start_worker(self._settings)
        if class_digest(ready.description) != self._class:
            await pipe.close()
            raise ExecutionFailed("the execution class of this machine has changed: restart the node")
        return pipe

    async def _warm_up(self) -> None:
        try:
            pipe, self._broken = await self._start(), ""
        except CyxError as error:
            self._broken = str(error)
            log.warning("worker_not_started", cause=str(error))
            return
        finally:
            self._starting -= 1
            changed, self._changed = self._changed, trio.Event()
            changed.set()
        self._idle.append(pipe)
        if not self._holders:
            await self._let_cool()

    async def _let_cool(self) -> None:
        """End workers that stay idle for WARM_IDLE_MAX_S, unless somebody holds them by then."""
        idle = tuple(self._idle)
        await trio.sleep(WARM_IDLE_MAX_S)
        for pipe in idle:
            if pipe in self._idle and not self._holders:
                self._idle.remove(pipe)
                await pipe.close()

    async def close(self) -> None:
        """End the idle workers; sessions end their own."""
        while self._idle:
            await self._idle.pop().close()


async def start_worker(settings: WorkerSettings) -> tuple[WorkerPipe, Ready]:
    """Start a process and wait until torch is loaded in it. Raises LocalError or ExecutionFailed."""
    # CUDA reserves address space far beyond what it uses, so a bound on it would only forbid CUDA
    memory = settings.memory_bytes if settings.device == "cpu" or not _has_gpu() else 0
    arguments = [settings.device, str(memory)]
    command, environment = worker_command(settings.sandbox, arguments, ENVIRONMENT, gpu=settings.device != "cpu")
    pipe = WorkerPipe(command, environment)
    try:
        ready = await pipe.receive(silence_max_s=WORKER_START_MAX_S)
        if not isinstance(ready, Ready):
            raise ExecutionFailed(f"the worker process began with {type(ready).__name__}")
    except BaseException:
        await pipe.close()
        raise
    return pipe, ready


def _has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


@asynccontextmanager
async def open_runner(
    *,
    sandbox: SandboxChoice = "auto",
    device: DeviceChoice = "auto",
    warm: int = 1,
    memory_bytes: int = WORKER_MEMORY_MAX_BYTES,
    silence_max_s: float = WORKER_SILENCE_MAX_S,
    time_max_s: float = WORKER_TIME_MAX_S,
) -> AsyncIterator[ProcessRunner]:
    """Probe the sandbox, start a first worker, and learn the execution class from it.

    `warm` is 1 to keep a worker warm, 0 to keep none until `prepare`. Raises LocalError when the device or the
    sandbox that is demanded does not exist, ExecutionFailed when no worker can be started.
    """
    chosen = await trio.to_thread.run_sync(choose_sandbox, sandbox)
    settings = WorkerSettings(chosen, device, memory_bytes, silence_max_s, time_max_s)
    pipe, ready = await start_worker(settings)
    try:
        async with pipe, trio.open_nursery() as nursery:
            runner = ProcessRunner(nursery, settings, ready, warm=warm)
            if warm:
                runner.adopt(pipe)
            else:
                await pipe.close()
            try:
                yield runner
            finally:
                await runner.close()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # background tasks handle their errors: what is alone in the group was raised in the caller's block
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
