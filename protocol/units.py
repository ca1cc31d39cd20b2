"""Names for the quantities that must not be mixed up, and their text forms.

Money is an unsigned integer of micro-CYX (10^-6 CYX). Ids are 32 bytes; their text form is base58, as on Solana.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NewType

from .errors import LocalError
from .limits import AMOUNT_MAX, LAMPORTS_PER_SOL, MICRO, PEERS_KNOWN_MAX

NodeId = NewType("NodeId", bytes)
"""32 raw bytes of an ed25519 public key: libp2p identity, Solana address and signer at once."""
JobId = NewType("JobId", bytes)
MicroCyx = NewType("MicroCyx", int)
Lamports = NewType("Lamports", int)
UnixMs = NewType("UnixMs", int)

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_AMOUNT = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?")
_SOL = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9}))?")


@lru_cache(maxsize=PEERS_KNOWN_MAX)
def base58(data: bytes) -> str:
    """Encode public bytes as base58 (Bitcoin alphabet); the latest are remembered, since logs name them often."""
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        digits = _ALPHABET[rest] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def parse_id(text: str, *, field: str) -> bytes:
    """Decode a base58 id of exactly 32 bytes; LocalError names `field` otherwise."""
    number = 0
    for char in text[:64]:
        digit = _ALPHABET.find(char)
        if digit < 0:
            raise LocalError(f"{char!r} is not a base58 character", field=field, fix="copy the id again")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    raw = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(text) > 64 or len(raw) != 32:
        raise LocalError("is not a 32-byte base58 id", field=field, fix="copy the whole id")
    return raw


def parse_cyx(text: str, *, field: str) -> MicroCyx:
    """Parse '12.5' CYX into micro-CYX; at most six decimals, no sign, no exponent."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise LocalError(
            f"{text!r} is not an amount in CYX", field=field, fix="write it like 2.5, at most six decimals"
        )
    amount = int(match[1]) * MICRO + int((match[2] or "").ljust(6, "0"))
    if amount > AMOUNT_MAX:
        raise LocalError("is larger than any balance", field=field, fix=f"at most {AMOUNT_MAX // MICRO} CYX")
    return MicroCyx(amount)


def format_cyx(amount: int) -> str:
    """Format micro-CYX as CYX with six decimals, e.g. 1500000 -> '1.500000'."""
    sign = "-" if amount < 0 else ""
    return f"{sign}{abs(amount) // MICRO}.{abs(amount) % MICRO:06d}"


def parse_sol(text: str, *, field: str) -> Lamports:
    """Parse '0.05' SOL into lamports; at most nine decimals, no sign, no exponent. Ten digits fit 64 bits."""
    match = _SOL.fullmatch(text.strip())
    if match is None:
        raise LocalError(
            f"{text!r} is not an amount in SOL", field=field, fix="write it like 0.05, at most nine decimals"
        )
    return Lamports(int(match[1]) * LAMPORTS_PER_SOL + int((match[2] or "").ljust(9, "0")))


def format_sol(lamports: int) -> str:
    """Format lamports as SOL with nine decimals, e.g. 5000 -> '0.000005000'."""
    sign = "-" if lamports < 0 else ""
    return f"{sign}{abs(lamports) // LAMPORTS_PER_SOL}.{abs(lamports) % LAMPORTS_PER_SOL:09d}"
