"""Which verdicts count: sealed in time, drawn as promised, proved by the traces."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cyxnode.protocol import codec
from cyxnode.protocol.award import CertifiedAward, recompute
from cyxnode.protocol.envelope import Signed, open_as, seal
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.hashing import nonce_commitment, trace_digest, verdict_commitment
from cyxnode.protocol.messages import VerdictBody, VerdictCommit, VerdictReveal
from cyxnode.scheduler.case_checks import failure_of, judge_reveal
from cyxnode.scheduler.checking import samples_of
from cyxnode.scheduler.verification import Finding
from sample_job import AWARDED, JOB, MEMBERS, TERMS, WORKER, claim
from sample_messages import GENESIS

MEMBER, OTHER = MEMBERS[0], MEMBERS[1]
OPENED = [bytes(range(4 * i, 4 * i + 4)) for i in range(4)]
NONCE, CHOSEN = b"n" * 32, b"c" * 32
CERTIFIED = CertifiedAward(
    recompute(TERMS, AWARDED.proposal),
    WORKER.node_id,
    AWARDED.price,
    {key.node_id: nonce_commitment(JOB, key.node_id, NONCE) for key in MEMBERS},
)


def body(nonce: bytes = NONCE, **changes: Any) -> bytes:
    traces = [OPENED[i] for i in samples_of(TERMS, MEMBER.node_id, nonce)]
    digest = trace_digest(MEMBER.node_id, traces)
    honest = VerdictBody(ok=True, mismatch_segment=-1, trace_digest=digest, reason="")
    return codec.encode(msgspec.structs.replace(honest, **changes))


def judged(
    nonce: bytes = NONCE, *, said: bytes = body(), sealed: bytes | None = body(), signer: Any = MEMBER
) -> Finding:
    reveal = VerdictReveal(job=JOB, nonce=nonce, body=said)
    commits = {}
    if sealed is not None:
        commitment = verdict_commitment(JOB, MEMBER.node_id, nonce, sealed)
        commits[MEMBER.node_id] = seal(MEMBER, GENESIS, VerdictCommit(job=JOB, commitment=commitment))
    signed: Signed[VerdictReveal] = open_as(seal(signer, GENESIS, reveal), GENESIS, VerdictReveal)
    return judge_reveal(TERMS, CERTIFIED, commits, OPENED, signed)[0]


def test_an_honest_verdict_counts() -> None:
    assert judged() == Finding(True, -1, True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sealed": None},
        {"nonce": CHOSEN, "said": body(CHOSEN), "sealed": body(CHOSEN)},
        {"said": body(reason="changed later")},
        {"said": body(trace_digest=bytes(32)), "sealed": body(trace_digest=bytes(32))},
        {"signer": OTHER},
    ],
)
def test_verdicts_that_do_not_count(arguments: dict[str, Any]) -> None:
    assert judged(**arguments).counted is False


def test_an_accusation_needs_no_traces_and_names_a_segment_of_the_job() -> None:
    accusing = body(ok=False, mismatch_segment=3, trace_digest=bytes(32))
    assert judged(said=accusing, sealed=accusing) == Finding(False, 3, True)
    beyond = body(ok=False, mismatch_segment=TERMS.announce.segments)
    assert judged(said=beyond, sealed=beyond).mismatch_segment == -1


def test_a_stranger_has_no_verdict_and_garbage_is_none() -> None:
    with pytest.raises(RemoteError):
        judged(signer=WORKER)
    with pytest.raises(RemoteError):
        judged(said=b"garbage")


def test_claims_that_are_failures_by_themselves() -> None:
    matching = {"spec_hash": TERMS.announce.spec_hash, "execution_class": TERMS.announce.execution_class}
    worker = WORKER.node_id
    assert failure_of(claim(**matching), TERMS, worker) is None
    for status in ("failed", "unserved", "invalid"):
        assert failure_of(claim(final_status=status, message="no memory"), TERMS, worker) == "no memory"
    assert failure_of(claim(**matching | {"spec_hash": bytes(32)}), TERMS, worker)
    assert failure_of(claim(**matching | {"execution_class": bytes(32)}), TERMS, worker)
    assert failure_of(claim(**matching, states=()), TERMS, worker)
    unsealed = msgspec.structs.replace(claim(**matching), seal=bytes(64))
    assert "seal" in str(failure_of(unsealed, TERMS, worker)), "else it could never be convicted of fraud"
