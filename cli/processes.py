"""Starts cyxnode commands as child processes, and sees that none is left (demo, tests, real simulations).

A child says that it is ready with one JSON line. Its standard input is a pipe that nobody writes to: when this process
dies, even by SIGKILL, the pipe closes and the child ends by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from ..protocol.errors import CyxError, LocalError

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Child:
    """A running command. `facts` is its ready line; its log is at `log`."""

    name: str
    process: subprocess.Popen[bytes]
    facts: dict[str, Any]
    log: Path


class ChildFailed(CyxError):
    """A child ended, or did not become ready in time; the text has the last lines of its log."""


@asynccontextmanager
async def open_child(name: str, arguments: list[str], home: Path, log_level: str = "info") -> AsyncIterator[Child]:
    """Run `cyxnode ARGUMENTS --json --until-stdin-closes` while the context is open; entered once it is ready. It leads
    a process group of its own, which can be killed or stopped as one."""
    log = home / f"{name}.log"
    try:
        sink = log.open("wb")
    except OSError as error:
        raise LocalError(f"{log}: {error.strerror}", field="home", fix="choose a writable --home") from None
    command = [sys.executable, "-m", "cyxnode.cli.main", "--log-level", log_level, "--log-format", "json"]
    environment = {**os.environ, "CYXNODE_HOME": str(home)}
    with sink:
        process = subprocess.Popen(  # noqa: ASYNC220 - must be the main thread: a parent-death signal follows the thread
            [*command, *arguments, "--json", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            env=environment,
            start_new_session=True,
        )
    try:
        yield Child(name, process, await _ready_line(name, process, log), log)
    finally:
        with trio.CancelScope(shield=True):
            await stop(process)


async def _ready_line(name: str, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line = b""
    with trio.move_on_after(READY_TIMEOUT_S):
        async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as stream:
            while not line.endswith(b"\n"):
                chunk = await stream.receive_some(4096)
                if not chunk:
                    break
                line += chunk
    if not line.endswith(b"\n"):
        raise ChildFailed(f"{name} did not start: {last_error(log)}")
    facts = json.loads(line)
    assert isinstance(facts, dict)
    return facts


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child and whatever it has started; nothing when it has ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)


@asynccontextmanager
async def stopped(process: subprocess.Popen[bytes]) -> AsyncIterator[None]:
    """A child stands still while the context is open, and with it whatever it has started.

    The signals come from a process of their own, which waits for the end of its standard input: when this process
    dies, even by SIGKILL, the child goes on, finds its own standard input closed, and ends.
    """
    script = 'kill -s STOP -- "-$0"; read -r _; kill -s CONT -- "-$0"'
    keeper = subprocess.Popen(  # noqa: ASYNC220 - it is there before it returns, and that is all that is waited for
        ["/bin/sh", "-c", script, str(process.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(keeper.wait)


def last_error(log: Path) -> str:
    """The last line of a log, which is where a command says why it ended."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"its log {log} is empty"


async def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a child to end; kill its process group if it does not within STOP_TIMEOUT_S."""
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    signal_group(process, signal.SIGCONT)  # one that stands still would not hear of it
    try:
        await trio.to_thread.run_sync(partial(process.wait, timeout=STOP_TIMEOUT_S))
    except subprocess.TimeoutExpired:
        signal_group(process, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
