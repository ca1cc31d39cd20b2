"""Shows a judge what a chain says over JSON-RPC: every account of the escrow program, and every transaction.

A reader from outside sees accounts only now and then: a job may be paid and closed between two looks. What was paid
follows from the transactions, which stay: it is what they took from the job's vault.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import structlog
import trio

from ..ledger.addresses import LOCAL_MINT, LOCAL_PROGRAM_ID, local_keypair
from ..ledger.escrow_layout import (
    JOB_BYTES,
    JOB_TAG,
    NODE_BYTES,
    NODE_TAG,
    TOKEN_PROGRAM,
    decode_job,
    decode_node,
)
from ..ledger.history import TransactionRecord
from ..ledger.http_rpc import HttpRpc
from ..ledger.token import TOKEN_ACCOUNT_BYTES, read_mint, read_token_account
from ..ledger.transaction_json import transaction_record
from ..protocol.chain import JobAccount, JobState
from ..protocol.errors import ChainUnreachable
from ..protocol.limits import SIGNATURES_PAGE_MAX
from ..protocol.units import JobId, MicroCyx, NodeId, base58
from .judge import Judge, gained, precompile_signatures

LOOK_INTERVAL_S = 0.5
"""Shorter than a job's way from its opening to its award, so that every committee is seen."""
SUPPLY_TRIES = 5
_BPS = 10_000
_ROUNDING = 2
"""Micro-CYX by which a price may be off that is computed back from its rounded parts."""

log = structlog.get_logger()


@dataclass(slots=True)
class ChainReader:
    """`unix_s` is the chain's time at the last look. `payments` are what a quorum signed, as (member, message)."""

    rpc: HttpRpc
    judge: Judge = field(init=False)
    unix_s: int = 0
    looks: int = 0
    transactions: int = 0
    unread: int = 0
    """Payments of jobs whose committee was never seen, and looks that the chain did not answer."""
    payments: list[tuple[NodeId, bytes]] = field(default_factory=list)
    _jobs_at: dict[bytes, JobId] = field(default_factory=dict)
    _paid: Counter[JobId] = field(default_factory=Counter)
    _newest: dict[bytes, str] = field(default_factory=dict)

    async def watch(self) -> None:
        """Look every LOOK_INTERVAL_S until cancelled."""
        while True:
            try:
                await self.look()
            except ChainUnreachable as error:
                self.unread += 1
                log.warning("the chain was not read", cause=str(error))
            await trio.sleep(LOOK_INTERVAL_S)

    async def look(self) -> None:
        """Show the judge all accounts, then all transactions since the last look."""
        self.unix_s = (await self.rpc.time()).unix_s
        for address, account in await self.rpc.get_program_accounts(LOCAL_PROGRAM_ID, tag=JOB_TAG, size=JOB_BYTES):
            job = decode_job(account.data)
            self._jobs_at[address] = job.job
            self.judge.check_job(job)
        for _, account in await self.rpc.get_program_accounts(LOCAL_PROGRAM_ID, tag=NODE_TAG, size=NODE_BYTES):
            self.judge.check_node(decode_node(account.data))
        for source in (LOCAL_PROGRAM_ID, LOCAL_MINT):
            newest = self._newest.get(source)
            listed = await self.rpc.signatures(source, limit=SIGNATURES_PAGE_MAX, until=newest)
            for signature in (str(one["signature"]) for one in reversed(listed)):
                answer = await self.rpc.transaction(signature)
                if answer is not None:
                    self._show(transaction_record(signature, answer), escrow=source == LOCAL_PROGRAM_ID)
                self._newest[source] = signature
        self.looks += 1

    async def check_supply(self) -> None:
        """Show the judge the mint and all balances, read while nothing was minted."""
        for _ in range(SUPPLY_TRIES):
            supply = await self._supply()
            found = await self.rpc.get_program_accounts(
                bytes(TOKEN_PROGRAM), tag=LOCAL_MINT[0], size=TOKEN_ACCOUNT_BYTES
            )
            accounts = (read_token_account(account.data) for _, account in found)
            held = sum(one.amount for one in accounts if one is not None and one.mint == LOCAL_MINT)
            if supply == await self._supply():
                self.judge.check_supply(held, supply)
                return
        self.unread += 1

    async def _supply(self) -> int:
        account = await self.rpc.get_account(LOCAL_MINT)
        minted = read_mint(account.data) if account is not None else None
        if minted is None:
            raise ChainUnreachable("the mint of the local chain cannot be read")
        return minted[0]

    def _show(self, record: TransactionRecord, *, escrow: bool) -> None:
        if record.error:
            return
        self.judge.check_transaction(record, bytes(local_keypair("faucet").pubkey()))
        if not escrow:
            return
        self.transactions += 1
        for address in record.addresses:
            if address in self._jobs_at:
                self._show_job(self._jobs_at[address], address, record)

    def _show_job(self, name: JobId, address: bytes, record: TransactionRecord) -> None:
        job = self.judge.seen[name]
        back = gained(record, job.requester)
        held = [any(one.owner == address for one in tokens) for tokens in (record.tokens_before, record.tokens_after)]
        if held == [True, False]:
            self.judge.check_refund(replace(job, paid=MicroCyx(self._paid_of(job, back))), back)
        elif (paid := -gained(record, address)) > 0:
            self._show_payment(job, paid, record)

    def _show_payment(self, job: JobAccount, paid: int, record: TransactionRecord) -> None:
        if self._paid[job.job]:
            self.judge.broken(2, f"job {base58(job.job)[:8]} was paid by two transactions")
        self._paid[job.job] += paid
        signatures = precompile_signatures(record.raw)
        self.payments += [(NodeId(key), message) for key, message in signatures]
        if job.committee:
            self.judge.check_payment(job, {key for key, _ in signatures})
        else:
            self.unread += 1

    def _paid_of(self, job: JobAccount, back: int) -> int:
        """What was paid for a job: as its account said last, if it was settled then. Else it follows from what its
        paying transaction took: all but the verifiers' share of the fee, which leaves the vault at the closing."""
        if job.state is JobState.SETTLED:
            return job.paid
        taken = self._paid[job.job]
        price = taken * _BPS**2 // (_BPS**2 - job.fee_bps * job.verifier_share_bps)
        slack = _ROUNDING if taken else 0
        return min(max(job.budget - back, price - slack), price + slack)
