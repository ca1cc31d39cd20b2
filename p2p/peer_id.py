"""A peer id is a node id with a prefix: libp2p inlines a 32-byte ed25519 key into an identity multihash.

Pure bytes and text, without libp2p: the CLI and the in-memory network name peers too.
"""

from __future__ import annotations

from ..protocol.errors import LocalError
from ..protocol.units import NodeId, base58

_PREFIX = bytes.fromhex("002408011220")
"""Identity multihash (0x00) of 36 bytes (0x24): protobuf key type ed25519 (08 01) and 32 key bytes (12 20)."""
_TEXT_CHARS = 52
_ALPHABET = {char: digit for digit, char in enumerate("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")}


def peer_id_bytes(node: NodeId) -> bytes:
    """The 38 binary bytes of a node's peer id."""
    return _PREFIX + node


def peer_id_text(node: NodeId) -> str:
    """The usual text of a node's peer id: base58, '12D3KooW…'."""
    return base58(peer_id_bytes(node))


def node_of_bytes(raw: bytes) -> NodeId | None:
    """The node that a binary peer id names; None when it holds no ed25519 key."""
    if len(raw) != len(_PREFIX) + 32 or not raw.startswith(_PREFIX):
        return None
    return NodeId(raw[len(_PREFIX) :])


def node_of_text(text: str) -> NodeId:
    """The node that '12D3KooW…' names; LocalError when it is not the peer id of an ed25519 key."""
    number = 0
    if len(text) != _TEXT_CHARS or any(char not in _ALPHABET for char in text):
        raise _not_a_peer_id(text)
    for char in text:
        number = number * 58 + _ALPHABET[char]
    try:
        node = node_of_bytes(number.to_bytes(len(_PREFIX) + 32, "big"))
    except OverflowError:
        node = None
    if node is None or peer_id_text(node) != text:
        raise _not_a_peer_id(text)
    return node


def _not_a_peer_id(text: str) -> LocalError:
    return LocalError(
        f"{text[:64]!r} is not an ed25519 peer id", field="address", fix="copy the address again, to its end"
    )
