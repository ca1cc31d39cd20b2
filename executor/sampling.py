"""The sampling law: which token follows from logits, seed and place, to the bit. No torch.

The score of token t is its logit plus temperature times Gumbel noise, and the token with the highest score is chosen
among the `top_k` largest logits; ties go to the lower id. That is sampling from the softmax at that temperature, but
with no freedom: the noise is a function of (seed, prompt, position, token). It is computed from raw Philox words with
the four basic operations of IEEE doubles only, in a fixed order, because the logarithms of libraries differ in their
last bits. Temperature 0 has no noise: greedy. Scores are in logits, so gaps of both modes have one unit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..protocol.inference import InferTask
from ..protocol.limits import MICRO, TOKEN_GAP_MAX_MICRO

Floats = NDArray[np.float64]
_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_TERMS = tuple(1.0 / power for power in range(23, 1, -2))
_BORDER = TOKEN_GAP_MAX_MICRO / MICRO
"""How far logits of two honest machines of a class may be apart: decides who belongs to the top k."""


class Law(NamedTuple):
    """How tokens of one prompt are chosen."""

    seed: int
    prompt_index: int
    temperature: float
    top_k: int

    @classmethod
    def of(cls, task: InferTask, prompt_index: int) -> Law:
        """The law of one prompt of a task."""
        return cls(task.seed, prompt_index, task.temperature_micro / MICRO, task.top_k)


def logarithm(x: Floats) -> Floats:
    """Natural logarithm of positive doubles within 2 units in the last place, the same bits on every machine.

    x = m * 2^e with m in [sqrt(1/2), sqrt(2)), s = (m - 1) / (m + 1), ln m = 2 (s + s^3/3 + ... + s^23/23) by Horner.
    """
    mantissa, exponent = np.frexp(x)
    small = mantissa < _SQRT_HALF
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    exponent = exponent - small
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    total = np.full_like(s, _TERMS[0])
    for term in _TERMS[1:]:
        total = total * square
        total = total + term
    total = total * square
    total = total + 1.0
    product = s * total
    return product * 2.0 + exponent * _LN2


def noise(law: Law, position: int, tokens: NDArray[np.int64], vocabulary: int) -> Floats:
    """Gumbel noise of `tokens` at `position` of the answer (0-based).

    Word t of the stream of Philox4x64-10 whose key is the first 16 bytes of sha256("cyx/infer/gumbel" ‖ seed ‖ prompt
    index ‖ position) belongs to token t; u = (word >> 12 + 1/2) / 2^52, noise = -ln(-ln u).
    """
    return _gumbel(_words(law, position, vocabulary)[tokens])


def _words(law: Law, position: int, vocabulary: int) -> NDArray[np.uint64]:
    digest = sha256(b"cyx/infer/gumbel" + struct.pack("<3Q", law.seed, law.prompt_index, position)).digest()
    words: NDArray[np.uint64] = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(vocabulary)
    return words


def _gumbel(words: NDArray[np.uint64]) -> Floats:
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return -logarithm(-logarithm(uniform))


def choose(logits: NDArray[np.float32], law: Law, first: int) -> NDArray[np.int64]:
    """The tokens that follow from finite `logits`, shape (positions, vocabulary), at `first` and the next positions."""
    if law.temperature == 0.0:
        likeliest: NDArray[np.int64] = logits.argmax(axis=1).astype(np.int64)
        return likeliest
    # stable: of equal logits the lower id is in; sorted by id: of equal scores it wins
    candidates = np.sort(np.argsort(-logits, axis=1, kind="stable")[:, : law.top_k], axis=1)
    words = [_words(law, first + row, logits.shape[1])[chosen] for row, chosen in enumerate(candidates)]
    scores = np.take_along_axis(logits, candidates, 1).astype(np.float64) + law.temperature * _gumbel(np.stack(words))
    best: NDArray[np.int64] = np.take_along_axis(candidates, scores.argmax(axis=1)[:, None], 1)[:, 0]
    return best


def gaps(logits: NDArray[np.float32], law: Law, first: int, tokens: Sequence[int]) -> list[float]:
    """How far the score of each claimed token lies below the best one, in logits; 0 for what `choose` takes."""
    rows = enumerate(zip(logits, choose(logits, law, first), tokens, strict=True), start=first)
    return [0.0 if token == best else _gap(row, law, position, token) for position, (row, best, token) in rows]


def _gap(logits: NDArray[np.float32], law: Law, position: int, token: int) -> float:
    """Of a token that is not the best one.

    Another honest machine's logits differ a little, so who is last among the top k may differ too: a token within the
    border counts as a candidate, and only candidates beyond it count against one.
    """
    if law.temperature == 0.0:
        return float(np.float64(logits.max()) - np.float64(logits[token]))
    k = min(law.top_k, len(logits))
    ordered = np.sort(logits)[::-1].astype(np.float64)
    last_in, first_out = ordered[k - 1], ordered[k] if k < len(logits) else -np.inf
    sure = np.flatnonzero(logits.astype(np.float64) > first_out + _BORDER)
    asked = np.append(sure, token)
    scores = logits[asked].astype(np.float64) + law.temperature * noise(law, position, asked, len(logits))
    outside = max(0.0, last_in - float(logits[token]))
    return max(0.0, float(scores.max() - scores[-1])) + (outside if outside > _BORDER else 0.0)
