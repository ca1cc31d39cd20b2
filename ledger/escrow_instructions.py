"""Wishes of `protocol.chain` turned into Solana instructions, in the order of one transaction (`program/layout.h`).

Destinations are associated token accounts, which are created beforehand when they are missing, so that nobody can
block a payment by closing one. Only `settle` for seven seats has no room for that (1,232 bytes): its payer sends
`create_associated` in a transaction of its own when an account is missing.
"""

from __future__ import annotations

import struct
from typing import assert_never

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from ..protocol import chain
from ..protocol.chain import ChainConfig, JobAccount, Verdict
from ..protocol.errors import LocalError
from ..protocol.hashing import QuorumKind, job_id, quorum_context, quorum_message, settle_digest
from ..protocol.limits import AMOUNT_MAX, ID_BYTES, QUORUMS, SIGNATURE_BYTES
from ..protocol.units import NodeId
from .escrow_layout import (
    ASSOCIATED_TOKEN_PROGRAM,
    ED25519_PRECOMPILE,
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

INITIALISE, REGISTER, OPEN_JOB, SEAT, SETTLE, CLOSE_JOB, REFUND_EXPIRED = range(7)
SELF = 0xFFFF
"""Instruction index by which the precompile means its own data."""
ROOM_FOR_ACCOUNTS_SIGNATURES = 3
"""With more signatures than this, a settle transaction has no room to create token accounts."""


def _meta(key: Pubkey, *, writable: bool = False, signer: bool = False) -> AccountMeta:
    return AccountMeta(key, is_signer=signer, is_writable=writable)


def _key(value: bytes, field: str) -> bytes:
    if len(value) != ID_BYTES:
        raise LocalError(f"has {len(value)} bytes, not {ID_BYTES}", field=field, fix="pass the raw 32 bytes")
    return value


def _pack(layout: str, *values: int | bytes) -> bytes:
    try:
        return struct.pack(layout, *values)
    except struct.error as error:
        raise LocalError(f"a number does not fit: {error}", field="instruction", fix="choose a smaller one") from None


def create_associated(payer: Pubkey, owner: Pubkey, mint: Pubkey) -> Instruction:
    """Create a wallet's token account if it is missing; does nothing when it is there."""
    accounts = [
        _meta(payer, writable=True, signer=True),
        _meta(associated_token_address(owner, mint), writable=True),
        _meta(owner), _meta(mint), _meta(SYSTEM_PROGRAM), _meta(TOKEN_PROGRAM),
    ]  # fmt: skip
    return Instruction(ASSOCIATED_TOKEN_PROGRAM, b"\x01", accounts)


def initialise(
    program: Pubkey,
    admin: Pubkey,
    mint: Pubkey,
    treasury_owner: Pubkey,
    *,
    genesis: bytes,
    fee_bps: int = 1000,
    verifier_share_bps: int = 2000,
    minimum_stake: int,
    unbonding_s: int,
    grace_s: int,
) -> list[Instruction]:
    """Create Config, the stake vault and the treasury's token account. `verifier_share_bps` is a share of the fee."""
    data = _pack(
        "<B3xHH32s32sQQQ", INITIALISE, fee_bps, verifier_share_bps, _key(genesis, "genesis"), bytes(treasury_owner),
        minimum_stake, unbonding_s, grace_s,
    )  # fmt: skip
    accounts = [
        _meta(admin, writable=True, signer=True),
        _meta(config_address(program), writable=True),
        _meta(stake_vault_address(program), writable=True),
        _meta(mint), _meta(TOKEN_PROGRAM), _meta(SYSTEM_PROGRAM),
    ]  # fmt: skip
    return [create_associated(admin, treasury_owner, mint), Instruction(program, data, accounts)]


def _register(wish: chain.Register, signer: Pubkey, program: Pubkey, mint: Pubkey) -> list[Instruction]:
    payout = Pubkey(_key(wish.payout, "payout"))
    execution_class = _key(wish.execution_class, "execution_class")
    data = _pack("<B7xQ32s32s", REGISTER, wish.stake, execution_class, bytes(payout))
    accounts = [
        _meta(signer, writable=True, signer=True),
        _meta(config_address(program)),
        _meta(node_address(program, bytes(signer)), writable=True),
        _meta(associated_token_address(signer, mint), writable=True),
        _meta(stake_vault_address(program), writable=True),
        _meta(TOKEN_PROGRAM), _meta(SYSTEM_PROGRAM),
    ]  # fmt: skip
    return [create_associated(signer, payout, mint), Instruction(program, data, accounts)]


def _open_job(wish: chain.OpenJob, signer: Pubkey, program: Pubkey, mint: Pubkey) -> list[Instruction]:
    if wish.k not in QUORUMS:
        raise LocalError(f"{wish.k} seats", field="k", fix=f"one of {sorted(QUORUMS)}")
    if not 0 < wish.budget <= AMOUNT_MAX:
        raise LocalError(f"{wish.budget} micro-CYX", field="budget", fix=f"between 1 and {AMOUNT_MAX}")
    nonce, spec_hash = _key(wish.nonce, "nonce"), _key(wish.spec_hash, "spec_hash")
    data = _pack(
        "<BB2xIQQQ32s32s32s", OPEN_JOB, wish.k, wish.units_total, wish.budget, wish.work_deadline_s,
        wish.refund_at_s, nonce, spec_hash, _key(wish.execution_class, "execution_class"),
    )  # fmt: skip
    job = job_id(NodeId(bytes(signer)), nonce, spec_hash)
    accounts = [
        _meta(signer, writable=True, signer=True),
        _meta(config_address(program)),
        _meta(job_address(program, job), writable=True),
        _meta(vault_address(program, job), writable=True),
        _meta(associated_token_address(signer, mint), writable=True),
        _meta(mint), _meta(TOKEN_PROGRAM), _meta(SYSTEM_PROGRAM),
    ]  # fmt: skip
    return [Instruction(program, data, accounts)]


def _seat(wish: chain.Seat, program: Pubkey) -> list[Instruction]:
    accounts = [
        _meta(job_address(program, _key(wish.job, "job")), writable=True),
        _meta(config_address(program)),
        _meta(SLOT_HASHES_SYSVAR),
        *(_meta(node_address(program, _key(member, "committee"))) for member in wish.committee),
    ]
    return [Instruction(program, bytes([SEAT]), accounts)]


def ed25519(message: bytes, signatures: tuple[tuple[NodeId, bytes], ...]) -> Instruction:
    """The precompile instruction that checks several signatures over one message, all within its own data."""
    start = 2 + 14 * len(signatures)
    message_at = start + (ID_BYTES + SIGNATURE_BYTES) * len(signatures)
    head, body = bytes([len(signatures), 0]), b""
    for signer, signature in signatures:
        if len(signature) != SIGNATURE_BYTES:
            raise LocalError("is not 64 bytes", field="signatures", fix="pass raw ed25519 signatures")
        at = start + len(body)
        head += struct.pack("<7H", at + ID_BYTES, SELF, at, SELF, message_at, len(message), SELF)
        body += _key(signer, "signatures") + signature
    return Instruction(ED25519_PRECOMPILE, head + body + message, [])


def settle_instruction(
    wish: chain.Settle, *, program: Pubkey, config: ChainConfig, payout: Pubkey | None
) -> Instruction:
    """`settle` alone, without the precompile that must stand right before it."""
    data = _pack(
        "<BBBBIQ32s32sH6x", SETTLE, wish.verdict, wish.fee_mask, wish.sequence, wish.units, wish.price,
        _key(wish.worker, "worker"), _key(wish.result_hash, "result_hash"), wish.round,
    )  # fmt: skip
    accounts = [
        _meta(job_address(program, _key(wish.job, "job")), writable=True),
        _meta(config_address(program)),
        _meta(INSTRUCTIONS_SYSVAR),
    ]
    if any(wish.worker):
        accounts.append(_meta(node_address(program, wish.worker), writable=True))
    if wish.verdict is Verdict.OK:
        if payout is None:
            raise LocalError("is missing", field="payout", fix="read it from the worker's Node account")
        mint, treasury = Pubkey(config.mint), Pubkey(config.treasury)
        accounts += [
            _meta(vault_address(program, wish.job), writable=True),
            _meta(associated_token_address(payout, mint), writable=True),
            _meta(associated_token_address(treasury, mint), writable=True),
            _meta(TOKEN_PROGRAM),
        ]
    return Instruction(program, data, accounts)


def _settle(
    wish: chain.Settle, signer: Pubkey, program: Pubkey, config: ChainConfig, job: JobAccount, payout: Pubkey | None
) -> list[Instruction]:
    context = quorum_context(config.genesis, bytes(program), job.job, job.open_slot)
    digest = settle_digest(wish.verdict, wish.worker, wish.price, wish.units, wish.result_hash, wish.fee_mask)
    message = quorum_message(QuorumKind.SETTLE, wish.sequence, wish.round, context, digest)
    settle = settle_instruction(wish, program=program, config=config, payout=payout)
    quorum = wish.signatures[: job.m]  # more than needed would only make the transaction larger
    create: list[Instruction] = []
    if wish.verdict is Verdict.OK and payout is not None and len(quorum) <= ROOM_FOR_ACCOUNTS_SIGNATURES:
        mint = Pubkey(config.mint)
        create = [create_associated(signer, owner, mint) for owner in (payout, Pubkey(config.treasury))]
    return [*create, ed25519(message, quorum), settle]


def _close(signer: Pubkey, program: Pubkey, config: ChainConfig, job: JobAccount, *, tag: int) -> list[Instruction]:
    requester, mint = Pubkey(job.requester), Pubkey(config.mint)
    accounts = [
        _meta(job_address(program, job.job), writable=True),
        _meta(config_address(program)),
        _meta(vault_address(program, job.job), writable=True),
        _meta(requester, writable=True),
        _meta(associated_token_address(requester, mint), writable=True),
        _meta(TOKEN_PROGRAM),
    ]
    if tag == CLOSE_JOB:
        paid = [member for seat, member in enumerate(job.committee) if job.fee_mask >> seat & 1]
        accounts.append(_meta(stake_vault_address(program), writable=True))
        accounts += [_meta(node_address(program, member), writable=True) for member in paid]
    return [create_associated(signer, requester, mint), Instruction(program, bytes([tag]), accounts)]


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

    `job` is the current account for Seat, Settle, CloseJob and RefundExpired; `payout` the worker's payout wallet
    for a Settle with verdict OK. Put compute-budget instructions in front: nothing may come between the precompile
    and settle. Raises LocalError when a field cannot be encoded or one of these is missing.
    """
    mint = Pubkey(config.mint)
    match instruction:
        case chain.Register():
            return _register(instruction, signer, program, mint)
        case chain.OpenJob():
            return _open_job(instruction, signer, program, mint)
        case chain.Seat():
            return _seat(instruction, program)
        case chain.Settle() | chain.CloseJob() | chain.RefundExpired():
            if job is None or job.job != instruction.job:
                raise LocalError("the Job account is missing", field="job", fix="read it from the chain first")
            if isinstance(instruction, chain.Settle):
                return _settle(instruction, signer, program, config, job, payout)
            tag = CLOSE_JOB if isinstance(instruction, chain.CloseJob) else REFUND_EXPIRED
            return _close(signer, program, config, job, tag=tag)
        case _:
            assert_never(instruction)
