"""Which checker judges which claim, and whether a task can be computed at all: what depends on the kind of a job."""

from __future__ import annotations

from typing import cast

from ..protocol.envelope import Signed
from ..protocol.errors import LocalError, RemoteError
from ..protocol.inference import Generated, InferSpec
from ..protocol.messages import Claim, InferenceClaim, ResultClaim
from .answer_check import AnswerChecker
from .checking import Checker
from .context import NodeContext
from .data_service import DataService
from .replay import Replayer
from .task_fetch import Task

NOTHING_SAID = Generated(0, "", (), 0, 0, "length", 0, b"")


def checker_for(context: NodeContext, data: DataService, claim: Signed[Claim], task: Task) -> Checker:
    """The checker of a claim; RemoteError when the claim is of another kind than the task."""
    if isinstance(task, InferSpec):
        if not isinstance(claim.message, InferenceClaim):
            raise RemoteError("the claim is not that of an inference", peer=claim.sender)
        return AnswerChecker(context.models, data, cast(Signed[InferenceClaim], claim), task)
    if not isinstance(claim.message, ResultClaim):
        raise RemoteError("the claim is not that of a training", peer=claim.sender)
    return Replayer(context.runner, data, cast(Signed[ResultClaim], claim), task)


def units_of(claim: Claim) -> int | None:
    """Units that a claim wants to be paid for; None for all of the job."""
    return claim.units if isinstance(claim, InferenceClaim) else None


async def impossible(context: NodeContext, task: Task | None) -> str:
    """Why nobody could compute a task, as our own executor finds; empty when it can, or when ours is at fault."""
    try:
        if isinstance(task, InferSpec):
            async with context.models.session(task) as model:
                await model.check(NOTHING_SAID)
        elif task is not None:
            async with context.runner.session(task) as session:
                await session.initial_state()
    except LocalError as error:
        return f"the request is invalid: {error}"
    return ""
