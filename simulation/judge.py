"""Says which law is broken, from what somebody read: accounts, transactions, the ends of jobs (DESIGN 13).

The laws have the numbers of `LAWS`. A judge reads nothing itself: in virtual worlds the Auditor shows it what the chain
in this process holds, in real ones a reader shows it what a chain says over JSON-RPC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from solders.transaction import VersionedTransaction

from ..ledger.addresses import LOCAL_MINT
from ..ledger.escrow_layout import ED25519_PRECOMPILE
from ..ledger.history import TokenBalance, TransactionRecord
from ..ledger.precompile import statements_in
from ..protocol.chain import JobAccount, JobState, NodeAccount
from ..protocol.limits import QUORUMS
from ..protocol.units import JobId, NodeId, base58
from ..scheduler.job import FINAL
from .desk import JobRecord

LAWS = {
    0: "the world runs to its end",
    1: "tokens are conserved",
    2: "at most one worker is paid per unit, never more than the budget",
    3: "nobody is paid without m attestations of the job's committee",
    4: "no honest node is slashed",
    5: "every job reaches an end state by its refund time",
    6: "the requester gets back all that was not paid",
    7: "every queue stays within its bound",
    8: "no message of a dead node is acted upon",
}
"""The invariants in a few words, and 0 for a world that broke down."""
REFUND_PATIENCE_S = 60
"""How long after its refund time a requester that lives may take to fetch the money."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant: its number, when (seconds of the world), and what was seen."""

    number: int
    at_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Bench:
    """What a judge must know of its world: its time, the chain's Unix seconds, the names of nodes that are honest (None
    for others and strangers), whether a node is a requester that looks after its jobs, and who hears of violations."""

    now_s: Callable[[], float]
    chain_s: Callable[[], int]
    honest: Callable[[NodeId], str | None]
    orders: Callable[[NodeId], bool]
    tell: Callable[[Violation], None] = lambda violation: None


@dataclass(slots=True)
class Judge:
    """Remembers what it was shown, so that it sees what may not change."""

    bench: Bench
    violations: list[Violation] = field(default_factory=list)
    seen: dict[JobId, JobAccount] = field(default_factory=dict)
    stakes: dict[NodeId, int] = field(default_factory=dict)
    _told: set[tuple[int, str]] = field(default_factory=set)

    def broken(self, number: int, text: str) -> None:
        """A law is broken; each sight of it is told once."""
        if (number, text) not in self._told:
            self._told.add((number, text))
            violation = Violation(number, self.bench.now_s(), text)
            self.violations.append(violation)
            self.bench.tell(violation)

    def check_transaction(self, record: TransactionRecord, faucet: bytes) -> None:
        """Invariant 1 of one transaction that succeeded."""
        made = _held(record.tokens_after) - _held(record.tokens_before)
        if made and faucet not in record.addresses:
            self.broken(1, f"transaction {record.signature[:12]} made {made} micro-CYX")

    def check_supply(self, held: int, supply: int) -> None:
        """Invariant 1 over all accounts."""
        if held != supply:
            self.broken(1, f"{held} micro-CYX are held, {supply} were minted")

    def check_job(self, job: JobAccount) -> None:
        """Invariants 2, 3 and 5 of one account."""
        before, name = self.seen.get(job.job), base58(job.job)[:8]
        if job.paid > job.budget or job.units_paid > job.units_total:
            self.broken(2, f"job {name} paid {job.paid} of {job.budget} for {job.units_paid} units")
        if before is not None and before.paid and (before.worker, before.paid) != (job.worker, job.paid):
            self.broken(2, f"job {name} was paid twice")
        if job.paid and (job.fee_mask.bit_count() < QUORUMS[job.k] or len(job.committee) != job.k):
            self.broken(3, f"job {name} was paid with {job.fee_mask.bit_count()} verdicts of {QUORUMS[job.k]}")
        if job.paid and (job.worker in job.committee or job.worker == job.requester):
            self.broken(3, f"job {name} paid a member or its requester")
        late_s = self.bench.chain_s() - job.refund_at_s
        if job.state is not JobState.SETTLED and late_s > REFUND_PATIENCE_S and self.bench.orders(job.requester):
            self.broken(5, f"job {name} is {job.state.name} {REFUND_PATIENCE_S} s after its refund time")
        self.seen[job.job] = job

    def check_payment(self, job: JobAccount, keys: set[bytes]) -> None:
        """Invariant 3: `keys` are those whose signatures the chain verified in the paying transaction."""
        members = keys & set(job.committee)
        if len(members) < job.m:
            self.broken(3, f"job {base58(job.job)[:8]} was paid on {len(members)} members' signatures of {job.m}")

    def check_node(self, account: NodeAccount) -> None:
        """Invariant 4."""
        name, stake = self.bench.honest(account.node), self.stakes.get(account.node, 0)
        if name is not None:
            if account.slashed:
                self.broken(4, f"{name} was slashed by {account.slashed}")
            if account.stake < stake:
                self.broken(4, f"{name} lost {stake - account.stake} of its stake")
        self.stakes[account.node] = account.stake

    def check_refund(self, job: JobAccount, back: int) -> None:
        """Invariant 6: what a job's requester got `back` when the account was closed; shares are rounded down."""
        owed = job.budget - job.paid
        if not owed <= back <= owed + job.k:
            self.broken(6, f"job {base58(job.job)[:8]} gave back {back} of {owed} micro-CYX")

    def check_ends(self, jobs: Iterable[JobRecord]) -> None:
        """Invariant 5 at the end: every job is over."""
        for record in jobs:
            if record.result is None and not record.error:
                self.broken(5, f"job {record.number} never ended; stages {list(record.stages)}")
            elif record.result is not None and record.result.phase not in FINAL:
                self.broken(5, f"job {record.number} ended as {record.result.phase.value}")


def gained(record: TransactionRecord, owner: bytes) -> int:
    """What the token accounts of `owner` gained by a transaction, in micro-CYX; negative for a loss."""
    mine = [[one for one in tokens if one.owner == owner] for tokens in (record.tokens_after, record.tokens_before)]
    return _held(mine[0]) - _held(mine[1])


def precompile_signatures(raw: bytes) -> list[tuple[bytes, bytes]]:
    """(key, message) of each signature that the Ed25519 precompile verified in a transaction that landed."""
    transaction = VersionedTransaction.from_bytes(raw).message
    found: list[tuple[bytes, bytes]] = []
    for instruction in transaction.instructions:
        if transaction.account_keys[instruction.program_id_index] != ED25519_PRECOMPILE:
            continue
        found += [(said.signer, said.message) for said in statements_in(bytes(instruction.data))]
    return found


def precompile_signers(raw: bytes) -> set[bytes]:
    """The keys of `precompile_signatures`."""
    return {key for key, _ in precompile_signatures(raw)}


def _held(tokens: Iterable[TokenBalance]) -> int:
    return sum(token.amount for token in tokens if token.mint == LOCAL_MINT)
