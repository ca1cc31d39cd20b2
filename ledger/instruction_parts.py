"""The pieces that every instruction of the escrow program is made of: account entries, keys, packed numbers."""

from __future__ import annotations

import struct

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from ..protocol.errors import LocalError
from ..protocol.limits import ID_BYTES
from .escrow_layout import ASSOCIATED_TOKEN_PROGRAM, SYSTEM_PROGRAM, TOKEN_PROGRAM, associated_token_address


def meta(key: Pubkey, *, writable: bool = False, signer: bool = False) -> AccountMeta:
    """An account of an instruction."""
    return AccountMeta(key, is_signer=signer, is_writable=writable)


def key_bytes(value: bytes, field: str) -> bytes:
    """32 raw bytes; LocalError naming `field` for any other length."""
    if len(value) != ID_BYTES:
        raise LocalError(f"has {len(value)} bytes, not {ID_BYTES}", field=field, fix="pass the raw 32 bytes")
    return value


def pack(layout: str, *values: int | bytes) -> bytes:
    """Instruction data by a struct layout; LocalError when a number does not fit."""
    try:
        return struct.pack(layout, *values)
    except struct.error as error:
        raise LocalError(f"a number does not fit: {error}", field="instruction", fix="choose a smaller one") from None


def create_associated(payer: Pubkey, owner: Pubkey, mint: Pubkey) -> Instruction:
    """Create a wallet's token account if it is missing; does nothing when it is there."""
    accounts = [
        meta(payer, writable=True, signer=True),
        meta(associated_token_address(owner, mint), writable=True),
        meta(owner), meta(mint), meta(SYSTEM_PROGRAM), meta(TOKEN_PROGRAM),
    ]  # fmt: skip
    return Instruction(ASSOCIATED_TOKEN_PROGRAM, b"\x01", accounts)
