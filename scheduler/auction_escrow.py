"""What the chain says of an announced job: whether its escrow is real, who sits, and whether the draw was fair.

Nothing is bid on that is not funded exactly as announced. A job whose requester passed over more than one node with a
lower ticket is shunned (DESIGN 8).
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
import trio

from ..protocol.chain import JobAccount, JobState, NodeAccount
from ..protocol.committee import eligible, passed_over
from ..protocol.envelope import Signed
from ..protocol.errors import CyxError
from ..protocol.limits import ESCROW_POLL_S, SEAT_DEADLINE_SLOTS, SEAT_POLL_S, SLOT_MS
from ..protocol.messages import Capability, JobAnnounce
from ..protocol.units import JobId, NodeId, base58
from .context import NodeContext
from .outage import Outage
from .requirements import Requirements

SEAT_PATIENCE_S = 2 * SEAT_DEADLINE_SLOTS * SLOT_MS / 1000
"""Slots may take twice their time; afterwards the program seats nobody any more."""

log = structlog.get_logger()


def disagreement(announce: Signed[JobAnnounce], account: JobAccount, program: bytes) -> str:
    """Where an announce contradicts its escrow account; empty when they agree."""
    said = announce.message
    if said.program != program:
        return "escrow of another program"
    if account.requester != announce.sender or account.budget != said.budget:
        return "escrow of another requester or budget"
    if account.spec_hash != said.spec_hash or account.execution_class != said.execution_class:
        return "escrow for another spec or class"
    if (account.k, account.units_total) != (said.k, said.units):
        return "escrow for another committee size or number of units"
    if account.work_deadline_s != said.work_deadline_s:
        return "escrow with another deadline"
    return "escrow is settled" if account.state is JobState.SETTLED else ""


async def confirmed_escrow(context: NodeContext, announce: Signed[JobAnnounce]) -> JobAccount | None:
    """The escrow account if it agrees with the announce. Looks again within the commit window: chains lag."""
    job, outage, cause = JobId(announce.message.job), Outage(JobId(announce.message.job)), "no escrow account"
    with trio.move_on_after(announce.message.commit_window_ms / 1000):
        while True:
            try:
                account = await context.chain.job(job)
                outage.worked()
            except CyxError as error:
                outage.failed(error)
                account = None
            if account is not None:
                cause = disagreement(announce, account, context.chain.program)
                if not cause:
                    return account
                break
            await trio.sleep(ESCROW_POLL_S)
    log.warning("announce not followed", job=base58(job), cause=cause)
    return None


async def seated_account(context: NodeContext, job: JobId) -> JobAccount | None:
    """Wait for the draw; None when the job ended before it, or when the program seats nobody any more.

    The longer the wait, the more seldom it looks: by an eighth of the time that it has waited.
    """
    outage, began_s = Outage(job), trio.current_time()
    while (waited_s := trio.current_time() - began_s) < SEAT_PATIENCE_S:
        await trio.sleep(max(SEAT_POLL_S, waited_s / 8))
        try:
            account = await context.chain.job(job)
            outage.worked()
        except CyxError as error:
            outage.failed(error)
            continue
        if account is None or account.state is JobState.SETTLED:
            return None
        if account.state is JobState.SEATED:
            return account
    log.warning("never seated", job=base58(job))
    return None


async def draw_is_fair(
    context: NodeContext, announce: JobAnnounce, account: JobAccount, alive: Mapping[NodeId, Capability]
) -> bool:
    """Whether at most one fitting live node with a lower ticket was passed over; True where it cannot be judged."""
    try:
        slot_hash = await context.chain.slot_hash(account.open_slot)
        nodes, config = await context.registry.nodes(), await context.registry.config()
    except CyxError as error:
        log.warning("draw not checked", job=base58(account.job), cause=str(error))
        return True
    if slot_hash is None:
        log.warning("draw not checked: the slot's hash is gone", job=base58(account.job), slot=account.open_slot)
        return True
    wanted = Requirements.of(announce)
    could = [
        node
        for node, offer in alive.items()
        if wanted.may_sit(offer) and node in nodes and may_be_drawn(nodes[node], account, config.minimum_stake)
    ]
    passed = passed_over(slot_hash, account, could)
    if len(passed) > 1:
        log.warning("job shunned: its committee was chosen", job=base58(account.job), passed_over=len(passed))
    return len(passed) <= 1


def may_be_drawn(node: NodeAccount, account: JobAccount, minimum_stake: int) -> bool:
    """Whether the program would seat a node on the committee of an opened job."""
    return eligible(
        node,
        execution_class=account.execution_class,
        open_slot=account.open_slot,
        requester=account.requester,
        minimum_stake=minimum_stake,
    )
