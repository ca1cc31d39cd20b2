"""Writes ledger/program/escrow.codama.json, the escrow program's IDL: `python scripts/escrow_idl.py`, or `--check`.

Accounts and arguments are read from layout.h, whose comments a test holds true; errors from errors.h and their texts
from `escrow_errors`. Clients in other languages are generated from it with Codama.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from escrow_accounts import ACCOUNTS, MORE

from cyxnode.ledger.escrow_errors import ERRORS

FOLDER = Path(__file__).resolve().parent.parent / "ledger" / "program"
IDL = FOLDER / "escrow.codama.json"
PLACEHOLDER = "CyxEscrow1111111111111111111111111111111111"
"""Every network deploys the program at an address of its own: clients pass theirs."""
PUBLIC_KEYS = {
    "admin",
    "mint",
    "treasury",
    "treasury_ata",
    "node",
    "payout",
    "payout_ata",
    "requester",
    "worker",
    "committee",
}
WELL_KNOWN = {
    "token_program": "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
    "system_program": "11111111111111111111111111111111",
    "slot_hashes": "SysvarS1otHashes111111111111111111111111111",
    "instructions_sysvar": "Sysvar1nstructions1111111111111111111111111",
}  # fmt: skip
STRUCTS = {
    "initialise": "InitialiseData", "register": "RegisterData", "open_job": "OpenJobData", "settle": "SettleData",
    "slash_equivocation": "SlashData",
}  # fmt: skip
Json = dict[str, Any]


def camel(name: str) -> str:
    """snake_case as JavaScript spells it."""
    head, *rest = name.lower().split("_")
    return head + "".join(word.capitalize() for word in rest)


def _number(form: str) -> Json:
    return {"kind": "numberTypeNode", "format": form, "endian": "le"}


def _bytes(size: int) -> Json:
    return {"kind": "fixedSizeTypeNode", "size": size, "type": {"kind": "bytesTypeNode"}}


def _type(form: str, name: str, count: int | None) -> Json:
    if name.startswith("pad"):
        return _bytes({"u8": 1, "u16": 2, "u32": 4}[form] * (count or 1))
    key = {"kind": "publicKeyTypeNode"} if name in PUBLIC_KEYS else _bytes(32)
    one = key if form == "Key" else _number(form)
    if count is None:
        return one
    return {"kind": "arrayTypeNode", "item": one, "count": {"kind": "fixedCountNode", "value": count}}


def fields(struct: str) -> list[tuple[str, Json, list[str]]]:
    """(name, type, docs) of a struct of layout.h."""
    header = (FOLDER / "layout.h").read_text()
    block = next(
        b for b, n in re.findall(r"typedef struct \{\n((?:(?!typedef).)*?)\} (\w+);", header, re.S) if n == struct
    )
    most = int(re.findall(r"#define COMMITTEE_MAX (\d+)", header)[0])
    found = []
    for form, names, comment in re.findall(r"/\*\s+\d+ \*/ (\w+) ([^;]+); *(?:/\* (.*?) \*/)?", block):
        for name, count in re.findall(r"(\w+)(?:\[(\w+)\])?", names):
            times = None if not count else most if count == "COMMITTEE_MAX" else int(count)
            found.append((name, _type(form, name, times), [comment] if comment else []))
    return found


def _fixed(kind: str, tag: int, version: int) -> dict[str, Json]:
    """Fields that a client does not choose."""
    numbers = {"tag": tag} | ({"version": version} if kind == "structFieldTypeNode" else {})
    return {name: {"kind": "numberValueNode", "number": number} for name, number in numbers.items()}


def _members(kind: str, struct: str, tag: int, version: int = 0) -> list[Json]:
    made = []
    for name, form, docs in fields(struct) if struct else [("tag", _number("u8"), [])]:
        entry: Json = {"kind": kind, "name": camel(name), "docs": docs, "type": form}
        value = _fixed(kind, tag, version).get(name)
        if name.startswith("pad"):
            value = {"kind": "bytesValueNode", "data": "00" * form["size"], "encoding": "base16"}
        made.append(entry | ({"defaultValue": value, "defaultValueStrategy": "omitted"} if value else {}))
    return made


def _discriminators() -> list[Json]:
    return [{"kind": "fieldDiscriminatorNode", "name": "tag", "offset": 0}]


def _account(name: str, tag: int, version: int, size: int) -> Json:
    data = {"kind": "structTypeNode", "fields": _members("structFieldTypeNode", name, tag, version)}
    return {
        "kind": "accountNode", "name": name.lower(), "size": size, "docs": [], "data": data,
        "pda": {"kind": "pdaLinkNode", "name": name.lower()}, "discriminators": _discriminators(),
    }  # fmt: skip


def _pda(name: str, about: str | None) -> Json:
    text = {"kind": "stringTypeNode", "encoding": "utf8"}
    seeds: list[Json] = [
        {"kind": "constantPdaSeedNode", "type": text, "value": {"kind": "stringValueNode", "string": name}}
    ]
    if about:
        form = {"kind": "publicKeyTypeNode"} if about == "key" else _bytes(32)
        seeds.append({"kind": "variablePdaSeedNode", "name": camel(about), "docs": [], "type": form})
    return {"kind": "pdaNode", "name": camel(name), "docs": [], "seeds": seeds}


def _instruction(name: str, tag: int) -> Json:
    accounts = []
    for entry in ACCOUNTS[name]:
        account, _, flags = entry.partition(" ")
        made: Json = {
            "kind": "instructionAccountNode", "name": camel(account), "isWritable": "w" in flags,
            "isSigner": "s" in flags, "isOptional": "?" in flags, "docs": [],
        }  # fmt: skip
        if account in WELL_KNOWN and "?" not in flags:
            made["defaultValue"] = {"kind": "publicKeyValueNode", "publicKey": WELL_KNOWN[account]}
        accounts.append(made)
    made = {
        "kind": "instructionNode", "name": camel(name), "docs": [], "optionalAccountStrategy": "omitted",
        "accounts": accounts, "arguments": _members("instructionArgumentNode", STRUCTS.get(name, ""), tag),
        "discriminators": _discriminators(),
    }  # fmt: skip
    if name in MORE:
        docs, writable = MORE[name]
        value = {"kind": "argumentValueNode", "name": "more"}
        made["remainingAccounts"] = [
            {"kind": "instructionRemainingAccountsNode", "isOptional": True, "isWritable": writable, "docs": [docs],
             "value": value}
        ]  # fmt: skip
    return made


def idl() -> Json:
    """The whole IDL, as Codama's root node."""
    header, errors = (FOLDER / "layout.h").read_text(), (FOLDER / "errors.h").read_text()
    numbers = {name: int(value, 0) for name, value in re.findall(r"\b([A-Z_]+) = (0x[0-9A-F]+|\d+)\b", header)}
    sizes = {name: int(size) for name, size in re.findall(r"\} (\w+); /\* (\d+)", header)}
    version = numbers["LAYOUT_VERSION"]
    program = {
        "kind": "programNode", "name": "cyxEscrow", "publicKey": PLACEHOLDER, "version": f"{version}.0.0", "docs": [],
        "accounts": [_account(n, numbers[f"{n.upper()}_TAG"], version, sizes[n]) for n in ("Config", "Node", "Job")],
        "instructions": [_instruction(name, numbers[name.upper()]) for name in ACCOUNTS],
        "definedTypes": [],
        "pdas": [_pda("config", None), _pda("stake_vault", None), _pda("node", "key"), _pda("job", "job"),
                 _pda("vault", "job")],
        "errors": [
            {"kind": "errorNode", "name": camel(name), "code": int(code), "message": ERRORS[int(code)], "docs": []}
            for name, code in re.findall(r"\bE_([A-Z_0-9]+) = (\d+)", errors)
        ],
    }  # fmt: skip
    return {"kind": "rootNode", "standard": "codama", "version": "1.9.0", "program": program, "additionalPrograms": []}


def text() -> str:
    """What the file holds."""
    return json.dumps(idl(), indent=1) + "\n"


def main(arguments: list[str]) -> int:
    """1 when `--check` finds the file out of step."""
    if "--check" in arguments:
        return int(not IDL.exists() or IDL.read_text() != text())
    IDL.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
