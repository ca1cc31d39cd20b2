"""Link one `clang -target bpf` object into a Solana program: a static ELF of sBPF version 3.

Such a program has no sections and no dynamic table, only two segments: read-only data at address 0 and code at
2^32. A system call is `call` with source 0 and the murmur3 hash of the name; a call within the program keeps clang's
relative form with source 1. The loader checks neither the hashes nor what an opcode means to another BPF, so this
linker refuses unknown names, writable data, and every instruction that sBPF lacks or reads differently.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

CODE_ADDRESS = 1 << 32
ELF_HEADER_BYTES, SEGMENT_HEADER_BYTES = 64, 56
MACHINE_BPF, SBPF_VERSION = 247, 3
WRITE, ALLOC, EXECUTE = 1, 2, 4
OP_LDDW, OP_CALL, OP_CALL_REGISTER, OP_EXIT = 0x18, 0x85, 0x8D, 0x95
FRAME_REGISTER = 10

SYSCALLS = frozenset(
    {
        *("abort", "sol_panic_", "sol_log_", "sol_log_64_", "sol_log_compute_units_", "sol_log_pubkey", "sol_log_data"),
        *("sol_sha256", "sol_keccak256", "sol_create_program_address", "sol_try_find_program_address"),
        *("sol_get_clock_sysvar", "sol_get_rent_sysvar", "sol_get_sysvar", "sol_invoke_signed_c"),
        *("sol_memcpy_", "sol_memmove_", "sol_memcmp_", "sol_memset_", "sol_set_return_data", "sol_get_return_data"),
        *("sol_get_stack_height", "sol_remaining_compute_units"),
    }
)

_ALU64 = {op | source for op in range(0x07, 0xD0, 0x10) for source in (0, 8)} - {0x8F}
_JUMPS = {op | source for op in (*range(0x15, 0x80, 0x10), 0xA5, 0xB5, 0xC5, 0xD5) for source in (0, 8)} | {0x05}
_MEMORY = {0x61, 0x69, 0x71, 0x79, 0x62, 0x6A, 0x72, 0x7A, 0x63, 0x6B, 0x73, 0x7B}
_SWAPS = {0xD4, 0xDC}
_LOADS = {0x61, 0x69, 0x71, 0x79, OP_LDDW}
OPCODES = frozenset((_ALU64 | _JUMPS | _MEMORY | _SWAPS | {OP_LDDW, OP_EXIT}) - {OP_CALL, OP_CALL_REGISTER})
"""What a program of ours may contain, calls aside. 32-bit arithmetic sign-extends on Solana and is left out."""


class Relocation(IntEnum):
    """Kinds that clang emits: an address in a wide load, one in read-only data, and the target of a call."""

    WIDE_LOAD = 1
    POINTER = 2
    CALL = 10


class LinkError(Exception):
    """The object cannot become a Solana program; the message says why."""


def murmur3(data: bytes) -> int:
    """MurmurHash3 (x86, 32 bit, seed 0), by which a system call is named."""
    mask, state = 0xFFFFFFFF, 0
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        state ^= _murmur3_block(data[at : at + 4])
        state = ((state << 13 | state >> 19) * 5 + 0xE6546B64) & mask
    if data[whole:]:
        state ^= _murmur3_block(data[whole:])
    state ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ state >> shift) * factor & mask
    return state ^ state >> 16


def _murmur3_block(block: bytes) -> int:
    value = int.from_bytes(block, "little") * 0xCC9E2D51 & 0xFFFFFFFF
    return ((value << 15 | value >> 17) & 0xFFFFFFFF) * 0x1B873593 & 0xFFFFFFFF


@dataclass(slots=True)
class Image:
    """Code and read-only data so far, and where each input section went: index -> (is code, offset)."""

    code: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    placed: dict[int, tuple[bool, int]] = field(default_factory=dict)

    def address(self, section: int, offset: int) -> int:
        """Address at run time."""
        is_code, start = self.placed[section]
        return (CODE_ADDRESS if is_code else 0) + start + offset


def _place(elf: ELFFile) -> Image:
    """Gather the sections that are loaded; data sections are aligned, and padded to 8 bytes at the end."""
    image = Image()
    for index, section in enumerate(elf.iter_sections()):
        flags, name = section["sh_flags"], section.name
        if not flags & ALLOC or not section["sh_size"] or name.startswith((".eh_frame", ".BTF")):
            continue
        if flags & WRITE:
            raise LinkError(f"section {name} is writable: a Solana program has no variables")
        into = image.code if flags & EXECUTE else image.data
        into += bytes(-len(into) % max(section["sh_addralign"], 1))
        image.placed[index] = (bool(flags & EXECUTE), len(into))
        into += section.data()
    image.data += bytes(-len(image.data) % 8)
    return image


def _relocate(elf: ELFFile, image: Image) -> None:
    symbols: Any = elf.get_section_by_name(".symtab")
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection) or section["sh_info"] not in image.placed:
            continue
        is_code, start = image.placed[section["sh_info"]]
        for entry in section.iter_relocations():
            symbol, at = symbols.get_symbol(entry["r_info_sym"]), start + entry["r_offset"]
            match entry["r_info_type"]:
                case Relocation.CALL if is_code:
                    _relocate_call(image, at, symbol)
                case Relocation.WIDE_LOAD if is_code:
                    low, high = (struct.unpack_from("<I", image.code, at + 4 + half)[0] for half in (0, 8))
                    target = _target(image, symbol, low | high << 32)
                    struct.pack_into("<I", image.code, at + 4, target & 0xFFFFFFFF)
                    struct.pack_into("<I", image.code, at + 12, target >> 32)
                    image.code[at + 1] &= 0x0F
                case Relocation.POINTER if not is_code:
                    (addend,) = struct.unpack_from("<Q", image.data, at)
                    struct.pack_into("<Q", image.data, at, _target(image, symbol, addend))
                case kind:
                    raise LinkError(f"relocation type {kind} in {section.name} is not supported")


def _target(image: Image, symbol: Any, addend: int) -> int:
    if symbol["st_shndx"] not in image.placed:
        raise LinkError(f"symbol {symbol.name!r} is not defined in code or read-only data")
    return image.address(symbol["st_shndx"], symbol["st_value"] + addend)


def _relocate_call(image: Image, at: int, symbol: Any) -> None:
    if image.code[at] != OP_CALL:
        raise LinkError(f"call relocation on opcode {image.code[at]:#04x}")
    if symbol["st_shndx"] == "SHN_UNDEF":
        if symbol.name not in SYSCALLS:
            raise LinkError(f"{symbol.name!r} is neither defined nor a known system call")
        image.code[at + 1] = 0x00
        struct.pack_into("<I", image.code, at + 4, murmur3(symbol.name.encode()))
        return
    (addend,) = struct.unpack_from("<i", image.code, at + 4)
    target = _target(image, symbol, (addend + 1) * 8) - CODE_ADDRESS
    if not 0 <= target < len(image.code):
        raise LinkError(f"call of {symbol.name!r} leaves the code")
    image.code[at + 1] = 0x10
    struct.pack_into("<i", image.code, at + 4, (target - at) // 8 - 1)


def lint(code: bytes) -> None:
    """Refuse what sBPF version 3 lacks or understands differently; `code` is relocated."""
    hashes = {murmur3(name.encode()) for name in SYSCALLS}
    at = 0
    while at < len(code):
        opcode, registers, offset, immediate = struct.unpack_from("<BBhi", code, at)
        where = f"instruction {at // 8}"
        if opcode == OP_CALL:
            if registers >> 4 == 0 and immediate & 0xFFFFFFFF not in hashes:
                raise LinkError(f"{where}: unknown system call {immediate & 0xFFFFFFFF:#010x}")
        elif opcode == OP_CALL_REGISTER:
            if registers & 15 >= FRAME_REGISTER:
                raise LinkError(f"{where}: calls through register {registers & 15}")
        elif opcode not in OPCODES:
            raise LinkError(f"{where}: opcode {opcode:#04x} does not exist in sBPF v3 (compile with -mcpu=v2)")
        if opcode in _ALU64 and offset:
            raise LinkError(f"{where}: signed division or sign-extending move")
        if opcode in _ALU64 | _SWAPS | _LOADS and registers & 15 == FRAME_REGISTER:
            raise LinkError(f"{where}: writes the frame register")
        at += 16 if opcode == OP_LDDW else 8


def _segment(flags: int, offset: int, address: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", 1, flags, offset, address, address, size, size, 8)


def link(relocatable: bytes, entry: str = "entrypoint") -> bytes:
    """The program's ELF. `relocatable` is one BPF object; LinkError says what is wrong with it."""
    elf = ELFFile(io.BytesIO(relocatable))
    if elf["e_type"] != "ET_REL" or elf["e_machine"] not in ("EM_BPF", MACHINE_BPF):
        raise LinkError("not a relocatable BPF object")
    image = _place(elf)
    _relocate(elf, image)
    lint(bytes(image.code))
    symbols: Any = elf.get_section_by_name(".symtab")
    found = [s for s in symbols.get_symbol_by_name(entry) or [] if s["st_shndx"] in image.placed]
    if not found:
        raise LinkError(f"no symbol {entry!r}")
    start = image.address(found[0]["st_shndx"], found[0]["st_value"])
    segments = 2 if image.data else 1
    data_at = ELF_HEADER_BYTES + SEGMENT_HEADER_BYTES * segments
    header = struct.pack(
        "<4sBBBBB7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 3, MACHINE_BPF, 1, start, ELF_HEADER_BYTES, 0,
        SBPF_VERSION, ELF_HEADER_BYTES, SEGMENT_HEADER_BYTES, segments, 64, 0, 0,
    )  # fmt: skip
    if image.data:
        header += _segment(4, data_at, 0, len(image.data))
    header += _segment(1, data_at + len(image.data), CODE_ADDRESS, len(image.code))
    return header + bytes(image.data) + bytes(image.code)
