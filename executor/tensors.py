"""Safetensors, read with suspicion and written in one canonical form. No torch, no pickle, numpy views only.

The reader accepts less than the format allows: two element types, no metadata, tensors that lie back to back and fill
the blob to its last byte, a bounded header. Whoever calls it decides whether a bad blob is our fault or a peer's.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.limits import TENSOR_HEADER_MAX_BYTES, TENSORS_MAX

Array = NDArray[Any]
Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Name -> (numpy type name, shape)."""

_TYPES = {"F32": "float32", "I64": "int64"}
_CODES = {"float32": "F32", "int64": "I64"}
_RANK_MAX = 8
_NAME_MAX = 160


class BadTensors(ValueError):
    """A blob that is not an acceptable safetensors file. The text says why, in one line."""


def read_tensors(blob: bytes) -> dict[str, Array]:
    """Views into `blob`, by name. Raises BadTensors on anything unusual."""
    header, base = _header(blob)
    tensors: dict[str, Array] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        kind, shape, first, last = _entry(name, entry)
        if last > len(blob) - base or math.prod(shape) * np.dtype(kind).itemsize != last - first:
            raise BadTensors(f"tensor {name[:40]!a} has a shape that does not match its bytes")
        spans.append((first, last))
        tensors[name] = np.frombuffer(blob, kind, math.prod(shape), base + first).reshape(shape)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise BadTensors("tensors overlap or leave a gap")
        end = last
    if end != len(blob) - base:
        raise BadTensors(f"{len(blob) - base - end} bytes follow the last tensor")
    return tensors


def _header(blob: bytes) -> tuple[dict[str, Any], int]:
    if len(blob) < 8:
        raise BadTensors("is shorter than a header")
    (length,) = struct.unpack_from("<Q", blob)
    if length > min(TENSOR_HEADER_MAX_BYTES, len(blob) - 8):
        raise BadTensors(f"has a header of {length} bytes")
    try:
        header = json.loads(blob[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise BadTensors("has a header that is not JSON") from None
    if not isinstance(header, dict) or len(header) > TENSORS_MAX:
        raise BadTensors("has a header that is not a table of tensors")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice")
    return table


def _entry(name: str, entry: object) -> tuple[str, tuple[int, ...], int, int]:
    if len(name) > _NAME_MAX or not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BadTensors(f"{name[:40]!a} is not a tensor")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise BadTensors(f"tensor {name[:40]!a} is neither F32 nor I64")
    if not isinstance(shape, list) or len(shape) > _RANK_MAX or not all(_is_size(side) for side in shape):
        raise BadTensors(f"tensor {name[:40]!a} has no proper shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(side) for side in offsets):
        raise BadTensors(f"tensor {name[:40]!a} has no proper offsets")
    if offsets[0] > offsets[1]:
        raise BadTensors(f"tensor {name[:40]!a} has no proper offsets")
    return _TYPES[kind], tuple(shape), offsets[0], offsets[1]


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


class TensorWriter:
    """Writes tensors of one layout again and again: the header is made once. Wide types come first, then by name."""

    def __init__(self, layout: Layout) -> None:
        self.names = sorted(layout, key=lambda name: (-np.dtype(layout[name][0]).itemsize, name))
        header, offset = {}, 0
        for name in self.names:
            kind, shape = layout[name]
            size = math.prod(shape) * np.dtype(kind).itemsize
            entry = {"dtype": _CODES[kind], "shape": list(shape), "data_offsets": [offset, offset + size]}
            header[name] = entry
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._head = struct.pack("<Q", len(text)) + text

    def write(self, tensors: Mapping[str, Array]) -> bytes:
        """The blob of `tensors`, which must be contiguous and have the writer's layout."""
        # a memoryview of bytes: arrays with no dimension or no element cannot be cast otherwise
        return b"".join([self._head, *(tensors[name].reshape(-1).view(np.uint8).data for name in self.names)])


def layout_of(tensors: Mapping[str, Array]) -> Layout:
    """Types and shapes of `tensors`. Raises BadTensors for a type that has no place in a blob."""
    for name, array in tensors.items():
        if array.dtype.name not in _CODES:
            raise BadTensors(f"tensor {name!r} is {array.dtype.name}, neither float32 nor int64")
    return {name: (array.dtype.name, array.shape) for name, array in tensors.items()}


def write_tensors(tensors: Mapping[str, Array]) -> bytes:
    """The canonical blob of `tensors`: equal tensors, equal bytes."""
    packed = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # ascontiguousarray turns a scalar into one element
    packed = {name: array.reshape(tensors[name].shape) for name, array in packed.items()}
    return TensorWriter(layout_of(packed)).write(packed)
