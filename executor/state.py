"""Training states: their canonical hash, and their blobs, which may come from a hostile peer.

A state is a set of named tensors: `model.*` (parameters and buffers), `optimizer.*`, and `cursor.step`, the number of
steps done. The hash covers names, types, shapes and raw memory in the order of the names, never a serialised blob, so
that it does not depend on a file format. Restoring copies into tensors that exist: names, types and shapes must be
exactly those of the graph's own state, so a hostile blob can choose values and nothing else.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

import numpy as np
from blake3 import blake3

from ..protocol.errors import RemoteError
from ..protocol.limits import DEVIATION_MAX_PPM, MICRO, STATE_MAX_BYTES
from .tensors import Array, BadTensors, Layout, layout_of, read_tensors

CURSOR = "cursor.step"
MODEL_PREFIX = "model."


def state_hash(arrays: Mapping[str, Array]) -> bytes:
    """blake3 of named tensors; 32 bytes. The arrays must be contiguous."""
    hasher = blake3(b"cyx/state/1", max_threads=1)
    for name in sorted(arrays):
        array = arrays[name]
        label = f"{name}\0{array.dtype.name}\0".encode()
        shape = struct.pack(f"<{array.ndim + 2}Q", array.ndim, *array.shape, array.nbytes)
        hasher.update(struct.pack("<I", len(label)) + label + shape)
        hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.digest()


def read_like(blob: bytes, layout: Layout, *, what: str) -> dict[str, Array]:
    """Read a peer's blob that must have exactly this layout. Raises RemoteError otherwise."""
    if len(blob) > STATE_MAX_BYTES:
        raise RemoteError(f"{what} has {len(blob)} bytes, more than {STATE_MAX_BYTES}")
    try:
        arrays = read_tensors(blob)
        found = layout_of(arrays)
    except BadTensors as error:
        raise RemoteError(f"{what} {error}") from None
    if found != layout:
        odd = sorted(set(found.items()) ^ set(layout.items()), key=lambda item: item[0])
        raise RemoteError(f"{what} does not belong to this model: see tensor {odd[0][0][:60]!a}")
    return arrays


def deviation_ppm(start: Mapping[str, Array], replayed: Mapping[str, Array], claimed: Mapping[str, Array]) -> int:
    """|claimed - replayed| / |replayed - start| over all float tensors together (Euclidean), in parts per million.

    DEVIATION_MAX_PPM when the replay changed nothing, or a number is not finite; 0 when the bits are equal.
    """
    apart = update = 0.0
    for name, array in replayed.items():
        if array.dtype.kind != "f" or array.tobytes() == claimed[name].tobytes() == start[name].tobytes():
            continue
        exact = array.astype(np.float64)
        apart += float(np.square(claimed[name] - exact).sum())
        update += float(np.square(exact - start[name]).sum())
    if apart == 0.0:
        return 0
    ratio = math.sqrt(apart / update) if update > 0.0 else math.inf
    return DEVIATION_MAX_PPM if not ratio < DEVIATION_MAX_PPM / MICRO else round(MICRO * ratio)


def all_finite(arrays: Mapping[str, Array]) -> bool:
    """Whether no tensor holds NaN or infinity: their bits would not be reproducible."""
    return all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays.values())
