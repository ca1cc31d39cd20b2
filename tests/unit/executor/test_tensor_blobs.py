"""Safetensors from strangers, and our own canonical form."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.executor.tensors import BadTensors, read_tensors, write_tensors

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def blob(header: Any, data: bytes = bytes(8), *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_agrees_with_the_reference_implementation() -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array([1, 2], np.int64),
        "scalar": np.array(3, np.float32),
        "none": np.zeros((0, 4), np.float32),
    }
    ours = write_tensors(tensors)
    for read in (read_tensors(ours), safetensors.numpy.load(ours), read_tensors(safetensors.numpy.save(tensors))):
        assert set(read) == set(tensors)
        for name, array in tensors.items():
            assert read[name].shape == array.shape
            assert read[name].dtype == array.dtype
            assert read[name].tobytes() == array.tobytes()
    assert write_tensors(dict(reversed(tensors.items()))) == ours


HOSTILE = {
    "empty": b"",
    "short": b"\0" * 7,
    "length beyond the end": blob({"x": F32}, length=1 << 60),
    "length beyond the bound": struct.pack("<Q", 2 << 20) + b" " * (2 << 20),
    "not json": blob(b"{nope"),
    "not utf-8": blob(b"\xff\xfe"),
    "deep": blob(b"[" * 50_000),
    "list": blob([]),
    "metadata": blob({"__metadata__": {"a": "b"}, "x": F32}),
    "duplicate": blob(b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"x":{}}'),
    "extra key": blob({"x": {**F32, "hook": 1}}),
    "other type": blob({"x": {**F32, "dtype": "F64"}}),
    "type is a list": blob({"x": {**F32, "dtype": ["F32"]}}),
    "negative": blob({"x": {**F32, "shape": [-2]}}),
    "boolean": blob({"x": {**F32, "shape": [True, 2]}}),
    "float": blob({"x": {**F32, "shape": [2.0]}}),
    "huge": blob({"x": {**F32, "shape": [1 << 39, 1 << 39]}}),
    "rank": blob({"x": {**F32, "shape": [1] * 9}}),
    "offsets reversed": blob({"x": {**F32, "data_offsets": [8, 0]}}),
    "offsets beyond": blob({"x": {**F32, "shape": [4], "data_offsets": [0, 16]}}),
    "offsets negative": blob({"x": {**F32, "data_offsets": [-8, 0]}}),
    "size mismatch": blob({"x": {**F32, "shape": [3]}}),
    "gap": blob({"x": {**F32, "data_offsets": [8, 16]}}, bytes(16)),
    "overlap": blob({"x": F32, "y": F32}),
    "trailing": blob({"x": F32}, bytes(9)),
    "long name": blob({"x" * 1000: F32}),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_blobs_are_refused(data: bytes) -> None:
    with pytest.raises(BadTensors) as caught:
        read_tensors(data)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300), st.integers(0, 200), st.integers(1, 40))
def test_damaged_blobs_raise_nothing_else(noise: bytes, place: int, count: int) -> None:
    good = write_tensors({"x": np.arange(4, dtype=np.float32), "y": np.arange(3, dtype=np.int64)})
    for data in (noise, good[:place] + noise[:count] + good[place + count :]):
        with suppress(BadTensors):
            read_tensors(data)
