"""What long-running commands share: saying that they are ready, and ending when they should."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import click
import trio

from ..protocol.limits import STOP_TIMEOUT_S


def ready_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json and --until-stdin-closes"""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON line on standard output when ready."),
        click.option(
            "--until-stdin-closes", is_flag=True, help="End when standard input closes, so as not to outlive a parent."
        ),
    ):
        command = option(command)
    return command


def say_ready(as_json: bool, text: str, **facts: Any) -> None:
    """One line on standard output, for a person or for a program that waits for it."""
    click.echo(json.dumps({"ready": True, **facts}) if as_json else text)
    sys.stdout.flush()


async def watch_signals(scope: trio.CancelScope, *, task_status: Any) -> None:
    """Cancel `scope` at SIGINT and SIGTERM."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


async def interruptible(action: Callable[[], Awaitable[int]]) -> int:
    """The result of `action`, or 130 when a signal came first.

    A signal cancels it at its next checkpoint: a KeyboardInterrupt could strike in the middle of starting a process,
    which nobody would then know to stop.
    """
    code = 130
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(watch_signals, nursery.cancel_scope))
        code = await action()
        nursery.cancel_scope.cancel()
    return code


def run_until_stopped(serve: Callable[[], Awaitable[None]], *, until_stdin_closes: bool) -> None:
    """Run `serve` until SIGINT, SIGTERM, or the end of standard input; a stop is not an error."""

    async def watch_stdin(scope: trio.CancelScope) -> None:
        async with trio.lowlevel.FdStream(0) as stdin:
            while await stdin.receive_some(4096):
                pass
        scope.cancel()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(watch_signals, nursery.cancel_scope))
            if until_stdin_closes:
                nursery.start_soon(watch_stdin, nursery.cancel_scope)
            await serve()
            nursery.cancel_scope.cancel()

    trio.run(main)


def run_until_told(serve: Callable[[trio.Event], Awaitable[None]], *, until_stdin_closes: bool) -> None:
    """Run `serve`, which ends by itself once its event is set: at SIGINT, SIGTERM, or the end of standard input. It has
    STOP_TIMEOUT_S for that, less at a second signal."""
    told = trio.Event()

    async def wait_for_the_end(scope: trio.CancelScope) -> None:
        await told.wait()
        await trio.sleep(STOP_TIMEOUT_S)
        scope.cancel()

    async def watch(scope: trio.CancelScope, *, task_status: Any) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                if told.is_set():
                    scope.cancel()
                told.set()

    async def watch_stdin() -> None:
        async with trio.lowlevel.FdStream(0) as stdin:
            while await stdin.receive_some(4096):
                pass
        told.set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(watch, nursery.cancel_scope))
            nursery.start_soon(wait_for_the_end, nursery.cancel_scope)
            if until_stdin_closes:
                nursery.start_soon(watch_stdin)
            await serve(told)
            nursery.cancel_scope.cancel()

    trio.run(main)


def metrics_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--metrics"""
    return click.option(
        "--metrics", default=None, help="HOST:PORT, on loopback, for /metrics, /health and /ready (default: none)."
    )(command)
