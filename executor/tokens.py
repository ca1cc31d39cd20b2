"""The byte tokenizer: token b is byte b of the text's UTF-8, 256 is the end token. It needs no vocabulary file.

Any sequence of byte tokens has a text: what is not UTF-8 becomes U+FFFD, as Python's 'replace' does it.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

END = 256
VOCABULARY = 257
_BETWEEN = "\n\n"


def encode_prompt(system: str, prompt: str) -> tuple[int, ...]:
    """Tokens of a prompt: the system text and an empty line stand before it when there is a system text."""
    return tuple((f"{system}{_BETWEEN}{prompt}" if system else prompt).encode())


def decode_tokens(tokens: Iterable[int]) -> str:
    """The text of an answer; end tokens are silent."""
    return bytes(token for token in tokens if token != END).decode(errors="replace")


class TextStream:
    """Turns tokens into pieces of text as they come. The pieces join to what `decode_tokens` gives for all."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, tokens: Sequence[int], *, last: bool = False) -> str:
        """What these tokens add; bytes of an unfinished character wait for the rest, or for the last call."""
        return self._decoder.decode(bytes(token for token in tokens if token != END), last)
