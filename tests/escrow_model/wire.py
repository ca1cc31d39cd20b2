"""Between the model's values and what the cluster takes and keeps: instructions, accounts, and words for a failure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from chain_world import PROGRAM
from cyxnode.ledger import escrow_layout as layout
from cyxnode.ledger.instruction_parts import create_associated
from cyxnode.ledger.precompile import Statement, ed25519
from svm_world import key, node_id

from .cast import (
    KEYS,
    NODES,
    REQUESTERS,
    SUBMITTERS,
    TAGS,
    TREASURY,
)
from .ledger import (
    SYSTEM,
    TOKEN,
    TOKEN_BYTES,
    Body,
    Call,
    CloseToken,
    CreateToken,
    Donate,
    Mint,
    Noise,
    Other,
    Signed,
    Statements,
    Step,
    Token,
    Transfer,
    associated,
    derived,
)

PAYER = key("payer")
MINT, OTHER_MINT = bytes(key("mint").pubkey()), bytes(key("other mint").pubkey())


def token_bytes(token: Token) -> bytes:
    head = token.mint + token.owner + struct.pack("<Q", token.amount)
    return head + bytes(36) + bytes([token.state]) + bytes(56)


@lru_cache(maxsize=50_000)
def signature(signer: bytes, message: bytes) -> bytes:
    return bytes(KEYS[signer].sign_message(message))


def _statement(entry: Signed) -> Statement:
    made = signature(entry.signer, entry.message)
    return Statement(entry.signer, made if entry.valid else bytes([made[0] ^ 1]) + made[1:], entry.message)


def _precompile(said: Statements, index: int) -> Instruction:
    made = ed25519([_statement(entry) for entry in said.entries])
    data = bytearray(made.data)
    for i, entry in enumerate(said.entries):
        if not entry.within:
            struct.pack_into("<H", data, 2 + 14 * i + 12, index - 1)  # the message lies in an honest copy before it
    return Instruction(made.program_id, bytes(data), [])


def instruction_of(step: Step, index: int) -> Instruction:
    """What the cluster gets for the step of the model at `index` of its transaction."""
    match step:
        case Call():
            metas = [AccountMeta(Pubkey(m.address), m.signer, m.writable) for m in step.metas]
            return Instruction(PROGRAM, step.data, metas)
        case Statements():
            return _precompile(step, index)
        case Transfer(source, to, lamports):
            return transfer(TransferParams(from_pubkey=Pubkey(source), to_pubkey=Pubkey(to), lamports=lamports))
        case Donate(source, to, amount):
            accounts = [(associated(source, MINT), False, True), (to, False, True), (source, True, False)]
            return _token_instruction(b"\x03" + struct.pack("<Q", amount), accounts)
        case CloseToken(wallet):
            accounts = [(associated(wallet, MINT), False, True), (wallet, False, True), (wallet, True, False)]
            return _token_instruction(b"\x09", accounts)
        case CreateToken(wallet):
            return create_associated(PAYER.pubkey(), Pubkey(wallet), Pubkey(MINT))
        case Noise():
            me = PAYER.pubkey()
            return transfer(TransferParams(from_pubkey=me, to_pubkey=me, lamports=0))


def _token_instruction(data: bytes, accounts: Iterable[tuple[bytes, bool, bool]]) -> Instruction:
    return Instruction(layout.TOKEN_PROGRAM, data, [AccountMeta(Pubkey(a), s, w) for a, s, w in accounts])


def decode(owner: bytes, data: bytes) -> Body | None:
    if owner == bytes(PROGRAM):
        return {0xC1: layout.decode_config, 0xC2: layout.decode_node, 0xC3: layout.decode_job}[data[0]](data)
    if owner == TOKEN and len(data) == TOKEN_BYTES:
        return Token(data[:32], data[32:64], int.from_bytes(data[64:72], "little"), data[108])
    if owner == TOKEN:
        return Mint(data[44])
    return Other() if data else None


def describe(steps: Sequence[Step]) -> str:
    """Short enough to read in a failure."""
    names = {bytes(k): v for k, v in _NAMES.items()}

    def name(address: bytes) -> str:
        return names.get(address, address.hex()[:8])

    lines = []
    for step in steps:
        if isinstance(step, Call):
            metas = " ".join(f"{name(m.address)}{'s' * m.signer}{'w' * m.writable}" for m in step.metas)
            tag = TAGS[step.data[0]] if step.data and step.data[0] < len(TAGS) else "?"
            lines.append(f"{tag} {step.data.hex()} [{metas}]")
        else:
            lines.append(f"{step}")
    return "\n  ".join(["", *lines])


_NAMES = {
    SYSTEM: "system", TOKEN: "token", MINT: "mint", TREASURY: "treasury",
    derived("config", bytes(PROGRAM)): "config", derived("stake_vault", bytes(PROGRAM)): "stake_vault",
    **{wallet: name for name in (*REQUESTERS, *SUBMITTERS, *NODES) for wallet in [node_id(key(name))]},
}  # fmt: skip
