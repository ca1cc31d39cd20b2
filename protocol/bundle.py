"""What one gossip message carries: the records of one author, published within one short window (DESIGN 3).

A bundle is a MessagePack array of 1 to GOSSIP_RECORDS_MAX envelopes as `bin`, each in its shortest form, all different,
of at most GOSSIP_MESSAGE_MAX_BYTES together with the array around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgpack

from .errors import RemoteError
from .limits import GOSSIP_MESSAGE_MAX_BYTES, GOSSIP_RECORDS_MAX

_FRAME_BYTES = 5
"""More than a bundle adds to one record, and than the array adds to all."""


def pack(records: Sequence[bytes]) -> bytes:
    """The one encoding of a bundle."""
    packed: bytes = msgpack.packb(list(records))
    return packed


def bundles(records: Iterable[bytes]) -> list[bytes]:
    """As few bundles as the bounds allow, in order. A record that fits none makes one that nobody will accept."""
    found: list[list[bytes]] = []
    size = 0
    for record in dict.fromkeys(records):
        size += len(record) + _FRAME_BYTES
        if not found or len(found[-1]) >= GOSSIP_RECORDS_MAX or size + _FRAME_BYTES > GOSSIP_MESSAGE_MAX_BYTES:
            found.append([])
            size = len(record) + _FRAME_BYTES
        found[-1].append(record)
    return [pack(one) for one in found]


def unpack(data: bytes) -> tuple[bytes, ...]:
    """The records of a bundle; RemoteError when it is none."""
    if len(data) > GOSSIP_MESSAGE_MAX_BYTES:
        raise RemoteError(f"a bundle of {len(data)} bytes, at most {GOSSIP_MESSAGE_MAX_BYTES} are allowed")
    try:
        records = msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            max_array_len=GOSSIP_RECORDS_MAX,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise RemoteError(f"not a bundle: {(str(error) or type(error).__name__)[:200]}") from None
    if not isinstance(records, tuple) or not records or not all(isinstance(one, bytes) for one in records):
        raise RemoteError("not a bundle: it is no array of one or more byte strings")
    if len(set(records)) != len(records):
        raise RemoteError("a bundle says one thing twice")
    if pack(records) != data:
        raise RemoteError("a bundle not in canonical encoding")
    return records


def weight(data: bytes, bytes_per_record: int) -> int:
    """For how many records a message counts where gossip is rationed: those that it says it holds, and not fewer than
    its bytes are worth. Looks at its first byte alone."""
    count = 1
    if data and data[0] & 0xF0 == 0x90:
        count = data[0] & 0x0F
    elif data and data[0] in (0xDC, 0xDD):
        count = GOSSIP_RECORDS_MAX
    return max(1, count, -(-len(data) // bytes_per_record))
