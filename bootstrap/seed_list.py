"""A list of bootstrap addresses that its publisher signs: it may travel by any way, and ends by itself.

The file is JSON: the list, its signer and the signature over SEEDS_DOMAIN and the list's canonical bytes. Whoever uses
it names the publisher's key; a list by another key, a changed or an expired one is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..p2p.addresses import parse_address
from ..protocol import codec
from ..protocol.errors import LocalError
from ..protocol.identity import KeyPair, verify
from ..protocol.limits import ADDRESS_MAX_CHARS, SEED_FILE_MAX_BYTES, SEEDS_MAX, UNIX_S_MAX
from ..protocol.units import base58, parse_id

SEEDS_DOMAIN = b"cyx/seeds/1"
_FRESH = "fetch the file again from its publisher"


class SeedList(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Addresses with their peer ids, and the Unix seconds from which and until which they hold."""

    kind: Literal["cyxnode bootstrap list 1"] = "cyxnode bootstrap list 1"
    addresses: Annotated[
        tuple[Annotated[str, Meta(max_length=ADDRESS_MAX_CHARS)], ...], Meta(min_length=1, max_length=SEEDS_MAX)
    ]
    signed_at_s: Annotated[int, Meta(ge=0, le=UNIX_S_MAX)]
    expires_at_s: Annotated[int, Meta(ge=0, le=UNIX_S_MAX)]


class _SeedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    list: SeedList
    signer: str
    signature: str


def sign_seed_list(key: KeyPair, addresses: Sequence[str], now_s: int, lifetime_s: int) -> bytes:
    """The file's bytes; LocalError names an address that is none."""
    seeds = SeedList(addresses=_checked(addresses), signed_at_s=now_s, expires_at_s=now_s + lifetime_s)
    signature = key.sign(_signed_bytes(seeds))
    file = _SeedFile(list=seeds, signer=base58(key.node_id), signature=signature.hex())
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def open_seed_list(raw: bytes, publisher: bytes, now_s: int) -> SeedList:
    """The list, if `publisher` (32 bytes) signed it and it still holds; LocalError (field 'seeds') otherwise."""
    if len(raw) > SEED_FILE_MAX_BYTES:
        raise LocalError(f"is larger than {SEED_FILE_MAX_BYTES} bytes", field="seeds", fix=_FRESH)
    try:
        file = msgspec.json.decode(raw, type=_SeedFile)
        signature = bytes.fromhex(file.signature)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise LocalError(f"is not a bootstrap list: {error}"[:200], field="seeds", fix=_FRESH) from None
    if file.signer != base58(publisher):
        fix = f"check --seeds-key, or {_FRESH}"
        raise LocalError(f"is signed by {file.signer[:64]!r}, not by {base58(publisher)}", field="seeds", fix=fix)
    if not verify(publisher, _signed_bytes(file.list), signature):
        raise LocalError("was changed after it was signed", field="seeds", fix=_FRESH)
    if now_s >= file.list.expires_at_s:
        days = (now_s - file.list.expires_at_s) // 86_400
        raise LocalError(f"expired {days} days ago", field="seeds", fix=f"{_FRESH}, or leave --seeds out")
    _checked(file.list.addresses)
    return file.list


def read_seed_list(path: Path, publisher: str, now_s: int) -> SeedList:
    """The list in a file, signed by `publisher` (base58)."""
    key = parse_id(publisher, field="seeds_key")
    try:
        with path.open("rb") as file:
            raw = file.read(SEED_FILE_MAX_BYTES + 1)
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="seeds", fix="give the path of a bootstrap list") from None
    return open_seed_list(raw, key, now_s)


def write_seed_list(path: Path, raw: bytes) -> None:
    """Put a list in place at once: a reader sees the old file or the new one, never a part."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(raw)
        os.replace(part, path)
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="out", fix="choose a writable path") from None


def _signed_bytes(seeds: SeedList) -> bytes:
    return SEEDS_DOMAIN + codec.encode(seeds)


def _checked(addresses: Sequence[str]) -> tuple[str, ...]:
    if not 0 < len(addresses) <= SEEDS_MAX:
        fix = f"name 1 to {SEEDS_MAX} addresses"
        raise LocalError(f"{len(addresses)} addresses cannot be a list", field="addresses", fix=fix)
    for address in addresses:
        parse_address(address)
    return tuple(addresses)
