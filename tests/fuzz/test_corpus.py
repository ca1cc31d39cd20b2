"""Every input that was ever found is tried again, with memory bounded, and so is whatever hypothesis makes of them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import byte_targets
from fuzz.targets import TARGETS
from sample_messages import MESSAGES

pytestmark = pytest.mark.slow
CORPUS = Path(__file__).parent / "corpus"
FLOOR_BYTES, PER_BYTE = 4_000_000, 400
"""What decoding may take in memory: for any input, and for each byte of it."""


def committed(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] if (CORPUS / name).is_dir() else []


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_what_was_found_stays_found(name: str) -> None:
    inputs = [*TARGETS[name].seeds, *committed(name), b"", b"\0", b"\xff" * 64]
    for data in inputs:
        TARGETS[name].run(data)
    gc.collect()
    tracemalloc.start()
    try:
        for data in inputs:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            TARGETS[name].run(data)
            took = tracemalloc.get_traced_memory()[1] - before
            assert took <= FLOOR_BYTES + PER_BYTE * len(data), f"{data[:40]!r}…: {len(data)} bytes took {took}"
    finally:
        tracemalloc.stop()


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """An original with bytes flipped, cut out, doubled or spliced in from another."""
    data = bytearray(draw(st.sampled_from(originals)) if originals else draw(st.binary(max_size=300)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 30)))
        piece = draw(st.binary(max_size=12) | st.sampled_from(originals or [b""]).map(lambda one: one[:200]))
        data[start : draw(st.sampled_from([start, end]))] = draw(st.sampled_from([piece, bytes(data[start:end]) * 2]))
    return bytes(data)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_damaged_inputs_keep_the_laws(name: str) -> None:
    run: Callable[[bytes], None] = TARGETS[name].run

    @settings(max_examples=60)
    @given(damaged([*TARGETS[name].seeds, *committed(name)]))
    def try_it(data: bytes) -> None:
        run(data)

    try_it()


def test_every_target_has_inputs_and_a_folder_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(TARGETS[name].seeds or committed(name) for name in TARGETS)
    assert sum(len(committed(name)) for name in TARGETS) <= 600, "keep it small"


def test_a_broken_decoder_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_targets.codec, "decode", lambda *_, **__: MESSAGES[0])
    with pytest.raises(AssertionError):
        TARGETS["message"].run(TARGETS["message"].seeds[1])
    monkeypatch.setattr(byte_targets.codec, "decode", lambda *_, **__: {}["field"])
    with pytest.raises(KeyError):
        TARGETS["message"].run(TARGETS["message"].seeds[1])
