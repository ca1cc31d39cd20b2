"""The bounded types of which messages are made, and the root of all messages (DESIGN 2).

Money is micro-CYX; `Micro` and `Ppm` are fixed point with scale 10^6; `Millis` are Unix ms unless a name says `_s`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from .limits import (
    ADDRESSES_MAX,
    AMOUNT_MAX,
    GOSSIP_MESSAGE_MAX_BYTES,
    MICRO,
    SIGNATURE_BYTES,
    TEXT_MAX_CHARS,
    WINDOW_MAX_MS,
)

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Ppm = Annotated[int, Meta(ge=0, le=MICRO)]
Amount = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Millis = Annotated[int, Meta(ge=0, le=2**53)]
Micro = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Window = Annotated[int, Meta(ge=50, le=WINDOW_MAX_MS)]
Text = Annotated[str, Meta(max_length=TEXT_MAX_CHARS)]
Word = Annotated[str, Meta(max_length=64)]
Sig = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Addresses = Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=ADDRESSES_MAX)]
Evidence = Annotated[bytes, Meta(max_length=GOSSIP_MESSAGE_MAX_BYTES)]
"""The bytes of another envelope."""


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Root of all messages."""
