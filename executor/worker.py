"""The single-use worker process: one task, one session, then it is killed. Started by `process.py`, never by hand.

Frames come on standard input and go to standard output; see `wire.py`. A second thread reads standard input all the
time, so that the process ends at once when the node closes the pipe or dies, even in the middle of a computation.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Generator
from typing import TYPE_CHECKING, BinaryIO, TypeVar, assert_never, cast

from ..protocol.errors import CyxError, ExecutionFailed
from ..protocol.limits import WORKER_ALIVE_INTERVAL_MS, WORKER_READ_BYTES
from .determinism import DeviceChoice, configure_environment
from .sandbox import limit_self, limit_threads
from .wire import (
    COMMANDS,
    HEADER,
    Alive,
    CheckGeneration,
    CheckResult,
    CompareSegment,
    Failure,
    Generate,
    GenerationDone,
    InitialState,
    LoadModel,
    LoadTask,
    Ready,
    ReplaySegment,
    StateHash,
    Train,
    decode_frame,
    encode_frame,
    frame_length,
    to_failure,
)

if TYPE_CHECKING:
    from .generation import Writer
    from .trainer import Trainer

T = TypeVar("T")
Command = (
    LoadTask
    | Train
    | InitialState
    | ReplaySegment
    | CompareSegment
    | CheckResult
    | LoadModel
    | Generate
    | CheckGeneration
)


def main(arguments: list[str]) -> None:
    """Entry point: DEVICE and MEMORY_BYTES (0: unbounded) as arguments."""
    device, memory_bytes = cast(DeviceChoice, arguments[0]), int(arguments[1])
    limit_self(memory_bytes=memory_bytes or None)
    # stray prints must not end up between the frames
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    commands: queue.Queue[bytes] = queue.Queue(maxsize=2)
    threading.Thread(target=_read_commands, args=(sys.stdin.buffer, commands), daemon=True).start()
    worker = Worker(output)
    try:
        worker.start(device)
        while True:
            worker.serve(cast(Command, decode_frame(commands.get(), COMMANDS)))
    except BrokenPipeError:
        os._exit(0)


def _read_commands(source: BinaryIO, commands: queue.Queue[bytes]) -> None:
    """Queue payloads until the node goes away; then end the process, whatever it is doing."""
    try:
        while header := source.read(HEADER.size):
            length = frame_length(header)
            payload = source.read(length)
            if len(payload) < length:
                break
            commands.put(payload)
    finally:
        os._exit(0)


class Worker:
    """Answers commands in order. After a failure the node ends the process."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._sent_at = 0.0

    def start(self, wanted: DeviceChoice) -> None:
        """Load torch, measure the class, lock the door."""
        configure_environment()
        try:
            from . import classes, determinism, generation, seccomp, training

            self._training, self._generation = training, generation
            determinism.pin_torch()
            self._device = determinism.choose_device(wanted)
            description = classes.describe_class(self._device)
            limit_threads()
            # the CUDA driver needs calls that the filter denies
            confined = self._device.type == "cpu" and seccomp.confine()
        except CyxError as error:
            self._send(to_failure(error))
            return
        self._send(Ready(description, str(self._device), "yes" if confined else "no"))

    def serve(self, command: Command) -> None:
        """Do one command; every error becomes a Failure frame."""
        try:
            self._send(self._answer(command))
        except BrokenPipeError:
            raise
        except CyxError as error:
            self._send(to_failure(error))
        except MemoryError:
            self._send(Failure("execution", "out of memory"))
        except Exception as error:
            traceback.print_exc()
            self._send(
                Failure("execution", f"internal error in the worker process: {type(error).__name__}: {error}"[:300])
            )

    def _answer(self, command: Command) -> object:
        match command:
            case LoadTask():
                return self._load(command)
            case Train():
                return self._drive(self._training.train(self._trainer()))
            case InitialState():
                return StateHash(self._training.initial_state(self._trainer()))
            case ReplaySegment():
                return self._drive(self._training.replay(self._trainer(), command.segment, command.state))
            case CompareSegment(segment, state, claimed):
                return self._drive(self._training.compare(self._trainer(), segment, state, claimed))
            case CheckResult():
                trainer = self._trainer()
                return self._drive(self._training.check_result(trainer, command.final_state, command.weights))
            case LoadModel():
                return self._load_model(command)
            case Generate():
                return GenerationDone(self._drive(self._generation.generate(self._writer)))
            case CheckGeneration(claimed):
                return self._drive(self._generation.check(self._writer, claimed))
            case _:
                assert_never(command)

    def _load(self, command: LoadTask) -> Alive:
        import msgspec

        from ..protocol.ports import TrainTask
        from ..protocol.spec import TrainSpec
        from .task import check_task

        try:
            spec = msgspec.msgpack.decode(command.spec, type=TrainSpec)
        except msgspec.MsgspecError as error:
            raise ExecutionFailed(f"the spec cannot be read: {error}") from None
        self._task = check_task(TrainTask(spec, command.train, command.validation))
        return Alive()

    def _load_model(self, command: LoadModel) -> Alive:
        from ..protocol.inference import ModelFiles

        model = ModelFiles(command.manifest, command.graph, command.weights)
        self._writer: Writer = self._generation.Writer(model, command.task, self._device)
        return Alive()

    def _trainer(self) -> Trainer:
        """A fresh trainer for each command: nothing leaks from one to the next."""
        return self._training.make_trainer(self._task, self._device)

    def _drive(self, steps: Generator[object, None, T]) -> T:
        """Send what a generator yields; instead of None, a sign of life once in a while."""
        while True:
            try:
                event = next(steps)
            except StopIteration as stop:
                return cast(T, stop.value)
            if event is not None:
                self._send(event)
            elif time.monotonic() - self._sent_at > WORKER_ALIVE_INTERVAL_MS / 1000:
                self._send(Alive())

    def _send(self, message: object) -> None:
        data = memoryview(encode_frame(message))
        while data:
            written = self._output.write(data[:WORKER_READ_BYTES])
            data = data[written:]
        self._sent_at = time.monotonic()


if __name__ == "__main__":
    main(sys.argv[1:])
