"""Instructions about nodes and the program itself: initialise, register, unstake, withdraw, slash."""

from __future__ import annotations

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from ..protocol import chain
from ..protocol.chain import ChainConfig
from ..protocol.hashing import QuorumKind, quorum_context, quorum_message
from .escrow_layout import (
    INSTRUCTIONS_SYSVAR,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    associated_token_address,
    config_address,
    node_address,
    program_data_address,
    stake_vault_address,
)
from .instruction_parts import create_associated, key_bytes, meta, pack
from .precompile import Statement, ed25519

INITIALISE, REGISTER = 0, 1
REQUEST_UNSTAKE, WITHDRAW_STAKE, WITHDRAW_EARNED, SLASH_EQUIVOCATION = 7, 8, 9, 10


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
    """Create Config, the stake vault and the treasury's token account. `verifier_share_bps` is a share of the fee.

    `admin` must be the program's upgrade authority.
    """
    data = pack(
        "<B3xHH32s32sQQQ", INITIALISE, fee_bps, verifier_share_bps, key_bytes(genesis, "genesis"),
        bytes(treasury_owner), minimum_stake, unbonding_s, grace_s,
    )  # fmt: skip
    accounts = [
        meta(admin, writable=True, signer=True),
        meta(config_address(program), writable=True),
        meta(stake_vault_address(program), writable=True),
        meta(mint), meta(TOKEN_PROGRAM), meta(SYSTEM_PROGRAM), meta(program_data_address(program)),
    ]  # fmt: skip
    return [create_associated(admin, treasury_owner, mint), Instruction(program, data, accounts)]


def register(wish: chain.Register, signer: Pubkey, program: Pubkey, mint: Pubkey) -> list[Instruction]:
    """Make or change the signer's Node, and add to its stake."""
    payout = Pubkey(key_bytes(wish.payout, "payout"))
    execution_class = key_bytes(wish.execution_class, "execution_class")
    data = pack("<B7xQ32s32s", REGISTER, wish.stake, execution_class, bytes(payout))
    accounts = [
        meta(signer, writable=True, signer=True),
        meta(config_address(program)),
        meta(node_address(program, bytes(signer)), writable=True),
        meta(associated_token_address(signer, mint), writable=True),
        meta(stake_vault_address(program), writable=True),
        meta(TOKEN_PROGRAM), meta(SYSTEM_PROGRAM),
    ]  # fmt: skip
    return [create_associated(signer, payout, mint), Instruction(program, data, accounts)]


def request_unstake(signer: Pubkey, program: Pubkey) -> list[Instruction]:
    """Start the signer's unbonding time."""
    accounts = [
        meta(signer, signer=True),
        meta(config_address(program)),
        meta(node_address(program, bytes(signer)), writable=True),
    ]
    return [Instruction(program, bytes([REQUEST_UNSTAKE]), accounts)]


def withdraw(
    wish: chain.WithdrawStake | chain.WithdrawEarned, signer: Pubkey, program: Pubkey, mint: Pubkey, payout: Pubkey
) -> list[Instruction]:
    """Pay a node's stake or its earned shares to its payout wallet, whose token account is made when missing."""
    tag = WITHDRAW_STAKE if isinstance(wish, chain.WithdrawStake) else WITHDRAW_EARNED
    accounts = [
        meta(config_address(program)),
        meta(node_address(program, key_bytes(wish.node, "node")), writable=True),
        meta(stake_vault_address(program), writable=True),
        meta(associated_token_address(payout, mint), writable=True),
        meta(TOKEN_PROGRAM),
    ]
    return [create_associated(signer, payout, mint), Instruction(program, bytes([tag]), accounts)]


def slash_equivocation(
    wish: chain.SlashEquivocation, signer: Pubkey, program: Pubkey, config: ChainConfig
) -> list[Instruction]:
    """Convict a node by its two statements; its stake goes to the treasury."""
    context = quorum_context(config.genesis, bytes(program), wish.job, wish.open_slot)
    statements = [
        Statement(
            key_bytes(wish.node, "node"),
            signature,
            quorum_message(QuorumKind(wish.kind), wish.sequence, wish.round, context, key_bytes(digest, "digests")),
        )
        for digest, signature in zip(wish.digests, wish.signatures, strict=True)
    ]
    first, second = wish.digests
    data = pack("<B7x32sQ32s32s", SLASH_EQUIVOCATION, key_bytes(wish.job, "job"), wish.open_slot, first, second)
    mint, treasury = Pubkey(config.mint), Pubkey(config.treasury)
    accounts = [
        meta(config_address(program)),
        meta(node_address(program, wish.node), writable=True),
        meta(stake_vault_address(program), writable=True),
        meta(associated_token_address(treasury, mint), writable=True),
        meta(TOKEN_PROGRAM),
        meta(INSTRUCTIONS_SYSVAR),
    ]
    return [create_associated(signer, treasury, mint), ed25519(statements), Instruction(program, data, accounts)]
