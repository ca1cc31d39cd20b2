"""Where failures end: an effect that fails costs its job at most, never the node.

An error of ours (CyxError) is expected now and then: it is logged with its cause, and timers decide what follows. Any
other exception is a defect: it is logged with its traceback, and the job that it belongs to ends. This is the only
place of the scheduler that catches `Exception`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
import trio

from ..protocol.errors import CyxError
from ..protocol.units import JobId, base58

log = structlog.get_logger()


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves(inner)]


@asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose first error is raised as itself, so that `except CyxError` around it works."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        errors = [leaf for leaf in _leaves(group) if not isinstance(leaf, trio.Cancelled)]
        defects = [leaf for leaf in errors if not isinstance(leaf, CyxError)]
        if len(defects) > 1 or not errors:
            raise
        raise (defects or errors)[0] from None


async def supervised(
    job: JobId, on_defect: Callable[[], None], action: Callable[..., Awaitable[object]], *arguments: object
) -> None:
    """Await `action(*arguments)` for `job`; raises nothing but cancellation. `on_defect` ends the job."""
    try:
        await action(*arguments)
    except CyxError as error:
        log.warning("effect failed", job=base58(job), effect=_name(action), cause=str(error))
    except Exception:
        # A defect of ours, perhaps provoked by a peer: it must cost this job, not the node.
        log.exception("effect raised", job=base58(job), effect=_name(action))
        on_defect()


def contained(action: Callable[..., object], *arguments: object) -> None:
    """Call `action(*arguments)`, which handles something from outside; raises nothing."""
    try:
        action(*arguments)
    except CyxError as error:
        log.info("message not followed", handler=_name(action), cause=str(error))
    except Exception:
        # A defect of ours that a message set off: the message is dropped, the node goes on.
        log.exception("handler raised", handler=_name(action))


def _name(action: Callable[..., object]) -> str:
    return str(getattr(action, "__name__", action))
