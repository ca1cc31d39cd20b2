"""Wishes of `protocol.chain` turned into Solana instructions, in the order of one transaction (`program/layout.h`).

Destinations are associated token accounts, which are created beforehand when they are missing, so that nobody can
block a payment by closing one. Only `settle` for seven seats has no room for that (1,232 bytes): its payer sends
`create_associated` in a transaction of its own when an account is missing.
"""

from __future__ import annotations

from typing import assert_never

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from ..protocol import chain
from ..protocol.chain import ChainConfig, JobAccount, Verdict
from ..protocol.errors import LocalError
from ..protocol.hashing import QuorumKind, claim_message, job_id, quorum_context, quorum_message, settle_digest
from ..protocol.limits import AMOUNT_MAX, FRAUD_QUORUMS, QUORUMS
from ..protocol.units import NodeId
from . import node_instructions as nodes
from .escrow_layout import (
    INSTRUCTIONS_SYSVAR,
    SLOT_HASHES_SYSVAR,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    associated_token_address,
    config_address,
    job_address,
    node_address,
    stake_vault_address,
    vault_address,
)
from .instruction_parts import create_associated, key_bytes, meta, pack
from .precompile import Statement, ed25519

__all__ = [
    "CLOSE_JOB", "OPEN_JOB", "REFUND_EXPIRED", "ROOM_FOR_ACCOUNTS_SIGNATURES", "SEAT", "SETTLE", "create_associated",
    "encode", "settle_instruction",
]  # fmt: skip

OPEN_JOB, SEAT, SETTLE, CLOSE_JOB, REFUND_EXPIRED = 2, 3, 4, 5, 6
OPEN_JOB_LAYOUT = "<BB2xIQQQ32s32s32s"
"""Number, k, units, budget, work deadline, refund at, nonce, spec hash, execution class."""
SETTLE_LAYOUT = "<BBBBIQ32s32sH6x"
"""Number, verdict, fee mask, sequence, units, price, worker, result hash, round."""
PAYING = (Verdict.OK, Verdict.PARTIAL)
ROOM_FOR_ACCOUNTS_SIGNATURES = 3
"""With more signatures than this, a settle transaction has no room to create token accounts."""


def _open_job(wish: chain.OpenJob, signer: Pubkey, program: Pubkey, mint: Pubkey) -> list[Instruction]:
    if wish.k not in QUORUMS:
        raise LocalError(f"{wish.k} seats", field="k", fix=f"one of {sorted(QUORUMS)}")
    if not 0 < wish.budget <= AMOUNT_MAX:
        raise LocalError(f"{wish.budget} micro-CYX", field="budget", fix=f"between 1 and {AMOUNT_MAX}")
    nonce, spec_hash = key_bytes(wish.nonce, "nonce"), key_bytes(wish.spec_hash, "spec_hash")
    data = pack(
        OPEN_JOB_LAYOUT, OPEN_JOB, wish.k, wish.units_total, wish.budget, wish.work_deadline_s,
        wish.refund_at_s, nonce, spec_hash, key_bytes(wish.execution_class, "execution_class"),
    )  # fmt: skip
    job = job_id(NodeId(bytes(signer)), nonce, spec_hash)
    accounts = [
        meta(signer, writable=True, signer=True),
        meta(config_address(program)),
        meta(job_address(program, job), writable=True),
        meta(vault_address(program, job), writable=True),
        meta(associated_token_address(signer, mint), writable=True),
        meta(mint), meta(TOKEN_PROGRAM), meta(SYSTEM_PROGRAM),
    ]  # fmt: skip
    return [Instruction(program, data, accounts)]


def _seat(wish: chain.Seat, signer: Pubkey, program: Pubkey) -> list[Instruction]:
    accounts = [
        meta(job_address(program, key_bytes(wish.job, "job")), writable=True),
        meta(config_address(program)),
        meta(SLOT_HASHES_SYSVAR),
        meta(signer, writable=True, signer=True),
        *(meta(node_address(program, key_bytes(member, "committee"))) for member in wish.committee),
    ]
    return [Instruction(program, bytes([SEAT]), accounts)]


def settle_instruction(
    wish: chain.Settle, *, signer: Pubkey, program: Pubkey, config: ChainConfig, payout: Pubkey | None
) -> Instruction:
    """`settle` alone, without the precompile that must stand right before it."""
    data = pack(
        SETTLE_LAYOUT, SETTLE, wish.verdict, wish.fee_mask, wish.sequence, wish.units, wish.price,
        key_bytes(wish.worker, "worker"), key_bytes(wish.result_hash, "result_hash"), wish.round,
    )  # fmt: skip
    accounts = [
        meta(job_address(program, key_bytes(wish.job, "job")), writable=True),
        meta(config_address(program)),
        meta(INSTRUCTIONS_SYSVAR),
        meta(signer, writable=True, signer=True),
    ]
    if any(wish.worker):
        accounts.append(meta(node_address(program, wish.worker), writable=True))
    if wish.verdict in PAYING:
        if payout is None:
            raise LocalError("is missing", field="payout", fix="read it from the worker's Node account")
        mint, treasury = Pubkey(config.mint), Pubkey(config.treasury)
        accounts += [
            meta(vault_address(program, wish.job), writable=True),
            meta(associated_token_address(payout, mint), writable=True),
            meta(associated_token_address(treasury, mint), writable=True),
            meta(TOKEN_PROGRAM),
        ]
    return Instruction(program, data, accounts)


def _settle(
    wish: chain.Settle, signer: Pubkey, program: Pubkey, config: ChainConfig, job: JobAccount, payout: Pubkey | None
) -> list[Instruction]:
    context = quorum_context(config.genesis, bytes(program), job.job, job.open_slot)
    digest = settle_digest(wish.verdict, wish.worker, wish.price, wish.units, wish.result_hash, wish.fee_mask)
    message = quorum_message(QuorumKind.SETTLE, wish.sequence, wish.round, context, digest)
    settle = settle_instruction(wish, signer=signer, program=program, config=config, payout=payout)
    fraud = wish.verdict is Verdict.FRAUD
    quorum = FRAUD_QUORUMS[job.k] if fraud else job.m  # more than needed would only make the transaction larger
    statements = [Statement(member, signature, message) for member, signature in wish.signatures[:quorum]]
    if fraud:
        claim = claim_message(wish.sequence, context, wish.result_hash)
        statements.append(Statement(wish.worker, wish.claim_signature, claim))
    create: list[Instruction] = []
    if wish.verdict in PAYING and payout is not None and quorum <= ROOM_FOR_ACCOUNTS_SIGNATURES:
        mint = Pubkey(config.mint)
        create = [create_associated(signer, owner, mint) for owner in (payout, Pubkey(config.treasury))]
    return [*create, ed25519(statements), settle]


def _close(signer: Pubkey, program: Pubkey, config: ChainConfig, job: JobAccount, *, tag: int) -> list[Instruction]:
    requester, mint = Pubkey(job.requester), Pubkey(config.mint)
    accounts = [
        meta(job_address(program, job.job), writable=True),
        meta(config_address(program)),
        meta(vault_address(program, job.job), writable=True),
        meta(requester, writable=True),
        meta(associated_token_address(requester, mint), writable=True),
        meta(stake_vault_address(program), writable=True),
        meta(TOKEN_PROGRAM),
    ]
    create = [create_associated(signer, requester, mint)]
    if job.slashed:
        treasury = Pubkey(config.treasury)
        accounts.append(meta(associated_token_address(treasury, mint), writable=True))
        create.append(create_associated(signer, treasury, mint))
    owed = [member for member, share in zip(job.committee, job.shares, strict=False) if share]
    accounts += [meta(node_address(program, member), writable=True) for member in owed]
    return [*create, Instruction(program, bytes([tag]), accounts)]


def encode(
    instruction: chain.Instruction,
    *,
    signer: Pubkey,
    program: Pubkey,
    config: ChainConfig,
    job: JobAccount | None,
    payout: Pubkey | None,
) -> list[Instruction]:
    """All instructions of the one transaction that does `instruction`, in order; `signer` pays and signs.

    `job` is the current account for Settle, CloseJob and RefundExpired; `payout` the payout wallet of the worker for a
    Settle that pays, of the node for a withdrawal. Put compute-budget instructions in front: nothing may come between
    the precompile and what stands behind it. Raises LocalError when a field cannot be encoded or one of these is
    missing.
    """
    mint = Pubkey(config.mint)
    match instruction:
        case chain.Register():
            return nodes.register(instruction, signer, program, mint)
        case chain.OpenJob():
            return _open_job(instruction, signer, program, mint)
        case chain.Seat():
            return _seat(instruction, signer, program)
        case chain.Settle() | chain.CloseJob() | chain.RefundExpired():
            if job is None or job.job != instruction.job:
                raise LocalError("the Job account is missing", field="job", fix="read it from the chain first")
            if isinstance(instruction, chain.Settle):
                return _settle(instruction, signer, program, config, job, payout)
            tag = CLOSE_JOB if isinstance(instruction, chain.CloseJob) else REFUND_EXPIRED
            return _close(signer, program, config, job, tag=tag)
        case chain.RequestUnstake():
            return nodes.request_unstake(signer, program)
        case chain.WithdrawStake() | chain.WithdrawEarned():
            if payout is None:
                raise LocalError("is missing", field="payout", fix="read it from the Node account")
            return nodes.withdraw(instruction, signer, program, mint, payout)
        case chain.SlashEquivocation():
            return nodes.slash_equivocation(instruction, signer, program, config)
        case _:
            assert_never(instruction)
