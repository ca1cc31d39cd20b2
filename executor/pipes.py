"""The node's end of one worker process: start it, exchange frames, bound its silence, and be sure that it is gone.

The process leads its own session, so that Ctrl-C in a terminal reaches the node alone, which then kills the whole
family. Should the node be killed, the worker sees its standard input end and exits.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from typing import Self

import psutil
import trio

from ..protocol.errors import ExecutionFailed
from ..protocol.limits import WORKER_EXIT_MAX_S, WORKER_READ_BYTES, WORKER_STDERR_TAIL_BYTES
from .wire import HEADER, REPORTS, Failure, decode_frame, encode_frame, frame_length, from_failure

_FATAL = (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)


class WorkerPipe:
    """A running worker. One task uses it at a time."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._errors = os.memfd_create("worker-stderr")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._errors)
            raise ExecutionFailed(f"the worker process cannot be started: {error}") from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input = trio.lowlevel.FdStream(os.dup(self._process.stdin.fileno()))
        self._output = trio.lowlevel.FdStream(os.dup(self._process.stdout.fileno()))
        with suppress(OSError):
            # a state then takes one wake-up instead of many; unprivileged users may have no more room for pipes
            fcntl(self._process.stdout.fileno(), F_SETPIPE_SZ, WORKER_READ_BYTES)
        self._process.stdin.close()
        self._process.stdout.close()
        self._buffer = bytearray()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def pid(self) -> int:
        """Process id: bubblewrap's, where it is used."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return not self._closed and self._process.poll() is None

    async def send(self, message: object) -> None:
        """Send a command. Raises ExecutionFailed when the worker is gone."""
        try:
            await self._input.send_all(encode_frame(message))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ExecutionFailed(await self._cause_of_death()) from None

    async def receive(self, *, silence_max_s: float) -> object:
        """The next report. Raises what the worker reports as its failure, or ExecutionFailed when it is gone."""
        with trio.move_on_after(silence_max_s):
            message = decode_frame(await self._frame(), REPORTS)
            if isinstance(message, Failure):
                raise from_failure(message)
            return message
        raise ExecutionFailed(f"the worker process has been silent for {silence_max_s:g} s")

    async def _frame(self) -> bytearray:
        await self._fill(HEADER.size)
        length = frame_length(bytes(self._buffer[: HEADER.size]))
        await self._fill(HEADER.size + length)
        payload = self._buffer[HEADER.size : HEADER.size + length]
        del self._buffer[: HEADER.size + length]
        return payload

    async def _fill(self, count: int) -> None:
        while len(self._buffer) < count:
            try:
                data = await self._output.receive_some(WORKER_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                raise ExecutionFailed(await self._cause_of_death())
            self._buffer += data

    async def _cause_of_death(self) -> str:
        await self._reap()
        code = self._process.returncode
        if code is None:
            return "the worker process closed its pipe"
        number = -code if code < 0 else code - 128
        if number in set(signal.Signals):
            # native libraries abort or crash where an allocation fails under the worker's limit
            hint = " (out of memory?)" if number in _FATAL else ""
            return f"the worker process was ended by {signal.Signals(number).name}{hint}"
        tail = os.pread(self._errors, WORKER_STDERR_TAIL_BYTES, max(0, self._size() - WORKER_STDERR_TAIL_BYTES))
        last = tail.decode(errors="replace").strip().rpartition("\n")[2]
        return f"the worker process exited with {code}: {last[:200] or 'no message'}"

    def _size(self) -> int:
        return os.fstat(self._errors).st_size

    async def _reap(self) -> None:
        with trio.move_on_after(WORKER_EXIT_MAX_S):
            # there is no event for a child's end in trio's public interface
            while self._process.poll() is None:  # noqa: ASYNC110
                await trio.sleep(0.002)

    def _kill(self) -> None:
        """Kill bubblewrap and its family: early in its start the group holds all, later the child is on its own."""
        if self._process.poll() is not None:
            return
        try:
            children = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()

    async def close(self) -> None:
        """Kill the process, wait until it is gone, free everything. Idempotent, not interrupted by cancellation."""
        if self._closed:
            return
        self._closed = True
        self._kill()
        with trio.CancelScope(shield=True):
            await self._input.aclose()
            await self._output.aclose()
            await self._reap()
        os.close(self._errors)
