"""Deploying a program through the upgradeable loader's own instructions, as any cluster demands.

A buffer is created and written in chunks, then the loader verifies and installs it. The program can be called from
the next slot on.
"""

from __future__ import annotations

import struct
from itertools import count

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account

from ..protocol.limits import DEPLOY_CHUNK_BYTES
from .addresses import CLOCK_SYSVAR, LOADER_PROGRAM, RENT_SYSVAR
from .escrow_layout import SYSTEM_PROGRAM
from .rpc import Rpc
from .sender import send_and_confirm

BUFFER_HEADER_BYTES = 37
PROGRAM_BYTES = 36
_INITIALIZE_BUFFER, _WRITE, _DEPLOY = 0, 1, 2


async def deploy_program(rpc: Rpc, payer: Keypair, program: Keypair, buffer: Keypair, elf: bytes) -> int:
    """Deploy `elf` at `program`'s address with `payer` as upgrade authority; returns the number of transactions.

    A buffer that an interrupted deployment left behind is written again. Raises what `send_and_confirm` raises.
    """
    sent = 0
    if await rpc.get_account(bytes(buffer.pubkey())) is None:
        await send_and_confirm(rpc, await _create_buffer(rpc, payer, buffer, len(elf)), [payer, buffer])
        sent += 1
    for number in count():
        offset = number * DEPLOY_CHUNK_BYTES
        if offset >= len(elf):
            break
        chunk = elf[offset : offset + DEPLOY_CHUNK_BYTES]
        await send_and_confirm(rpc, [_write(buffer.pubkey(), payer.pubkey(), offset, chunk)], [payer])
        sent += 1
    await send_and_confirm(rpc, await _install(rpc, payer, program, buffer, len(elf)), [payer, program])
    return sent + 1


async def _create_buffer(rpc: Rpc, payer: Keypair, buffer: Keypair, size: int) -> list[Instruction]:
    space = BUFFER_HEADER_BYTES + size
    created = CreateAccountParams(
        from_pubkey=payer.pubkey(),
        to_pubkey=buffer.pubkey(),
        lamports=await rpc.rent(space),
        space=space,
        owner=LOADER_PROGRAM,
    )
    accounts = [AccountMeta(buffer.pubkey(), False, True), AccountMeta(payer.pubkey(), False, False)]
    return [create_account(created), Instruction(LOADER_PROGRAM, struct.pack("<I", _INITIALIZE_BUFFER), accounts)]


def _write(buffer: Pubkey, authority: Pubkey, offset: int, chunk: bytes) -> Instruction:
    data = struct.pack("<IIQ", _WRITE, offset, len(chunk)) + chunk
    return Instruction(LOADER_PROGRAM, data, [AccountMeta(buffer, False, True), AccountMeta(authority, True, False)])


async def _install(rpc: Rpc, payer: Keypair, program: Keypair, buffer: Keypair, size: int) -> list[Instruction]:
    created = CreateAccountParams(
        from_pubkey=payer.pubkey(),
        to_pubkey=program.pubkey(),
        lamports=await rpc.rent(PROGRAM_BYTES),
        space=PROGRAM_BYTES,
        owner=LOADER_PROGRAM,
    )
    data_address = Pubkey.find_program_address([bytes(program.pubkey())], LOADER_PROGRAM)[0]
    accounts = [
        AccountMeta(payer.pubkey(), True, True),
        AccountMeta(data_address, False, True),
        AccountMeta(program.pubkey(), False, True),
        AccountMeta(buffer.pubkey(), False, True),
        AccountMeta(RENT_SYSVAR, False, False),
        AccountMeta(CLOCK_SYSVAR, False, False),
        AccountMeta(SYSTEM_PROGRAM, False, False),
        AccountMeta(payer.pubkey(), True, False),
    ]
    return [create_account(created), Instruction(LOADER_PROGRAM, struct.pack("<IQ", _DEPLOY, size), accounts)]
