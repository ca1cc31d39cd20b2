"""Never two contradicting quorum signatures, also after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyxnode.ledger.journal import LevelJournal, MemoryJournal
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.hashing import QuorumKind, quorum_message
from cyxnode.protocol.identity import KeyPair, verify
from cyxnode.protocol.ports import Journal
from cyxnode.scheduler.quorum_signer import sign_quorum

KEY = KeyPair(b"k" * 32)
ONE, OTHER, CONTEXT = b"1" * 32, b"2" * 32, b"c" * 32


def signed(journal: Journal, digest: bytes, round_: int = 0, kind: QuorumKind = QuorumKind.SETTLE) -> bytes:
    return sign_quorum(KEY, journal, kind, 0, round_, CONTEXT, digest)


def test_one_slot_is_signed_for_one_digest_only() -> None:
    journal = MemoryJournal()
    first = signed(journal, ONE)
    assert verify(KEY.node_id, quorum_message(QuorumKind.SETTLE, 0, 0, CONTEXT, ONE), first)
    assert signed(journal, ONE) == first
    with pytest.raises(LocalError, match="another SETTLE was signed in round 0"):
        signed(journal, OTHER)


def test_other_rounds_kinds_and_jobs_are_other_slots() -> None:
    journal = MemoryJournal()
    signed(journal, ONE)
    signed(journal, OTHER, round_=1)
    signed(journal, OTHER, round_=256)
    signed(journal, OTHER, kind=QuorumKind.AWARD)
    sign_quorum(KEY, journal, QuorumKind.SETTLE, 0, 0, b"d" * 32, OTHER)


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    journal = LevelJournal(tmp_path)
    signed(journal, ONE)
    journal.close()
    reopened = LevelJournal(tmp_path)
    with pytest.raises(LocalError):
        signed(reopened, OTHER)
    assert signed(reopened, ONE)
    reopened.close()


def test_nothing_is_signed_that_the_journal_did_not_take() -> None:
    class Full(MemoryJournal):
        def put(self, key: bytes, value: bytes) -> None:
            raise LocalError("no space", field="data dir")

    with pytest.raises(LocalError, match="no space"):
        signed(Full(), ONE)
