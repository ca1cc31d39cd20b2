"""Key files: owner-only, the format of Solana's tools, and a named error for each way in which one can be broken."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.identity import KeyPair, load_key, save_key, verify

KEY = KeyPair(bytes(range(32)))


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_saved_key_signs_as_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.json"
    save_key(path, KEY)
    loaded = load_key(path)
    assert (loaded.seed, loaded.node_id) == (KEY.seed, KEY.node_id)
    assert verify(KEY.node_id, b"message", loaded.sign(b"message"))


def test_only_the_owner_can_read_a_saved_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    save_key(path, KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_is_an_array_of_seed_and_public_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    save_key(path, KEY)
    assert json.loads(path.read_text()) == list(KEY.seed + KEY.node_id)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "key.json", "precious")
    with pytest.raises(LocalError, match="exists"):
        save_key(path, KEY)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o601, 0o666])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.json"
    save_key(path, KEY)
    path.chmod(mode)
    with pytest.raises(LocalError, match=f"mode {mode:04o}") as caught:
        load_key(path)
    assert caught.value.field == "key"
    assert caught.value.fix == f"chmod 600 {path}"


def test_a_missing_key_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="does not exist") as caught:
        load_key(tmp_path / "none.json")
    assert "cyxnode keygen" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a key file"),
        ("not json", "not a key file"),
        ("[1, 2", "not a key file"),
        ("[256]", "not a key file"),
        ("[-1]", "not a key file"),
        ('["a"]', "not a key file"),
        ("null", "not a key file"),
        ("[1.5]", "not a key file"),
        ("[1, 2, 3]", "holds 3 bytes, not 64"),
        ("[]", "holds 0 bytes, not 64"),
        (json.dumps(list(KEY.seed + bytes(32))), "seed and public key differ"),
    ],
)
def test_a_broken_key_file_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = write(tmp_path / "key.json", text)
    with pytest.raises(LocalError, match=why) as caught:
        load_key(path)
    assert caught.value.field == "key"


@pytest.mark.parametrize("text", ['{"a": 1}', "64", "10000000000", '"text"', "true"])
def test_json_that_is_no_array_is_no_key(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "key.json", text)
    with pytest.raises(LocalError):
        load_key(path)


def test_bytes_that_are_no_text_are_no_key(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(b"\xff\xfe\x00")
    path.chmod(0o600)
    with pytest.raises(LocalError, match="not a key file"):
        load_key(path)


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    folder = tmp_path / "key.json"
    folder.mkdir(mode=0o700)
    with pytest.raises(LocalError):
        load_key(folder)


def test_the_secret_never_prints() -> None:
    shown = repr(KEY) + str(KEY)
    assert KEY.seed.hex() not in shown
    assert repr(KEY.seed) not in shown


@pytest.mark.parametrize(
    ("signer", "signature"),
    [
        (KEY.node_id, bytes(64)),
        (KEY.node_id, b""),
        (KEY.node_id, bytes(63)),
        (bytes(32), KEY.sign(b"message")),
        (b"", KEY.sign(b"message")),
        (KEY.node_id[:31], KEY.sign(b"message")),
        (KeyPair(bytes(32)).node_id, KEY.sign(b"message")),
        (KEY.node_id, KEY.sign(b"massage")),
    ],
)
def test_verify_says_no_and_never_raises(signer: bytes, signature: bytes) -> None:
    assert verify(signer, b"message", signature) is False


def test_a_signature_has_one_form() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = KEY.sign(b"message")
    shifted = int.from_bytes(signature[32:], "little") + order
    assert not verify(KEY.node_id, b"message", signature[:32] + shifted.to_bytes(32, "little"))
