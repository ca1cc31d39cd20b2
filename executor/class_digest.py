"""The name of an execution class, computed from its description. Apart from `classes.py`, which needs torch."""

from __future__ import annotations

import json
from hashlib import sha256


def class_digest(description: dict[str, str]) -> bytes:
    """The 32 bytes that name a class: sha256 of its description in canonical JSON."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return sha256(b"cyx/class" + text.encode()).digest()
