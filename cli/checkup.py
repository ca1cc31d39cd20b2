"""How `cyxnode doctor` works: checks that know nothing of one another, each bounded in time, none hiding another.

A check returns findings; what it raises becomes a finding too, so a failure is told and the next check still speaks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import structlog
import trio

from ..protocol.errors import ChainUnreachable, CyxError, LocalError
from ..protocol.limits import CHECK_TIMEOUT_S

log = structlog.get_logger()


class Level(Enum):
    """How bad a finding is: FAILURE keeps a node from working, WARNING from working well."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and in one line what to do about it (empty when OK)."""

    level: Level
    text: str
    fix: str = ""


def fine(text: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, text)


def warning(text: str, fix: str) -> Finding:
    """It works, but not well."""
    return Finding(Level.WARNING, text, fix)


def failure(text: str, fix: str) -> Finding:
    """It does not work."""
    return Finding(Level.FAILURE, text, fix)


@dataclass(frozen=True, slots=True)
class Check:
    """One question."""

    name: str
    ask: Callable[[], Awaitable[Sequence[Finding]]]
    within_s: float = CHECK_TIMEOUT_S


def aside(ask: Callable[[], Sequence[Finding]]) -> Callable[[], Awaitable[Sequence[Finding]]]:
    """A check that blocks, in a thread; a late one is left behind, and ends with the process."""

    async def asked() -> Sequence[Finding]:
        answer: Sequence[Finding] = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)  # type: ignore[call-arg]
        return answer

    return asked


async def examine(checks: Sequence[Check]) -> list[tuple[str, Finding]]:
    """Ask all at once; findings in the order of the checks."""
    found: dict[str, Sequence[Finding]] = {}

    async def one(check: Check) -> None:
        found[check.name] = await _asked(check)

    async with trio.open_nursery() as nursery:
        for check in checks:
            nursery.start_soon(one, check)
    return [(check.name, finding) for check in checks for finding in found[check.name]]


async def _asked(check: Check) -> Sequence[Finding]:
    try:
        with trio.fail_after(check.within_s):
            return await check.ask()
    except trio.TooSlowError:
        return [
            failure(f"no answer within {check.within_s:g} s", "see whether the machine or its network is overloaded")
        ]
    except Exception as error:
        return [_of(_leaf(error))]


def _of(error: BaseException) -> Finding:
    if isinstance(error, LocalError):
        return failure(f"{error.field}: {error.message}", error.fix or "correct it")
    if isinstance(error, ChainUnreachable):
        return failure(str(error), "start `cyxnode chain run`, or give --rpc URL")
    if isinstance(error, CyxError):
        return failure(str(error), "see that what it names is running and reachable")
    # A check met what nobody thought of: the others shall still speak.
    log.warning("check failed", cause=repr(error))
    return failure(f"the check itself failed: {error!r}"[:200], "run it again with --log-level debug, and report it")


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
