"""The signed wrapper of every message (DESIGN 2).

The signature covers the network's genesis hash and the kind, so nothing replays on another network or as another
kind. It is checked last, after all that is cheap, over the bytes that were received.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Generic, Protocol, TypeVar

import msgspec
from msgspec import Meta

from . import codec
from .errors import RemoteError
from .hashing import envelope_message
from .identity import KeyPair, verify
from .limits import RESPONSE_MAX_BYTES, SIGNATURE_BYTES
from .messages import KINDS, kind_of
from .spec import Bytes32
from .units import NodeId

M = TypeVar("M", bound=msgspec.Struct)
M_co = TypeVar("M_co", bound=msgspec.Struct, covariant=True)

OVERHEAD_BYTES = 256
"""More than an envelope adds to its body."""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What travels: `body` is the canonical encoding of a message of `kind`."""

    version: Annotated[int, Meta(ge=1, le=1)]
    kind: Annotated[str, Meta(max_length=32)]
    sender: Bytes32
    body: bytes
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


@dataclass(frozen=True, slots=True)
class Signed(Generic[M_co]):
    """An opened envelope: `message` was signed by `sender`; `raw` are the received bytes, good as evidence."""

    sender: NodeId
    message: M_co
    raw: bytes


def seal(key: KeyPair, genesis: bytes, message: msgspec.Struct) -> bytes:
    """Sign `message` for the network named by `genesis` (32 bytes)."""
    kind, body = kind_of(message), codec.encode(message)
    signature = key.sign(envelope_message(genesis, kind, body))
    return codec.encode(Envelope(1, kind, key.node_id, body, signature))


def open_any(data: bytes, genesis: bytes, *, max_bytes: int = RESPONSE_MAX_BYTES) -> Signed[msgspec.Struct]:
    """Open an envelope of any known kind. RemoteError when anything about it is wrong."""
    envelope = codec.decode(data, Envelope, max_bytes=max_bytes)
    kind = KINDS.get(envelope.kind)
    if kind is None:
        raise RemoteError(f"unknown kind {envelope.kind!r}", peer=envelope.sender)
    message = codec.decode(envelope.body, kind, max_bytes=max_bytes)
    signed = envelope_message(genesis, envelope.kind, envelope.body)
    if not verify(envelope.sender, signed, envelope.signature):
        raise RemoteError(f"{envelope.kind}: the signature is wrong, or for another network", peer=envelope.sender)
    return Signed(NodeId(envelope.sender), message, data)


class Opener(Protocol):
    """Opens envelopes as `open_any` does."""

    def __call__(self, data: bytes, genesis: bytes, *, max_bytes: int = RESPONSE_MAX_BYTES) -> Signed[msgspec.Struct]:
        """The opened envelope, or RemoteError."""
        ...


def open_as(
    data: bytes, genesis: bytes, kind: type[M], *, max_bytes: int = RESPONSE_MAX_BYTES, opener: Opener = open_any
) -> Signed[M]:
    """Open an envelope that must hold a `kind`."""
    signed = opener(data, genesis, max_bytes=max_bytes)
    if not isinstance(signed.message, kind):
        raise RemoteError(f"expected {kind.__name__}, got {type(signed.message).__name__}", peer=signed.sender)
    return Signed(signed.sender, signed.message, data)
