"""Claims that nodes keep for requesters that were gone: for a day, for their requester, and not too many."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.ledger.journal import MemoryJournal
from cyxnode.protocol.limits import CLAIM_KEPT_MS
from cyxnode.protocol.messages import ResultAnswer
from cyxnode.protocol.units import JobId, NodeId
from cyxnode.scheduler import kept_claims
from cyxnode.scheduler.kept_claims import BY_JOB, COUNT, KeptClaim, keep_claim, kept_claim

REQUESTER, NOW_MS = NodeId(b"r" * 32), 1_800_000_000_000
KEPT = KeptClaim(requester=REQUESTER, at_ms=NOW_MS, certificate=b"certificate", claim=b"claim")


def job(number: int) -> JobId:
    return JobId(sha256(b"%d" % number).digest())


def test_a_claim_is_given_to_its_requester_for_a_day() -> None:
    journal = MemoryJournal()
    keep_claim(journal, job(1), KEPT)
    told = ResultAnswer(job=job(1), certificate=b"certificate", claim=b"claim")
    assert kept_claim(journal, job(1), REQUESTER, NOW_MS + CLAIM_KEPT_MS) == told
    assert kept_claim(journal, job(1), REQUESTER, NOW_MS + CLAIM_KEPT_MS + 1) is None
    assert kept_claim(journal, job(1), NodeId(b"s" * 32), NOW_MS) is None
    assert kept_claim(journal, job(2), REQUESTER, NOW_MS) is None


def test_the_first_claim_of_a_job_counts() -> None:
    journal = MemoryJournal()
    keep_claim(journal, job(1), KEPT)
    keep_claim(journal, job(1), msgspec.structs.replace(KEPT, claim=b"another"))
    answer = kept_claim(journal, job(1), REQUESTER, NOW_MS)
    assert answer is not None and answer.claim == b"claim"


def test_the_oldest_makes_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_claims, "CLAIMS_KEPT_MAX", 3)
    journal = MemoryJournal()
    for number in range(5):
        keep_claim(journal, job(number), KEPT)
    held = [number for number in range(5) if kept_claim(journal, job(number), REQUESTER, NOW_MS)]
    assert held == [2, 3, 4]


@given(st.binary(max_size=60), st.binary(max_size=12))
def test_damaged_records_are_as_good_as_none(value: bytes, count: bytes) -> None:
    journal = MemoryJournal()
    journal.put(BY_JOB + job(1), value)
    journal.put(COUNT, count)
    assert kept_claim(journal, job(1), REQUESTER, NOW_MS) is None
    keep_claim(journal, job(2), KEPT)
    assert kept_claim(journal, job(2), REQUESTER, NOW_MS) is not None
