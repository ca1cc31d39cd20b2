"""Opened envelopes, shared by all nodes of a world: opening is a pure function of the bytes and of the network.

A gossip message is opened by every node that hears it. In one process the second to the thousandth opening can only
have the result of the first, so they share it. Real nodes share nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

from ..protocol.envelope import Signed, open_any
from ..protocol.limits import RESPONSE_MAX_BYTES

OPENED_MAX = 16_384


@dataclass(slots=True)
class OpenedMemo:
    """`open_any` with a memory of the latest OPENED_MAX results; what is refused is judged again every time."""

    _known: OrderedDict[tuple[bytes, bytes], Signed[msgspec.Struct]] = field(default_factory=OrderedDict)

    def __call__(self, data: bytes, genesis: bytes, *, max_bytes: int = RESPONSE_MAX_BYTES) -> Signed[msgspec.Struct]:
        """See open_any."""
        key = (data, genesis)
        signed = self._known.get(key) if len(data) <= max_bytes else None
        if signed is None:
            signed = self._known[key] = open_any(data, genesis, max_bytes=max_bytes)
            if len(self._known) > OPENED_MAX:
                self._known.popitem(last=False)
        return signed
