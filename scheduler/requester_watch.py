"""The requester's eye on the chain: it seats the committee, and the chain has the last word on how a job ended.

A chain that is away for a while delays a job; it ends none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from ..protocol.award import JobTerms
from ..protocol.chain import JobAccount, JobState, RefundExpired, Seat
from ..protocol.committee import draw
from ..protocol.errors import ChainRejected, ChainUnreachable, CyxError, LocalError
from ..protocol.limits import CHAIN_RETRY_S, OUTCOME_PATIENCE_S, SEAT_DEADLINE_SLOTS
from ..protocol.units import NodeId, base58
from .chronicle_facts import Seated
from .job import JobEvent
from .outage import Outage
from .requester_funding import Funding
from .requester_record import JobRecord

SEAT_POLL_S = 0.05
OUTCOME_POLL_S = 2.0


@dataclass(slots=True)
class ChainWatch:
    """Watches one funded job. `on_committee` is called once, `on_settled` once nothing more will come."""

    funding: Funding
    record: JobRecord
    on_committee: Callable[[], None]
    on_settled: Callable[[], None]

    async def seat(self) -> None:
        """Draw and seat the committee as soon as the open slot's hash is known."""
        record, chain = self.record, self.funding.chain
        account, outage = record.account, Outage(record.job)
        if account is None:
            return
        looked = False
        while record.terms is None:
            try:
                if not looked:
                    await self.funding.look_around(account)
                    looked = True
                if (await chain.time()).slot > account.open_slot + SEAT_DEADLINE_SLOTS:
                    raise LocalError("the committee was not seated in time", field="seat", fix="wait for the refund")
                await self._try_to_seat(account)
                self._answered(outage)
            except ChainUnreachable as error:
                self._silent(outage, error)
                await trio.sleep(CHAIN_RETRY_S)
            except ChainRejected as error:
                record.trouble(f"seat: {error}")
                await trio.sleep(CHAIN_RETRY_S)
            await trio.sleep(SEAT_POLL_S)

    async def _try_to_seat(self, account: JobAccount) -> None:
        chain = self.funding.chain
        slot_hash = await chain.slot_hash(account.open_slot)
        if slot_hash is None:
            return
        await self.funding.look_for(account, slot_hash)
        could = await self.funding.seatable(account.execution_class, account.open_slot)
        committee = draw(slot_hash, self.record.job, could, account.k)
        if len(committee) < account.k:
            self.record.trouble(f"only {len(committee)} nodes may sit, {account.k} are needed")
            await trio.sleep(CHAIN_RETRY_S)
            return
        self.record.sent("seat", await chain.submit(Seat(self.record.job, committee)))
        self._seated(committee)

    def _seated(self, committee: tuple[NodeId, ...]) -> None:
        record = self.record
        if record.terms is not None or record.announce is None or record.account is None:
            return
        genesis, open_slot = self.funding.wire.genesis, record.account.open_slot
        opener = self.funding.wire.opener
        record.terms = JobTerms(genesis, record.announce.message, open_slot, committee, opener)
        record.stage("seated", ", ".join(base58(node)[:8] for node in committee), Seated(committee=committee))
        self.on_committee()

    async def follow(self) -> None:
        """Learn a committee that somebody else seated, an outcome that never reached us, and that a refund is due."""
        outage = Outage(self.record.job)
        while True:
            await trio.sleep(OUTCOME_POLL_S)
            try:
                if await self._look():
                    return
                self._answered(outage)
            except (ChainUnreachable, ChainRejected) as error:
                self._silent(outage, error)

    def _silent(self, outage: Outage, error: CyxError) -> None:
        if not outage.ongoing:
            self.record.trouble(f"the chain cannot be read: {error}")
        outage.failed(error)

    def _answered(self, outage: Outage) -> None:
        if outage.ongoing:
            self.record.trouble("the chain could not be read for a while, and answers again")
        outage.worked()

    async def _look(self) -> bool:
        record, chain = self.record, self.funding.chain
        account = await chain.job(record.job)
        if account is None or account.state is JobState.SETTLED:
            record.account = account or record.account
            with trio.move_on_after(OUTCOME_PATIENCE_S):
                while record.outcome is None:
                    await record.changed.wait()
            self.on_settled()
            return True
        record.account = account
        if account.committee:
            self._seated(account.committee)
        if (await chain.time()).unix_s < account.refund_at_s:
            return False
        record.sent("refund_expired", await chain.submit(RefundExpired(record.job)))
        record.event(JobEvent.EXPIRED, "the refund time has come")
        record.stage("expired", "no verdict in time; the budget is back")
        self.on_settled()
        return True
