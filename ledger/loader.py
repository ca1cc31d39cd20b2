"""The upgradeable loader: its accounts as read, and its instructions (bincode: u32 number, then fields).

A buffer is created, written in chunks and then installed, which consumes it and gives its lamports back. A program is a
small account that points at its program data, where the code and the upgrade authority are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account

from .addresses import CLOCK_SYSVAR, LOADER_PROGRAM, RENT_SYSVAR
from .escrow_layout import SYSTEM_PROGRAM, program_data_address
from .rpc import AccountData

BUFFER_HEADER_BYTES = 37
PROGRAM_BYTES = 36
PROGRAM_DATA_HEADER_BYTES = 45
_BUFFER_STATE, _PROGRAM_STATE, _DATA_STATE = 1, 2, 3
_INITIALIZE_BUFFER, _WRITE, _DEPLOY, _UPGRADE, _SET_AUTHORITY, _EXTEND, _EXTEND_CHECKED = 0, 1, 2, 3, 4, 6, 9


@dataclass(frozen=True, slots=True)
class ProgramData:
    """Code as installed, with the zeros behind it; `authority` None: nobody can ever change it."""

    slot: int
    authority: bytes | None
    code: bytes

    def holds(self, elf: bytes) -> bool:
        """Whether the code is `elf`, followed by nothing but zeros."""
        return self.code[: len(elf)] == elf and not any(self.code[len(elf) :])


def read_program_data(account: AccountData | None) -> ProgramData | None:
    """Decode a program data account; None when it is something else."""
    if account is None or account.owner != bytes(LOADER_PROGRAM) or len(account.data) < PROGRAM_DATA_HEADER_BYTES:
        return None
    state, slot, present = struct.unpack_from("<IQB", account.data)
    if state != _DATA_STATE:
        return None
    return ProgramData(slot, account.data[13:45] if present else None, account.data[PROGRAM_DATA_HEADER_BYTES:])


def read_buffer(account: AccountData) -> tuple[bytes | None, bytes] | None:
    """(authority, what has been written so far); None when the account is no buffer."""
    if account.owner != bytes(LOADER_PROGRAM) or len(account.data) < BUFFER_HEADER_BYTES:
        return None
    state, present = struct.unpack_from("<IB", account.data)
    if state != _BUFFER_STATE:
        return None
    return account.data[5:37] if present else None, account.data[BUFFER_HEADER_BYTES:]


def is_program(account: AccountData) -> bool:
    """Whether an account is a program of the upgradeable loader."""
    return account.owner == bytes(LOADER_PROGRAM) and account.data[:4] == struct.pack("<I", _PROGRAM_STATE)


def create_buffer(payer: Pubkey, buffer: Pubkey, size: int, rent: int) -> list[Instruction]:
    """An empty buffer for `size` bytes, whose authority is `payer`. `payer` and `buffer` sign."""
    space = BUFFER_HEADER_BYTES + size
    created = CreateAccountParams(
        from_pubkey=payer, to_pubkey=buffer, lamports=rent, space=space, owner=LOADER_PROGRAM
    )  # fmt: skip
    accounts = [AccountMeta(buffer, False, True), AccountMeta(payer, False, False)]
    return [create_account(created), Instruction(LOADER_PROGRAM, struct.pack("<I", _INITIALIZE_BUFFER), accounts)]


def write(buffer: Pubkey, authority: Pubkey, offset: int, chunk: bytes) -> Instruction:
    """Put `chunk` at `offset` of a buffer."""
    data = struct.pack("<IIQ", _WRITE, offset, len(chunk)) + chunk
    return Instruction(LOADER_PROGRAM, data, [AccountMeta(buffer, False, True), AccountMeta(authority, True, False)])


def install(payer: Pubkey, program: Pubkey, buffer: Pubkey, size: int, rent: int) -> list[Instruction]:
    """Create the program from a buffer, `payer` being its upgrade authority. `payer` and `program` sign."""
    created = CreateAccountParams(
        from_pubkey=payer, to_pubkey=program, lamports=rent, space=PROGRAM_BYTES, owner=LOADER_PROGRAM
    )  # fmt: skip
    accounts = [
        AccountMeta(payer, True, True),
        AccountMeta(program_data_address(program), False, True),
        AccountMeta(program, False, True),
        AccountMeta(buffer, False, True),
        AccountMeta(RENT_SYSVAR, False, False),
        AccountMeta(CLOCK_SYSVAR, False, False),
        AccountMeta(SYSTEM_PROGRAM, False, False),
        AccountMeta(payer, True, False),
    ]
    return [create_account(created), Instruction(LOADER_PROGRAM, struct.pack("<IQ", _DEPLOY, size), accounts)]


def upgrade(authority: Pubkey, program: Pubkey, buffer: Pubkey) -> Instruction:
    """Replace the code by a buffer's; what the buffer held in lamports goes to `authority`."""
    accounts = [
        AccountMeta(program_data_address(program), False, True),
        AccountMeta(program, False, True),
        AccountMeta(buffer, False, True),
        AccountMeta(authority, False, True),
        AccountMeta(RENT_SYSVAR, False, False),
        AccountMeta(CLOCK_SYSVAR, False, False),
        AccountMeta(authority, True, False),
    ]
    return Instruction(LOADER_PROGRAM, struct.pack("<I", _UPGRADE), accounts)


def extend(authority: Pubkey, program: Pubkey, more: int, *, checked: bool) -> Instruction:
    """Make room for `more` bytes of code. Newer clusters want the authority's signature: `checked`."""
    data_and_program = [AccountMeta(program_data_address(program), False, True), AccountMeta(program, False, True)]
    signer = [AccountMeta(authority, True, False)] if checked else []
    payer = [AccountMeta(SYSTEM_PROGRAM, False, False), AccountMeta(authority, True, True)]
    number = _EXTEND_CHECKED if checked else _EXTEND
    return Instruction(LOADER_PROGRAM, struct.pack("<II", number, more), [*data_and_program, *signer, *payer])


def give_up_authority(authority: Pubkey, program: Pubkey) -> Instruction:
    """Nobody can change the program any more, ever."""
    accounts = [AccountMeta(program_data_address(program), False, True), AccountMeta(authority, True, False)]
    return Instruction(LOADER_PROGRAM, struct.pack("<I", _SET_AUTHORITY), accounts)
