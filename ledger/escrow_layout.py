"""The escrow program's accounts: where they are and what their bytes mean (`program/layout.h`).

An account opens with a tag and a version byte. What is read here comes from an RPC server and is hostile until it
is decoded: a wrong length, tag, version, state or quorum raises RemoteError.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path

from solders.pubkey import Pubkey

from ..protocol.chain import ChainConfig, JobAccount, JobState, NodeAccount, Verdict
from ..protocol.errors import RemoteError
from ..protocol.limits import PEERS_KNOWN_MAX, QUORUMS
from ..protocol.units import JobId, MicroCyx, NodeId
from .addresses import LOADER_PROGRAM
from .escrow_errors import ERRORS

__all__ = [
    "CONFIG_BYTES", "CONFIG_TAG", "ERRORS", "JOB_BYTES", "JOB_TAG", "NODE_BYTES", "NODE_TAG", "PROGRAM_PATH",
    "associated_token_address", "config_address", "decode_config", "decode_job", "decode_node", "job_address",
    "node_address", "program_data_address", "stake_vault_address", "vault_address",
]  # fmt: skip

PROGRAM_PATH = Path(__file__).parent / "program" / "escrow.so"
"""The built program (sBPF v3)."""

CONFIG_TAG, NODE_TAG, JOB_TAG = 0xC1, 0xC2, 0xC3
"""First byte of each kind of account, for memcmp filters at offset 0."""
LAYOUT_VERSION = 2

SYSTEM_PROGRAM = Pubkey.default()
TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED_TOKEN_PROGRAM = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
INSTRUCTIONS_SYSVAR = Pubkey.from_string("Sysvar1nstructions1111111111111111111111111")
SLOT_HASHES_SYSVAR = Pubkey.from_string("SysvarS1otHashes111111111111111111111111111")
ED25519_PRECOMPILE = Pubkey.from_string("Ed25519SigVerify111111111111111111111111111")

_CONFIG = struct.Struct("<BB2xHH32s32s32s32s32sQQQ")
_NODE = struct.Struct("<BBxB4x32s32s32s32sQQQQQQII")
_JOB = struct.Struct("<BB2xBBBBB3xHH32s32s32s32sQQQQIII4xQQ32s32s224s7Q")
CONFIG_BYTES, NODE_BYTES, JOB_BYTES = _CONFIG.size, _NODE.size, _JOB.size


def config_address(program: Pubkey) -> Pubkey:
    """The one Config account."""
    return Pubkey.find_program_address([b"config"], program)[0]


def node_address(program: Pubkey, node: bytes) -> Pubkey:
    """Node account of a key (32 bytes)."""
    return Pubkey.find_program_address([b"node", node], program)[0]


def job_address(program: Pubkey, job: bytes) -> Pubkey:
    """Job account of a job id (32 bytes)."""
    return Pubkey.find_program_address([b"job", job], program)[0]


def vault_address(program: Pubkey, job: bytes) -> Pubkey:
    """Token account that holds a job's budget; its authority is the Job account."""
    return Pubkey.find_program_address([b"vault", job], program)[0]


def stake_vault_address(program: Pubkey) -> Pubkey:
    """Token account that holds all stakes and earned shares; its authority is Config."""
    return Pubkey.find_program_address([b"stake_vault"], program)[0]


def program_data_address(program: Pubkey) -> Pubkey:
    """Where the upgradeable loader keeps the program's code and its upgrade authority."""
    return Pubkey.find_program_address([bytes(program)], LOADER_PROGRAM)[0]


def associated_token_address(owner: Pubkey, mint: Pubkey) -> Pubkey:
    """Token account of a wallet for a mint of the classic token program."""
    seeds = [bytes(owner), bytes(TOKEN_PROGRAM), bytes(mint)]
    return Pubkey.find_program_address(seeds, ASSOCIATED_TOKEN_PROGRAM)[0]


def _check(name: str, data: bytes, size: int, tag: int) -> None:
    if len(data) != size:
        raise RemoteError(f"{name} account has {len(data)} bytes, not {size}")
    if data[0] != tag:
        raise RemoteError(f"{name} account has tag {data[0]:#04x}, not {tag:#04x}")
    if data[1] != LAYOUT_VERSION:
        raise RemoteError(f"{name} account has version {data[1]}, not {LAYOUT_VERSION}")


def decode_config(data: bytes) -> ChainConfig:
    """Read a Config account; RemoteError when it is not one."""
    _check("Config", data, CONFIG_BYTES, CONFIG_TAG)
    _, _, fee, share, admin, genesis, mint, treasury, _, minimum, unbonding, grace = _CONFIG.unpack(data)
    return ChainConfig(admin, genesis, mint, treasury, fee, share, MicroCyx(minimum), unbonding, grace)


@lru_cache(maxsize=PEERS_KNOWN_MAX)
def decode_node(data: bytes) -> NodeAccount:
    """Read a Node account; RemoteError when it is not one. All are read again and again, and few have changed."""
    _check("Node", data, NODE_BYTES, NODE_TAG)
    (_, _, retired, node, execution_class, payout, _, active, stake, earned, fees, slashed, unbonding, jobs_ok,
     failures) = _NODE.unpack(data)  # fmt: skip
    return NodeAccount(
        node=NodeId(node), execution_class=execution_class, active_since_slot=active, payout=payout,
        stake=MicroCyx(stake), earned=MicroCyx(earned), fees_generated=MicroCyx(fees), jobs_ok=jobs_ok,
        failures=failures, slashed=MicroCyx(slashed), unbonding_at_s=unbonding, retired=bool(retired),
    )  # fmt: skip


def decode_job(data: bytes) -> JobAccount:
    """Read a Job account; RemoteError when it is not one. `paid` includes the fee."""
    _check("Job", data, JOB_BYTES, JOB_TAG)
    (_, _, state, verdict, k, m, mask, fee, share, job, requester, spec_hash, execution_class, budget, open_slot,
     deadline, refund_at, units_total, units_paid, settlements, paid, slashed, worker, result_hash, seats, *shares) = (
        _JOB.unpack(data)
    )  # fmt: skip
    if QUORUMS.get(k) != m:
        raise RemoteError(f"Job account has an unknown quorum of {m} of {k}")
    try:
        job_state, job_verdict = JobState(state), Verdict(verdict) if verdict else None
    except ValueError as error:
        raise RemoteError(f"Job account is in an unknown state: {error}") from None
    seated = job_state is not JobState.OPEN
    return JobAccount(
        job=JobId(job), requester=NodeId(requester), budget=MicroCyx(budget), spec_hash=spec_hash,
        execution_class=execution_class, fee_bps=fee, verifier_share_bps=share, k=k, m=m, open_slot=open_slot,
        committee=tuple(NodeId(seats[32 * i : 32 * i + 32]) for i in range(k)) if seated else (),
        work_deadline_s=deadline, refund_at_s=refund_at, units_total=units_total, units_paid=units_paid,
        settlements=settlements, state=job_state, verdict=job_verdict,
        worker=NodeId(worker) if any(worker) else None, paid=MicroCyx(paid), result_hash=result_hash, fee_mask=mask,
        shares=tuple(MicroCyx(share) for share in shares[:k]), slashed=MicroCyx(slashed),
    )  # fmt: skip
