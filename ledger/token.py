"""SPL Token: the instructions that the local chain, its faucet and wallets need, and reading of its accounts."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account

from .escrow_layout import TOKEN_PROGRAM

MINT_BYTES: Final = 82
TOKEN_ACCOUNT_BYTES: Final = 165
CYX_DECIMALS: Final = 6

TRANSFER, MINT_TO, TRANSFER_CHECKED, _INITIALIZE_MINT2 = 3, 7, 12, 20
"""First byte of the token program's instructions."""


@dataclass(frozen=True, slots=True)
class TokenAccount:
    """A token account as read; `amount` in base units."""

    mint: bytes
    owner: bytes
    amount: int


def create_mint(payer: Pubkey, mint: Pubkey, authority: Pubkey, rent: int) -> list[Instruction]:
    """Create a mint with six decimals and no freeze authority; `payer` and `mint` sign."""
    space = CreateAccountParams(from_pubkey=payer, to_pubkey=mint, lamports=rent, space=MINT_BYTES, owner=TOKEN_PROGRAM)
    data = bytes([_INITIALIZE_MINT2, CYX_DECIMALS]) + bytes(authority) + b"\0"
    return [create_account(space), Instruction(TOKEN_PROGRAM, data, [AccountMeta(mint, False, True)])]


def mint_to(mint: Pubkey, destination: Pubkey, authority: Pubkey, amount: int) -> Instruction:
    """Mint `amount` base units into a token account; `authority` signs."""
    accounts = [
        AccountMeta(mint, False, True),
        AccountMeta(destination, False, True),
        AccountMeta(authority, True, False),
    ]
    return Instruction(TOKEN_PROGRAM, struct.pack("<BQ", MINT_TO, amount), accounts)


def transfer_tokens(source: Pubkey, mint: Pubkey, destination: Pubkey, owner: Pubkey, amount: int) -> Instruction:
    """Move `amount` base units between token accounts; `owner` signs. The program checks mint and decimals."""
    accounts = [
        AccountMeta(source, False, True),
        AccountMeta(mint, False, False),
        AccountMeta(destination, False, True),
        AccountMeta(owner, True, False),
    ]
    return Instruction(TOKEN_PROGRAM, struct.pack("<BQB", TRANSFER_CHECKED, amount, CYX_DECIMALS), accounts)


def read_token_account(data: bytes) -> TokenAccount | None:
    """Decode an initialised token account; None when `data` is something else."""
    if len(data) != TOKEN_ACCOUNT_BYTES or data[108] == 0:
        return None
    return TokenAccount(data[:32], data[32:64], int.from_bytes(data[64:72], "little"))


def read_mint(data: bytes) -> tuple[int, int] | None:
    """(supply in base units, decimals) of an initialised mint; None when `data` is something else."""
    if len(data) != MINT_BYTES or data[45] == 0:
        return None
    return int.from_bytes(data[36:44], "little"), data[44]
