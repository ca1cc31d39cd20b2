"""The linker: names of system calls, the shape of the ELF, and every instruction that Solana reads differently."""

from __future__ import annotations

import struct

import pytest

from cyxnode.ledger.program.build import PROGRAM
from cyxnode.ledger.program.sbpf_link import OPCODES, SYSCALLS, LinkError, link, lint, murmur3


def _instruction(opcode: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, registers, offset, immediate)


EXIT = _instruction(0x95)


def _object(code: bytes, *, writable: bool = False, undefined: str = "", machine: int = 247, flags: int = 6) -> bytes:
    """A relocatable ELF with `entrypoint` at the start of its code, and maybe a relocated call at its start."""
    names = b"\0.text\0.symtab\0.strtab\0.rel.text\0.data\0"
    strings = b"\0entrypoint\0" + undefined.encode() + b"\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x12, 0, 1, 0, 0) + struct.pack("<IBBHQQ", 12, 0x10, 0, 0, 0, 0)
    relocation = struct.pack("<QQ", 0, (2 << 32) | 10) if undefined else b""
    body, sections = b"", [bytes(64)]
    parts = [
        (1, 1, flags, code, 0, 0, 0), (7, 2, 0, symbols, 3, 1, 24), (15, 3, 0, strings, 0, 0, 0),
        (23, 9, 0, relocation, 2, 1, 16), (33, 1, 3 if writable else 0, bytes(8), 0, 0, 0), (0, 3, 0, names, 0, 0, 0),
    ]  # fmt: skip
    for name, kind, section_flags, data, related, info, entry in parts:
        place = 64 + len(body)
        sections.append(
            struct.pack("<IIQQQQIIQQ", name, kind, section_flags, 0, place, len(data), related, info, 8, entry)
        )
        body += data
    header = struct.pack(
        "<4sBBBBB7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 1, machine, 1, 0, 0, 64 + len(body), 0, 64, 0, 0, 64,
        len(sections), len(sections) - 1,
    )  # fmt: skip
    return header + body + b"".join(sections)


@pytest.mark.parametrize(
    ("name", "hash_"),
    [
        (b"abort", 0xB6FC1A11),
        (b"sol_log_", 0x207559BD),
        (b"", 0),
        (b"test", 0xBA6BD213),
        (b"Hello, world!", 0xC0363E43),
    ],
)
def test_murmur3(name: bytes, hash_: int) -> None:
    assert murmur3(name) == hash_


def test_system_calls_have_distinct_names() -> None:
    assert len({murmur3(name.encode()) for name in SYSCALLS}) == len(SYSCALLS)


def test_a_program_is_two_headers_and_code() -> None:
    elf = link(_object(EXIT))
    assert elf[:4] == b"\x7fELF"
    entry, phoff, shoff, version = struct.unpack_from("<QQQI", elf, 24)
    assert (entry, phoff, shoff, version) == (1 << 32, 64, 0, 3)
    kind, flags, offset, address, _, size, memory, _ = struct.unpack_from("<IIQQQQQQ", elf, 64)
    assert (kind, flags, offset, address, size, memory) == (1, 1, 120, 1 << 32, 8, 8)
    assert elf[120:] == EXIT


def test_a_system_call_becomes_its_hash() -> None:
    elf = link(_object(_instruction(0x85, 0x10, 0, -1) + EXIT, undefined="sol_sha256"))
    assert elf[120:128] == struct.pack("<BBhI", 0x85, 0, 0, murmur3(b"sol_sha256"))


def test_the_committed_program_keeps_to_the_rules() -> None:
    elf = PROGRAM.read_bytes()
    *_, data_size, _, _ = struct.unpack_from("<IIQQQQQQ", elf, 64)
    lint(elf[64 + 2 * 56 + data_size :])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (_instruction(0xBC), "opcode 0xbc"),  # 32-bit move
        (_instruction(0x04), "opcode 0x04"),  # 32-bit add
        (_instruction(0x16), "opcode 0x16"),  # 32-bit jump
        (_instruction(0xDB), "opcode 0xdb"),  # atomic
        (_instruction(0x00), "opcode 0x00"),
        (_instruction(0x3F, 0x21, 1), "signed division"),
        (_instruction(0xBF, 0x21, 8), "sign-extending move"),
        (_instruction(0x07, 0x0A, 0, 8), "frame register"),
        (_instruction(0x79, 0x1A), "frame register"),
        (_instruction(0x8D, 0x0A), "calls through register 10"),
        (_instruction(0x85, 0, 0, 12345), "unknown system call"),
    ],
)
def test_lint_refuses(code: bytes, words: str) -> None:
    lint(EXIT)
    with pytest.raises(LinkError, match=words):
        lint(EXIT + code)


def test_lint_skips_the_second_half_of_a_wide_load() -> None:
    lint(_instruction(0x18, 1) + _instruction(0xDB) + EXIT)


def test_32_bit_arithmetic_is_not_listed() -> None:
    assert not {opcode for opcode in OPCODES if opcode & 7 in (4, 6)} - {0xD4, 0xDC}


@pytest.mark.parametrize(
    ("relocatable", "words"),
    [
        (_object(EXIT, machine=62), "not a relocatable BPF object"),
        (_object(EXIT, writable=True), "no variables"),
        (_object(_instruction(0x85, 0x10, 0, -1), undefined="printf"), "'printf' is neither defined"),
        (_object(EXIT, undefined="sol_sha256"), "call relocation on opcode"),
        (_object(EXIT, flags=0), "no symbol 'entrypoint'"),
    ],
)
def test_link_refuses(relocatable: bytes, words: str) -> None:
    with pytest.raises(LinkError, match=words):
        link(relocatable)
