"""Properties of the agreed hashes: what is bound to what, and what the chain of leaves and the draw promise."""

from __future__ import annotations

import struct
from hashlib import sha256

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.protocol import hashing
from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.hashing import QuorumKind
from cyxnode.protocol.units import JobId, NodeId

JOB, NODE = JobId(b"j" * 32), NodeId(b"n" * 32)
ids = st.binary(min_size=32, max_size=32)


def flipped(data: bytes, index: int = 0) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


def test_a_committee_signs_forty_bytes() -> None:
    message = hashing.quorum_message(QuorumKind.SETTLE, 4, 513, b"c" * 32, b"d" * 32)
    assert message[:8] == b"CYX1\x03\x04\x01\x02"
    assert message[8:] == sha256(b"c" * 32 + b"d" * 32).digest()
    assert len(message) == 40


def test_votes_that_contradict_share_their_first_eight_bytes() -> None:
    one, two = (hashing.quorum_message(QuorumKind.AWARD, 0, 1, b"c" * 32, d * 32) for d in (b"x", b"y"))
    assert one[:8] == two[:8]
    assert one != two


@pytest.mark.parametrize(("sequence", "round_"), [(256, 0), (-1, 0), (0, 65_536), (0, -1)])
def test_a_quorum_message_cannot_wrap_around(sequence: int, round_: int) -> None:
    with pytest.raises(struct.error):
        hashing.quorum_message(QuorumKind.SETTLE, sequence, round_, bytes(32), bytes(32))


def test_a_settlement_is_bound_to_each_of_its_fields() -> None:
    base = (Verdict.OK, b"w" * 32, 5, 6, b"r" * 32, 7)
    others = [(Verdict.FAILED, b"x" * 32, 6, 7, b"s" * 32, 8)]
    digests = {hashing.settle_digest(*base)}
    for position in range(len(base)):
        digests.add(hashing.settle_digest(*base[:position], others[0][position], *base[position + 1 :]))
    assert len(digests) == len(base) + 1


def test_no_two_domains_give_one_hash_of_the_same_content() -> None:
    salt, content = b"s" * 32, b"content"
    hashes = [
        hashing.job_id(NODE, salt, JOB),
        hashing.bid_commitment(JOB, NODE, salt, content),
        hashing.verdict_commitment(JOB, NODE, salt, content),
        hashing.bid_digest(JOB, NODE, salt + content),
        hashing.nonce_commitment(JOB, NODE, salt + content),
        hashing.trace_commitment(salt, content),
    ]
    assert len(set(hashes)) == len(hashes)


def test_an_envelope_message_is_one_sentence_only() -> None:
    assert hashing.envelope_message(b"g" * 32, "Bid", b"X") != hashing.envelope_message(b"g" * 32, "BidX", b"")


def test_a_sealed_bid_opens_only_with_its_own_parts() -> None:
    parts = (JOB, NODE, b"s" * 32, b"bid")
    sealed = hashing.bid_commitment(*parts)
    for position in range(4):
        changed = list(parts)
        changed[position] = flipped(changed[position])
        assert hashing.bid_commitment(*changed) != sealed


@given(ids, ids, ids, st.integers(1, 128), st.integers(1, 16))
def test_samples_are_distinct_sorted_and_in_range(job: bytes, node: bytes, nonce: bytes, n: int, samples: int) -> None:
    drawn = hashing.sample_segments(JobId(job), NodeId(node), nonce, n, samples)
    assert len(drawn) == min(n, samples)
    assert drawn == sorted(set(drawn))
    assert all(0 <= segment < n for segment in drawn)
    assert drawn == hashing.sample_segments(JobId(job), NodeId(node), nonce, n, samples)


def test_samples_follow_from_job_member_and_nonce_together() -> None:
    parts = (JOB, NODE, b"s" * 32)
    base = hashing.sample_segments(*parts, 128, 16)
    for position in range(3):
        changed = list(parts)
        changed[position] = flipped(changed[position])
        assert hashing.sample_segments(*changed, 128, 16) != base


def test_every_segment_can_be_drawn() -> None:
    seen: set[int] = set()
    for nonce in range(200):
        seen.update(hashing.sample_segments(JOB, NODE, nonce.to_bytes(32, "big"), 16, 2))
    assert seen == set(range(16))


def chain(n: int) -> tuple[list[bytes], list[bytes]]:
    return [bytes([i]) * 32 for i in range(n + 1)], [bytes([100 + i]) * 32 for i in range(n)]


@given(st.integers(1, 12), st.data())
def test_a_changed_state_or_trace_changes_every_later_leaf_and_no_earlier_one(n: int, data: st.DataObject) -> None:
    states, traces = chain(n)
    honest = hashing.leaf_chain(states, traces)
    segment = data.draw(st.integers(0, n - 1))
    if data.draw(st.booleans()):
        states[segment + 1] = flipped(states[segment + 1])
    else:
        traces[segment] = flipped(traces[segment])
    forged = hashing.leaf_chain(states, traces)
    assert forged[: segment + 1] == honest[: segment + 1]
    assert all(a != b for a, b in zip(forged[segment + 1 :], honest[segment + 1 :], strict=True))
    assert hashing.merkle_root(forged) != hashing.merkle_root(honest)


@pytest.mark.parametrize(("states", "traces"), [(3, 3), (3, 1)])
def test_a_chain_with_a_missing_part_is_no_chain(states: int, traces: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        hashing.leaf_chain([bytes(32)] * states, [bytes(32)] * traces)


def test_the_root_is_the_tree_that_the_law_describes() -> None:
    a, b, c = (bytes([i]) * 32 for i in range(3))

    def leaf(x: bytes) -> bytes:
        return blake3(b"\0" + x).digest()

    def inner(x: bytes, y: bytes) -> bytes:
        return blake3(b"\1" + x + y).digest()

    assert hashing.merkle_root([a]) == leaf(a)
    assert hashing.merkle_root([a, b]) == inner(leaf(a), leaf(b))
    assert hashing.merkle_root([a, b, c]) == inner(inner(leaf(a), leaf(b)), leaf(c))


@given(st.lists(ids, min_size=2, max_size=20, unique=True), st.data())
def test_a_root_depends_on_every_leaf_and_on_their_order(leaves: list[bytes], data: st.DataObject) -> None:
    root = hashing.merkle_root(leaves)
    i = data.draw(st.integers(0, len(leaves) - 1))
    assert hashing.merkle_root([*leaves[:i], flipped(leaves[i]), *leaves[i + 1 :]]) != root
    assert hashing.merkle_root(leaves[::-1]) != root
    assert hashing.merkle_root([*leaves, leaves[-1]]) != root
    assert hashing.merkle_root(leaves[:-1]) != root


def test_a_copied_replay_proves_nothing_for_another_member() -> None:
    traces = [b"loss" * 4, b"bits" * 4]
    assert hashing.trace_digest(NODE, traces) != hashing.trace_digest(NodeId(b"m" * 32), traces)
    assert hashing.trace_digest(NODE, traces) != hashing.trace_digest(NODE, traces[::-1])
    assert hashing.trace_digest(NODE, [b"ab", b"c"]) != hashing.trace_digest(NODE, [b"a", b"bc"])
