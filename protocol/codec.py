"""MessagePack with hard limits first, types second (DESIGN 2).

`decode` bounds size, nesting and item counts before any typed value exists, then validates against the message type,
and last insists on the one canonical encoding: the same value always has the same bytes, so digests of decoded
messages mean something. Hostile bytes raise RemoteError and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgpack
import msgspec

from .errors import RemoteError
from .limits import MAX_DEPTH, MAX_ITEMS

T = TypeVar("T", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """The canonical bytes of a message: a map of its fields in declared order; other maps are sorted by key."""
    return msgspec.msgpack.encode(message, order="deterministic")


def decode(data: bytes, kind: type[T], *, max_bytes: int) -> T:
    """Parse hostile `data` as `kind`; RemoteError names what is wrong."""
    if len(data) > max_bytes:
        raise RemoteError(f"{kind.__name__}: {len(data)} bytes, at most {max_bytes} are allowed")
    try:
        raw = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            list_hook=(count := _counter()),
            object_hook=count,
        )
        _check_depth(raw)
        message = msgspec.convert(raw, kind, builtin_types=(bytes,))
        canonical = encode(message) == data
    except (ValueError, TypeError, OverflowError, RecursionError, msgspec.MsgspecError, msgpack.UnpackException) as e:
        raise RemoteError(f"{kind.__name__}: {(str(e) or type(e).__name__)[:200]}") from None
    if not canonical:
        raise RemoteError(f"{kind.__name__}: not in canonical encoding")
    return message


def _counter() -> Callable[[Any], Any]:
    """A hook that sees every container and lets MAX_ITEMS of them pass: empty ones are 64 times their encoding."""
    left = MAX_ITEMS

    def count(container: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {MAX_ITEMS} containers")
        return container

    return count


def _check_depth(value: object) -> None:
    """Iterative, so that depth itself cannot exhaust the stack."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return
        level = inner
    raise ValueError(f"nested deeper than {MAX_DEPTH}")
