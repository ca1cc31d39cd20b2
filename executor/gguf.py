"""What a GGUF file says of itself, without loading it: how it is quantised, its context, and what its cache will take.

Only the header's key-value part is read, front to back; numbers and short texts are kept, arrays are skipped. The file
is somebody's: every length is checked against GGUF_HEADER_MAX_BYTES before anything is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ..protocol.errors import LocalError
from ..protocol.limits import CONTEXT_MAX, GGUF_HEADER_MAX_BYTES, GGUF_KEYS_MAX

_NUMBERS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _ARRAY = 8, 9
_KEPT_TEXT_BYTES = 256
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4",
}  # fmt: skip
"""`general.file_type`, as llama.cpp names it."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The facts that matter to who serves the file."""

    quantisation: str
    """Empty when the file does not say, or in numbers that are unknown here."""
    context_length: int
    """Tokens that the model was trained for; 0 when the file does not say."""
    cache_bytes_per_token: int
    """Keys and values in 16 bits; 0 when it cannot be computed."""


class _Reader:
    """Reads a bounded part of a file."""

    def __init__(self, file: BufferedReader) -> None:
        self._file, self._left = file, GGUF_HEADER_MAX_BYTES

    def take(self, count: int) -> bytes:
        self._spend(count)
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("it ends in its header")
        return data

    def skip(self, count: int) -> None:
        self._spend(count)
        self._file.seek(count, 1)

    def _spend(self, count: int) -> None:
        if count > self._left:
            raise ValueError(f"its header has more than {GGUF_HEADER_MAX_BYTES} bytes")
        self._left -= count

    def number(self, form: str) -> int | float | bool:
        value: int | float | bool = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def count(self) -> int:
        return int(self.number("<Q"))

    def text(self) -> str:
        size = self.count()
        if size > _KEPT_TEXT_BYTES:
            self.skip(size)
            return ""
        return self.take(size).decode(errors="replace")


def read_gguf_header(path: Path) -> GgufHeader:
    """Raises LocalError, field 'gguf', when the file cannot be read or is none of version 2 or 3."""
    try:
        with path.open("rb") as file:
            facts = _facts(_Reader(file))
    except OSError as error:
        raise LocalError(f"{path}: {error.strerror}", field="gguf", fix="give the path of a .gguf file") from None
    except ValueError as error:
        raise LocalError(f"{path} is no GGUF file: {error}", field="gguf", fix="fetch it again") from None
    kind = facts.get("general.architecture", "")

    def whole(key: str) -> int:
        value = facts.get(f"{kind}.{key}", 0)
        return value if isinstance(value, int) and 0 < value < 2**32 else 0

    heads, width = whole("attention.head_count"), whole("embedding_length")
    cached_heads = whole("attention.head_count_kv") or heads
    head = whole("attention.key_length") or (width // heads if heads else 0)
    file_type = facts.get("general.file_type")
    return GgufHeader(
        quantisation=_FILE_TYPES.get(file_type, "") if isinstance(file_type, int) else "",
        context_length=min(whole("context_length"), CONTEXT_MAX),
        cache_bytes_per_token=2 * 2 * whole("block_count") * cached_heads * head,
    )


def _facts(reader: _Reader) -> dict[str, object]:
    if reader.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    if reader.number("<I") not in (2, 3):
        raise ValueError("its version is neither 2 nor 3")
    reader.count()
    keys = reader.count()
    if keys > GGUF_KEYS_MAX:
        raise ValueError(f"it has {keys} keys")
    facts: dict[str, object] = {}
    for _ in range(keys):
        name = reader.text()
        facts[name] = _value(reader, int(reader.number("<I")))
    return facts


def _value(reader: _Reader, kind: int) -> object:
    if kind in _NUMBERS:
        return reader.number(_NUMBERS[kind])
    if kind == _TEXT:
        return reader.text()
    if kind != _ARRAY:
        raise ValueError(f"it has a value of type {kind}")
    element, count = int(reader.number("<I")), reader.count()
    if element in _NUMBERS:
        reader.skip(count * struct.calcsize(_NUMBERS[element]))
    elif element == _TEXT:
        for _ in range(count):
            reader.skip(reader.count())
    else:
        raise ValueError("it has an array of arrays")
    return None
