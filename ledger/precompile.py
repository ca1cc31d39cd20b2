"""Statements for the Ed25519 precompile: the program believes what stands right before its own instruction."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from solders.instruction import Instruction

from ..protocol.errors import LocalError, RemoteError
from ..protocol.limits import ID_BYTES, SIGNATURE_BYTES
from .escrow_layout import ED25519_PRECOMPILE

SELF = 0xFFFF
"""Instruction index by which the precompile means its own data."""
_ENTRY = struct.Struct("<7H")


@dataclass(frozen=True, slots=True)
class Statement:
    """`signer` (32 bytes) signed `message`."""

    signer: bytes
    signature: bytes
    message: bytes


def ed25519(statements: Sequence[Statement]) -> Instruction:
    """The precompile instruction that checks all statements, within its own data; a message stands in it once."""
    start = 2 + _ENTRY.size * len(statements)
    body, messages = b"", b""
    messages_at = start + (ID_BYTES + SIGNATURE_BYTES) * len(statements)
    places: dict[bytes, int] = {}
    head = bytes([len(statements), 0])
    for one in statements:
        if len(one.signature) != SIGNATURE_BYTES:
            raise LocalError("is not 64 bytes", field="signatures", fix="pass raw ed25519 signatures")
        if len(one.signer) != ID_BYTES:
            raise LocalError("is not 32 bytes", field="signatures", fix="pass raw ed25519 keys")
        if one.message not in places:
            places[one.message] = messages_at + len(messages)
            messages += one.message
        at = start + len(body)
        head += _ENTRY.pack(at + ID_BYTES, SELF, at, SELF, places[one.message], len(one.message), SELF)
        body += one.signer + one.signature
    return Instruction(ED25519_PRECOMPILE, head + body + messages, [])


def statements_in(data: bytes) -> list[Statement]:
    """What a precompile instruction checked within its own data; RemoteError when it is cut short."""
    found = []
    for number in range(data[0] if data else 0):
        try:
            signature_at, one, key_at, two, message_at, size, three = _ENTRY.unpack_from(data, 2 + _ENTRY.size * number)
        except struct.error:
            raise RemoteError("an instruction of the Ed25519 precompile is cut short") from None
        parts = (
            data[key_at : key_at + ID_BYTES],
            data[signature_at : signature_at + SIGNATURE_BYTES],
            data[message_at : message_at + size],
        )
        if (one, two, three) == (SELF, SELF, SELF) and [len(part) for part in parts] == [
            ID_BYTES,
            SIGNATURE_BYTES,
            size,
        ]:
            found.append(Statement(*parts))
    return found
