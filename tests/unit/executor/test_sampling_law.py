"""The sampling law beside a second implementation without numpy, as docs/inference.md describes it."""

from __future__ import annotations

import math
import struct
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.executor.sampling import Law, choose, gaps, logarithm, noise
from cyxnode.executor.tokens import END, TextStream, decode_tokens, encode_prompt

MASK = (1 << 64) - 1
FROZEN = ["0x1.c89ec9cc6d8a2p-2", "0x1.8374a4700d7eap+0", "-0x1.30b6bfc68cd49p-1", "0x1.1d053be95100fp-4"]


def philox_block(key: tuple[int, int], counter: int) -> list[int]:
    """Philox4x64-10 of Salmon et al. (2011)."""
    words, (low, high) = [counter & MASK, counter >> 64, 0, 0], key
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [(second >> 64) ^ words[1] ^ low, second & MASK, (first >> 64) ^ words[3] ^ high, first & MASK]
        low, high = (low + 0x9E3779B97F4A7C15) & MASK, (high + 0xBB67AE8584CAA73B) & MASK
    return words


def pick(logits: np.ndarray[Any, Any], law: Law, position: int) -> int:
    return int(choose(logits[None], law, position)[0])


def gap(logits: np.ndarray[Any, Any], law: Law, position: int, token: int) -> float:
    return gaps(logits[None], law, position, [token])[0]


def plain_log(x: float) -> float:
    mantissa, exponent = math.frexp(x)
    if mantissa < 0.7071067811865476:
        mantissa, exponent = 2.0 * mantissa, exponent - 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    total = 1.0 / 23
    for power in range(21, 1, -2):
        total = total * square + 1.0 / power
    total = total * square + 1.0
    return s * total * 2.0 + exponent * 0.6931471805599453


def plain_choice(logits: list[float], law: Law, position: int) -> int:
    if law.temperature == 0.0:
        return logits.index(max(logits))
    digest = sha256(b"cyx/infer/gumbel" + struct.pack("<3Q", law.seed, law.prompt_index, position)).digest()
    key = struct.unpack("<2Q", digest[:16])
    best, chosen = -math.inf, -1
    for token in sorted(sorted(range(len(logits)), key=lambda token: (-logits[token], token))[: law.top_k]):
        word = philox_block(key, token // 4 + 1)[token % 4]
        uniform = ((word >> 12) + 0.5) * 2.0**-52
        score = logits[token] + law.temperature * -plain_log(-plain_log(uniform))
        if score > best:
            best, chosen = score, token
    return chosen


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.integers(0, 2**53),
    st.integers(0, 63),
    st.integers(0, 4095),
    st.sampled_from([0, 1, 700_000, 1_000_000, 2_000_000]),
    st.integers(1, 50),
)
def test_a_second_implementation_chooses_the_same(
    logits: list[float], seed: int, prompt: int, position: int, temperature_micro: int, top_k: int
) -> None:
    law = Law(seed, prompt, temperature_micro / 1_000_000, top_k)
    row = np.array(logits, np.float32)
    token = pick(row, law, position)
    assert token == plain_choice(logits, law, position)
    assert gap(row, law, position, token) == 0.0


def test_noise_has_fixed_bits() -> None:
    values = noise(Law(7, 1, 1.0, 4), 3, np.arange(4), 257)
    digest = sha256(b"cyx/infer/gumbel" + struct.pack("<3Q", 7, 1, 3)).digest()
    words = philox_block(struct.unpack("<2Q", digest[:16]), 1)
    expected = [-plain_log(-plain_log(((word >> 12) + 0.5) * 2.0**-52)) for word in words]
    assert values.tolist() == expected
    assert [value.hex() for value in expected] == FROZEN


@given(st.floats(1e-16, 1.0, exclude_min=True) | st.floats(1.0, 40.0))
def test_logarithm_is_one(x: float) -> None:
    assert float(logarithm(np.array([x]))[0]) == pytest.approx(math.log(x), rel=1e-14, abs=2e-16)


def test_frequencies_are_those_of_the_softmax() -> None:
    logits = np.array([0.0, 1.0, 2.0, -1.0, 0.5], np.float32)
    law, count = Law(11, 0, 0.7, 4), 1500
    chosen = np.bincount(choose(np.tile(logits, (count, 1)), law, 0), minlength=5) / count
    weights = np.exp(logits / 0.7)
    weights[3] = 0.0  # the smallest of five is not among the top four
    expected = weights / weights.sum()
    assert chosen == pytest.approx(expected, abs=4 * math.sqrt(0.25 / count))


def test_gaps_name_the_distance_in_logits() -> None:
    logits = np.array([1.0, 3.0, 2.5, -4.0], np.float32)
    greedy = Law(0, 0, 0.0, 40)
    assert [gap(logits, greedy, 0, token) for token in range(4)] == [2.0, 0.0, 0.5, 7.0]
    sampled = Law(0, 0, 1.0, 2)
    assert gap(logits, sampled, 0, 3) > 6.5  # not among the top two: its distance to them counts as well


@given(st.integers(0, 10_000), st.integers(0, 200))
def test_a_rounding_at_the_border_of_the_top_k_costs_an_honest_worker_nothing(seed: int, position: int) -> None:
    """Token 2 and 3 differ by a last bit, so worker and verifier disagree who belongs to the top three."""
    law = Law(seed, 0, 1.5, 3)
    worker = np.array([1.0, 0.5, 0.2500001, 0.25], np.float32)
    verifier = np.array([1.0, 0.5, 0.25, 0.2500001], np.float32)
    assert gap(verifier, law, position, pick(worker, law, position)) < 1e-5


@given(st.lists(st.integers(0, 256), max_size=40), st.data())
def test_pieces_of_text_join_to_the_text(tokens: list[int], data: st.DataObject) -> None:
    stream, pieces, rest = TextStream(), [], list(tokens)
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        pieces.append(stream.push(rest[:count]))
        rest = rest[count:]
    pieces.append(stream.push([], last=True))
    assert "".join(pieces) == decode_tokens(tokens)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_text_survives_the_tokenizer(text: str) -> None:
    assert decode_tokens((*encode_prompt("", text), END)) == text
    assert decode_tokens(encode_prompt("Be brief.", text)) == f"Be brief.\n\n{text}"
