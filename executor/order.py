"""Order and randomness of a training as pure functions of (seed, step): nothing about them is kept in a state.

The permutation sorts keys drawn from numpy's raw Philox stream, which numpy keeps stable, unlike the methods of its
Generator. Domains keep the uses of one seed apart.
"""

from __future__ import annotations

import struct
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray


def _digest(domain: bytes, *values: int) -> bytes:
    return sha256(b"cyx/order/" + domain + struct.pack(f"<{len(values)}Q", *values)).digest()


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which `count` examples are visited in `epoch`."""
    key = int.from_bytes(_digest(b"epoch", seed, epoch, count)[:16], "little")
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable").astype(np.int64)


def step_seed(seed: int, step: int) -> int:
    """63 bits that seed the RNG of one step (dropout)."""
    return int.from_bytes(_digest(b"step", seed, step)[:8], "little") >> 1


def weight_seed(seed: int) -> int:
    """63 bits that seed the model's initial weights."""
    return int.from_bytes(_digest(b"weights", seed)[:8], "little") >> 1
