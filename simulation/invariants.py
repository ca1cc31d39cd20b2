"""What must hold in every world, whatever happens (DESIGN 13). Numbered; each names what it saw when it fails.

1. Tokens are conserved: all token accounts of the mint add up to its supply.
2. At most one worker is paid per unit of a job, and never more than the budget.
3. Nobody is paid without m attestations of the job's own committee.
4. No honest node is slashed.
5. Every job reaches an end state by its refund time.
6. The requester gets back all that was not paid.
7. Every queue stays within its bound.
8. No message of a dead node is acted upon.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import trio
from solders.pubkey import Pubkey

from ..ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID
from ..ledger.escrow_layout import (
    JOB_BYTES,
    JOB_TAG,
    NODE_BYTES,
    NODE_TAG,
    TOKEN_PROGRAM,
    associated_token_address,
    decode_job,
    decode_node,
)
from ..protocol.chain import JobAccount, JobState, Verdict
from ..protocol.limits import JOBS_OPEN_MAX, QUORUMS
from ..protocol.units import JobId, base58
from ..scheduler.job import FINAL
from .market import JobRecord
from .world import REQUESTER_MICRO_CYX, World

AUDIT_INTERVAL_S = 1.0
_MINT_SUPPLY = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant: its number, when (virtual seconds), and what was seen."""

    number: int
    at_s: float
    text: str


@dataclass(slots=True)
class Auditor:
    """Looks at the chain after each transaction, at the nodes every AUDIT_INTERVAL_S, and at all at the end."""

    world: World
    violations: list[Violation] = field(default_factory=list)
    seen: dict[JobId, JobAccount] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world.cluster.after_transaction = lambda record: self._after(record.signature)

    def _after(self, signature: str) -> None:
        self.world.trace.event("transaction", signature)
        self.audit()

    async def watch(self) -> None:
        """Audit what moves without transactions, until the world ends."""
        while True:
            await trio.sleep(AUDIT_INTERVAL_S)
            self._check_queues()

    def _broken(self, number: int, text: str) -> None:
        violation = Violation(number, trio.current_time(), text)
        if all((one.number, one.text) != (number, text) for one in self.violations):
            self.violations.append(violation)
            self.world.trace.event("violation", f"{number} {text}")

    def audit(self) -> None:
        """Invariants that hold at every moment."""
        self._tokens_conserved()
        for job in self._job_accounts():
            self._check_job(job)
        for raw in self._program_accounts(NODE_TAG, NODE_BYTES):
            account = decode_node(raw)
            cheat = next((p.cheat for p in self.world.peers if p.node_id == account.node), "")
            if account.slashed and not cheat:
                self._broken(4, f"{base58(account.node)} was slashed by {account.slashed}")

    def _check_queues(self) -> None:
        for peer in self.world.peers:
            if peer.node is not None and len(peer.node.market.rooms.by_job) > JOBS_OPEN_MAX:
                self._broken(7, f"{peer.name} has {len(peer.node.market.rooms.by_job)} rooms")

    def _program_accounts(self, tag: int, size: int) -> list[bytes]:
        accounts = self.world.cluster.program_accounts(LOCAL_PROGRAM_ID)
        return [a.data for _, a in accounts if len(a.data) == size and a.data[:1] == bytes([tag])]

    def _job_accounts(self) -> list[JobAccount]:
        return [decode_job(raw) for raw in self._program_accounts(JOB_TAG, JOB_BYTES)]

    def _tokens_conserved(self) -> None:
        mint = self.world.cluster.account(LOCAL_MINT)
        assert mint is not None
        (supply,) = _MINT_SUPPLY.unpack_from(mint.data, 36)
        held = sum(
            _MINT_SUPPLY.unpack_from(account.data, 64)[0]
            for _, account in self.world.cluster.program_accounts(bytes(TOKEN_PROGRAM))
            if len(account.data) == 165 and account.data[:32] == LOCAL_MINT
        )
        if held != supply:
            self._broken(1, f"{held} micro-CYX are held, {supply} were minted")

    def _check_job(self, job: JobAccount) -> None:
        before = self.seen.get(job.job)
        name = base58(job.job)[:8]
        if job.paid > job.budget or job.units_paid > job.units_total:
            self._broken(2, f"job {name} paid {job.paid} of {job.budget} for {job.units_paid} units")
        if before is not None and before.paid and (before.worker, before.paid) != (job.worker, job.paid):
            self._broken(2, f"job {name} was paid twice")
        if job.paid and (job.fee_mask.bit_count() < QUORUMS[job.k] or len(job.committee) != job.k):
            self._broken(3, f"job {name} was paid with {job.fee_mask.bit_count()} verdicts of {QUORUMS[job.k]}")
        if job.paid and (job.worker in job.committee or job.worker == job.requester):
            self._broken(3, f"job {name} paid a member or its requester")
        late = self.world.cluster.unix_s - job.refund_at_s
        if job.state is not JobState.SETTLED and late > 60:
            self._broken(5, f"job {name} is {job.state.name} {late} s after its refund time")
        self.seen[job.job] = job

    def final(self, jobs: list[JobRecord]) -> None:
        """Invariants of the end: every job is over, and what was not paid is back."""
        self.audit()
        for record in jobs:
            if record.result is None and not record.error:
                self._broken(5, f"job {record.number} never ended; stages {list(record.stages)}")
            elif record.result is not None and record.result.phase not in FINAL:
                self._broken(5, f"job {record.number} ended as {record.result.phase.value}")
        for requester in self.world.requesters:
            self._check_refunds(requester.name, jobs)

    def _check_refunds(self, name: str, jobs: list[JobRecord]) -> None:
        peer = next(one for one in self.world.requesters if one.name == name)
        owner, mint = Pubkey.from_bytes(peer.node_id), Pubkey.from_bytes(LOCAL_MINT)
        account = self.world.cluster.account(bytes(associated_token_address(owner, mint)))
        owned = _MINT_SUPPLY.unpack_from(account.data, 64)[0] if account is not None else 0
        own = {job for job, seen in self.seen.items() if seen.requester == peer.node_id}
        still = {job.job for job in self._job_accounts()}
        paid = sum(self.seen[job].paid for job in own if self.seen[job].verdict is Verdict.OK)
        locked = sum(self.seen[job].budget for job in own & still if self.seen[job].state is not JobState.SETTLED)
        waiting = sum(
            self.seen[job].budget - self.seen[job].paid
            for job in own & still
            if self.seen[job].state is JobState.SETTLED
        )
        dust = 7 * len(own)
        if not 0 <= owned + paid + locked + waiting - REQUESTER_MICRO_CYX <= dust:
            self._broken(6, f"{name} owns {owned}, paid {paid}, {locked} locked, {waiting} waiting to be closed")
