"""How failures inside torch get their name: ExecutionFailed, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..protocol.errors import ExecutionFailed


@contextmanager
def failures_named() -> Iterator[None]:
    """torch reports what goes wrong in a computation, lack of memory first of all, as RuntimeError."""
    try:
        yield
    except MemoryError:
        raise ExecutionFailed("out of memory") from None
    except RuntimeError as error:
        cause = str(error).partition("\n")[0][:200]
        if "allocate" in cause or "out of memory" in cause:
            raise ExecutionFailed(f"out of memory: {cause}") from None
        raise ExecutionFailed(f"the computation failed: {cause}") from None
