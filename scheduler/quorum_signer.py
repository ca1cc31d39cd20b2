"""Quorum signatures, never two that contradict (DESIGN 8).

The journal holds what was signed for each (context, kind, sequence, round) before the signature leaves this function;
a second, different digest for the same slot is refused, also after a crash.
"""

from __future__ import annotations

from ..protocol.errors import LocalError
from ..protocol.hashing import QuorumKind, quorum_message
from ..protocol.identity import KeyPair
from ..protocol.ports import Journal


def sign_quorum(
    key: KeyPair, journal: Journal, kind: QuorumKind, sequence: int, round_: int, context: bytes, digest: bytes
) -> bytes:
    """Journal, then sign the 40 bytes; LocalError if this slot was signed with another digest."""
    message = quorum_message(kind, sequence, round_, context, digest)
    slot = b"signed/" + context + message[4:8]
    earlier = journal.get(slot)
    if earlier is None:
        journal.put(slot, digest)
    elif earlier != digest:
        raise LocalError(f"another {kind.name} was signed in round {round_}", field="quorum signature")
    return key.sign(message)
