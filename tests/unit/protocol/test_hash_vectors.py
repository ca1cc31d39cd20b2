"""Every agreed hash of fixed inputs, frozen: a changed byte here is a fork of the network.

A failure lists the names whose value changed, with the new value beside the frozen one. `vectors/hashing.json` is
changed by hand, and only when the protocol's version changes with it.
"""

from __future__ import annotations

import json
from pathlib import Path

from cyxnode.protocol import hashing
from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.hashing import QuorumKind
from cyxnode.protocol.units import JobId, NodeId

VECTORS = Path(__file__).parents[2] / "vectors" / "hashing.json"


def run(first: int, count: int = 32) -> bytes:
    """`count` rising bytes from `first`."""
    return bytes((first + i) % 256 for i in range(count))


JOB, NODE, OTHER = JobId(run(0)), NodeId(run(32)), NodeId(run(64))
NONCE, SPEC, GENESIS, PROGRAM, SLOT, RESULT = run(96), run(128), run(160), run(192), run(224), run(7)


def current() -> dict[str, str]:
    context = hashing.quorum_context(GENESIS, PROGRAM, JOB, 123_456_789_012)
    settle = hashing.settle_digest(Verdict.OK, NODE, 1_234_567, 128, RESULT, 0b101)
    leaves = hashing.leaf_chain([run(i) for i in range(6)], [run(100 + i) for i in range(5)])
    values = {
        "envelope_message": hashing.envelope_message(GENESIS, "BidCommit", b"body"),
        "job_id": hashing.job_id(NODE, NONCE, SPEC),
        "bid_commitment": hashing.bid_commitment(JOB, NODE, NONCE, b"bid"),
        "bid_digest": hashing.bid_digest(JOB, NODE, b"bid"),
        "quorum_context": context,
        "quorum_message.award": hashing.quorum_message(QuorumKind.AWARD, 0, 2, context, RESULT),
        "quorum_message.handover": hashing.quorum_message(QuorumKind.HANDOVER, 3, 1, context, RESULT),
        "quorum_message.settle": hashing.quorum_message(QuorumKind.SETTLE, 255, 65_535, context, settle),
        "settle_digest.ok": settle,
        "settle_digest.failed": hashing.settle_digest(Verdict.FAILED, OTHER, 2**63, 2**32 - 1, RESULT, 127),
        "settle_digest.unsold": hashing.settle_digest(Verdict.UNSOLD, bytes(32), 0, 0, bytes(32), 0),
        "award_digest": hashing.award_digest(JOB, b"proposal", [run(1), run(2)], 1_234_567),
        "award_digest.empty": hashing.award_digest(JOB, b"", [], 0),
        "handover_digest": hashing.handover_digest(JOB, RESULT, 1, 0, NODE, 1_234_567),
        "nonce_commitment": hashing.nonce_commitment(JOB, NODE, NONCE),
        "membership_digest": hashing.membership_digest([OTHER, NODE]),
        "membership_digest.alone": hashing.membership_digest([NODE]),
        "verdict_commitment": hashing.verdict_commitment(JOB, NODE, NONCE, b"verdict"),
        "trace_commitment": hashing.trace_commitment(NONCE, bytes(16)),
        "trace_digest": hashing.trace_digest(NODE, [bytes(4), bytes(8)]),
        "first_leaf": hashing.first_leaf(run(1)),
        "next_leaf": hashing.next_leaf(run(1), run(2), run(3)),
        "leaf_chain.last": leaves[-1],
        "merkle_root.1": hashing.merkle_root(leaves[:1]),
        "merkle_root.2": hashing.merkle_root(leaves[:2]),
        "merkle_root.5": hashing.merkle_root(leaves[:5]),
        "merkle_root.6": hashing.merkle_root(leaves),
    }
    numbers: dict[str, object] = {
        "seat_ticket": hashing.seat_ticket(SLOT, JOB, NODE),
        "sample_segments.2_of_128": hashing.sample_segments(JOB, NODE, NONCE, 128, 2),
        "sample_segments.16_of_20": hashing.sample_segments(JOB, NODE, NONCE, 20, 16),
    }
    return {name: value.hex() for name, value in values.items()} | {k: str(v) for k, v in numbers.items()}


def test_no_hash_has_changed() -> None:
    assert current() == json.loads(VECTORS.read_text())
