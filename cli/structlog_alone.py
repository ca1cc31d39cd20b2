"""Imports structlog without rich, which it would use for tracebacks that we do not want (see logs.py): 6 MB of a node's
memory. Whoever shows tables imports rich by itself."""

from __future__ import annotations

import sys

if "rich" not in sys.modules and "structlog" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # what the import system takes for "not installed"
    try:
        import structlog
    finally:
        del sys.modules["rich"]
else:
    import structlog

__all__ = ["structlog"]
