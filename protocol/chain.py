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
    """How a settlement ends a job. PARTIAL and FRAUD are reserved numbers of the program's later widening."""

    OK = 1
    FAILED = 2
    UNSOLD = 3
    CANCELLED = 4


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
    """A registered node. Reputation is a pure function of this account (`scoring.reputation`)."""

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


@dataclass(frozen=True, slots=True)
class JobAccount:
    """An escrowed job. `committee` is in ascending order of ticket, empty until seated."""

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
    """End a job by quorum. `signatures` are (member, signature) over `hashing.quorum_message`."""

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


@dataclass(frozen=True, slots=True)
class CloseJob:
    """Credit the members in the mask, return the rest to the requester, reclaim rent."""

    job: JobId


@dataclass(frozen=True, slots=True)
class RefundExpired:
    """Return an unsettled budget after `refund_at_s`."""

    job: JobId


Instruction = Register | OpenJob | Seat | Settle | CloseJob | RefundExpired
