"""One ed25519 key is the libp2p identity, the Solana address and the signing key (DESIGN 2).

The key file has the format of Solana's tools: a JSON array of 64 integers, the 32-byte seed followed by the public
key. It must be readable by its owner alone (mode 0600); anything else is refused, because whoever reads it can spend.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from .errors import LocalError
from .units import NodeId, base58


class KeyPair:
    """A signing key. Its secret is never printed; `seed` hands it to an adapter that must sign by itself."""

    __slots__ = ("_key", "node_id")

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self.node_id = NodeId(bytes(self._key.verify_key))

    @classmethod
    def generate(cls) -> KeyPair:
        """A new key from the operating system's random source."""
        return cls(os.urandom(32))

    def __repr__(self) -> str:
        return f"KeyPair({base58(self.node_id)})"

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for libp2p and Solana adapters only."""
        return bytes(self._key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte ed25519 signature of `message`."""
        return bytes(self._key.sign(message).signature)


def verify(signer: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is `signer`'s (32 bytes) over `message`. Never raises on hostile input."""
    try:
        VerifyKey(signer).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError):
        return False
    return True


def save_key(path: Path, key: KeyPair) -> None:
    """Write a new key file with mode 0600; refuses to replace one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise LocalError(f"{path} exists", field="key", fix="choose another path, or move the old key away") from None
    with os.fdopen(descriptor, "w") as file:
        json.dump(list(key.seed + key.node_id), file)


def load_key(path: Path) -> KeyPair:
    """Read a key file; LocalError when it is missing, readable by others, or not a key."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise LocalError(f"{path} has mode {mode:04o}, others may read it", field="key", fix=f"chmod 600 {path}")
        values = json.loads(path.read_text())
        if not isinstance(values, list):
            raise TypeError("a key file holds an array")
        raw = bytes(values)
    except FileNotFoundError:
        raise LocalError(f"{path} does not exist", field="key", fix=f"cyxnode keygen --key {path}") from None
    except OSError as e:
        raise LocalError(f"{path}: {e.strerror}", field="key", fix="name a key file that belongs to you") from None
    except (ValueError, TypeError, OverflowError):
        raise LocalError(
            f"{path} is not a key file", field="key", fix="restore it from a backup, or make a new key"
        ) from None
    if len(raw) != 64:
        raise LocalError(f"{path} holds {len(raw)} bytes, not 64", field="key", fix="restore it from a backup")
    key = KeyPair(raw[:32])
    if key.node_id != raw[32:]:
        raise LocalError(f"{path}: seed and public key differ", field="key", fix="restore it from a backup")
    return key
