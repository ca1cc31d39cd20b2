"""What the chain holds and what can be asked of it, as plain values (DESIGN 8).

The escrow program is the only judge; these types are its accounts as read, and its instructions as wished. The
adapter in `ledger` turns them into bytes. Nothing here knows Solana's wire format.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .units import JobId, MicroCyx, NodeId


class JobState(IntEnum):
    """State byte of a job account."""

    OPEN = 1
    SEATED = 2
    SETTLED = 3


class Verdict(IntEnum):
    """What a settlement says. PARTIAL pays for a part and leaves the job to a successor; all others end it."""

    OK = 1
    FAILED = 2
    UNSOLD = 3
    CANCELLED = 4
    PARTIAL = 5
    FRAUD = 6


@dataclass(frozen=True, slots=True)
class ChainTime:
    """The cluster's slot number and its clock in Unix seconds."""

    slot: int
    unix_s: int


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """The program's Config account."""

    admin: bytes
    genesis: bytes
    mint: bytes
    treasury: bytes
    fee_bps: int
    verifier_share_bps: int
    minimum_stake: MicroCyx
    unbonding_s: int
    grace_s: int


@dataclass(frozen=True, slots=True)
class NodeAccount:
    """A registered node. Reputation is a pure function of this account (`scoring.reputation_ppm`).

    `unbonding_at_s` is when its stake can be withdrawn, 0 while it is not unbonding; a `retired` key was convicted of
    equivocation and is never a node again.
    """

    node: NodeId
    execution_class: bytes
    active_since_slot: int
    payout: bytes
    stake: MicroCyx
    earned: MicroCyx
    fees_generated: MicroCyx
    jobs_ok: int
    failures: int
    slashed: MicroCyx
    unbonding_at_s: int
    retired: bool = False


@dataclass(frozen=True, slots=True)
class JobAccount:
    """An escrowed job. `committee` is in ascending order of ticket, empty until seated.

    `verdict`, `worker` and `result_hash` are those of the last settlement; `shares` wait in the vault until the job is
    closed, one for each seat; `slashed` is what the worker's stake lost to FRAUD.
    """

    job: JobId
    requester: NodeId
    budget: MicroCyx
    spec_hash: bytes
    execution_class: bytes
    fee_bps: int
    verifier_share_bps: int
    k: int
    m: int
    open_slot: int
    committee: tuple[NodeId, ...]
    work_deadline_s: int
    refund_at_s: int
    units_total: int
    units_paid: int
    settlements: int
    state: JobState
    verdict: Verdict | None
    worker: NodeId | None
    paid: MicroCyx
    result_hash: bytes
    fee_mask: int
    shares: tuple[MicroCyx, ...]
    slashed: MicroCyx


@dataclass(frozen=True, slots=True)
class Balance:
    """What an address owns: lamports for fees, micro-CYX in its associated token account."""

    lamports: int
    micro_cyx: MicroCyx


@dataclass(frozen=True, slots=True)
class Register:
    """Create or reactivate the signer's Node account with a stake, in an execution class."""

    execution_class: bytes
    stake: MicroCyx
    payout: bytes


@dataclass(frozen=True, slots=True)
class OpenJob:
    """Fund an escrow. The job id is `hashing.job_id(signer, nonce, spec_hash)`; the program recomputes it."""

    nonce: bytes
    spec_hash: bytes
    execution_class: bytes
    budget: MicroCyx
    k: int
    units_total: int
    work_deadline_s: int
    refund_at_s: int


@dataclass(frozen=True, slots=True)
class Seat:
    """Name the drawn committee, in ascending order of ticket."""

    job: JobId
    committee: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Settle a job, or a part of it, by quorum. `signatures` are (member, signature) over `hashing.quorum_message`.

    FRAUD also needs `claim_signature`, the worker's over `hashing.claim_message`.
    """

    job: JobId
    verdict: Verdict
    worker: NodeId
    price: MicroCyx
    units: int
    result_hash: bytes
    fee_mask: int
    sequence: int
    round: int
    signatures: tuple[tuple[NodeId, bytes], ...]
    claim_signature: bytes = b""


@dataclass(frozen=True, slots=True)
class CloseJob:
    """Credit the members in the mask, return the rest to the requester, reclaim rent."""

    job: JobId


@dataclass(frozen=True, slots=True)
class RefundExpired:
    """Return an unsettled budget after `refund_at_s`."""

    job: JobId


@dataclass(frozen=True, slots=True)
class RequestUnstake:
    """The signer's node wants to leave: no more seats and awards; its stake stays liable for Config.unbonding_s."""


@dataclass(frozen=True, slots=True)
class WithdrawStake:
    """Pay a node's stake to its payout wallet, once it has been unbonding long enough."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class WithdrawEarned:
    """Pay what a node has earned as a verifier to its payout wallet."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class SlashEquivocation:
    """Convict a node by two statements of one kind, sequence and round about one job, with different digests."""

    node: NodeId
    job: JobId
    open_slot: int
    kind: int
    sequence: int
    round: int
    digests: tuple[bytes, bytes]
    signatures: tuple[bytes, bytes]


Instruction = (
    Register
    | OpenJob
    | Seat
    | Settle
    | CloseJob
    | RefundExpired
    | RequestUnstake
    | WithdrawStake
    | WithdrawEarned
    | SlashEquivocation
)
