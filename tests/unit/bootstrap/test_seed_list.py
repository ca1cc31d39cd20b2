"""Signed lists of bootstrap addresses: whose, unchanged, not expired; every bit of the file counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cyxnode.bootstrap.seed_list import open_seed_list, read_seed_list, sign_seed_list, write_seed_list
from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.errors import CyxError, LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import SEED_FILE_MAX_BYTES, SEEDS_MAX
from cyxnode.protocol.units import base58

PUBLISHER, OTHER = KeyPair(b"\1" * 32), KeyPair(b"\2" * 32)
ADDRESSES = tuple(f"/ip4/192.0.2.1/tcp/{port}/p2p/{peer_id_text(OTHER.node_id)}" for port in (4001, 4002))
NOW_S, DAY_S = 1_800_000_000, 86_400


@pytest.fixture
def raw() -> bytes:
    return sign_seed_list(PUBLISHER, ADDRESSES, NOW_S, DAY_S)


def refused(raw: bytes, text: str, *, now_s: int = NOW_S, publisher: KeyPair = PUBLISHER) -> None:
    with pytest.raises(LocalError, match=text) as error:
        open_seed_list(raw, publisher.node_id, now_s)
    assert error.value.field == "seeds" and error.value.fix


def test_a_list_is_what_was_signed(raw: bytes) -> None:
    opened = open_seed_list(raw, PUBLISHER.node_id, NOW_S + DAY_S - 1)
    assert opened.addresses == ADDRESSES and opened.expires_at_s == NOW_S + DAY_S


def test_a_list_of_another_key_is_refused(raw: bytes) -> None:
    refused(raw, "not by", publisher=OTHER)
    forged = raw.replace(base58(PUBLISHER.node_id).encode(), base58(OTHER.node_id).encode())
    refused(forged, "was changed", publisher=OTHER)


def test_a_list_ends(raw: bytes) -> None:
    refused(raw, "expired 2 days ago", now_s=NOW_S + 3 * DAY_S)


def test_no_byte_of_a_list_can_be_changed(raw: bytes) -> None:
    meaning = json.loads(raw)
    for place in range(len(raw)):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        try:
            opened = open_seed_list(changed, PUBLISHER.node_id, NOW_S)
        except CyxError:
            continue
        assert opened.addresses == ADDRESSES and place, meaning


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[]", b"{}", b"[" * 10_000, b'{"list": {}, "signer": 1}'])
def test_what_is_no_list_is_named_so(raw: bytes) -> None:
    refused(raw, "is not a bootstrap list")


def test_a_huge_file_is_not_read(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    path.write_bytes(raw + b" " * SEED_FILE_MAX_BYTES)
    with pytest.raises(LocalError, match="is larger"):
        read_seed_list(path, base58(PUBLISHER.node_id), NOW_S)


def test_what_is_no_address_is_not_signed() -> None:
    with pytest.raises(LocalError, match="port between"):
        sign_seed_list(PUBLISHER, [ADDRESSES[0].replace("4001", "0")], NOW_S, DAY_S)
    for addresses in ([], list(ADDRESSES) * SEEDS_MAX):
        with pytest.raises(LocalError, match="addresses: "):
            sign_seed_list(PUBLISHER, addresses, NOW_S, DAY_S)


def test_a_file_is_replaced_at_once(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "seeds.json"
    path.write_text("old")
    write_seed_list(path, raw)
    assert read_seed_list(path, base58(PUBLISHER.node_id), NOW_S).addresses == ADDRESSES
    assert [one.name for one in tmp_path.iterdir()] == ["seeds.json"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"seeds: .*none\.json"):
        read_seed_list(tmp_path / "none.json", base58(PUBLISHER.node_id), NOW_S)
    with pytest.raises(LocalError, match="seeds_key"):
        read_seed_list(tmp_path / "none.json", "x", NOW_S)
