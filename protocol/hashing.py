"""Every hash that two parties must agree on, with its domain (DESIGN 2, 5, 7, 8).

What a chain must check uses sha256; state leaves use blake3. Integers are little-endian, as on Solana.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from hashlib import sha256

from blake3 import blake3

from .chain import Verdict
from .units import JobId, NodeId

ENVELOPE_DOMAIN = b"cyx/1/"


class QuorumKind(IntEnum):
    """Kinds of statement. A member never signs two that differ in one sequence and round; CLAIM is the worker's."""

    AWARD = 1
    HANDOVER = 2
    SETTLE = 3
    CLAIM = 4


def envelope_message(genesis: bytes, kind: str, body: bytes) -> bytes:
    """The bytes that an envelope's signature covers: bound to one network and one kind."""
    name = kind.encode()
    return ENVELOPE_DOMAIN + genesis + bytes([len(name)]) + name + body


def job_id(requester: NodeId, nonce: bytes, spec_hash: bytes) -> JobId:
    """32 bytes; exists before the escrow that it names."""
    return JobId(sha256(b"cyx/job" + requester + nonce + spec_hash).digest())


def bid_commitment(job: JobId, bidder: NodeId, salt: bytes, bid: bytes) -> bytes:
    """What a sealed bid publishes. `salt` is 32 random bytes, `bid` the encoded Bid."""
    return sha256(b"cyx/bid" + job + bidder + salt + bid).digest()


def bid_digest(job: JobId, bidder: NodeId, bid: bytes) -> bytes:
    """Name of a revealed bid in tallies and rankings."""
    return sha256(b"cyx/bid-digest" + job + bidder + bid).digest()


def seat_ticket(slot_hash: bytes, job: JobId, node: NodeId) -> int:
    """The lottery number of a node for a job: the lowest k tickets sit (DESIGN 8)."""
    return int.from_bytes(sha256(b"cyx/seat" + slot_hash + job + node).digest()[:8], "little")


def quorum_context(genesis: bytes, program: bytes, job: JobId, open_slot: int) -> bytes:
    """What every committee signature of one job is bound to."""
    return sha256(genesis + program + job + struct.pack("<Q", open_slot)).digest()


def quorum_message(kind: QuorumKind, sequence: int, round_: int, context: bytes, digest: bytes) -> bytes:
    """The 40 bytes that a committee member signs (DESIGN 8)."""
    return b"CYX1" + struct.pack("<BBH", kind, sequence, round_) + sha256(context + digest).digest()


def claim_message(sequence: int, context: bytes, result_hash: bytes) -> bytes:
    """What a worker signs beside its claim, so that the escrow program can convict it of fraud."""
    return quorum_message(QuorumKind.CLAIM, sequence, 0, context, result_hash)


def settle_digest(verdict: Verdict, worker: bytes, price: int, units: int, result_hash: bytes, fee_mask: int) -> bytes:
    """Digest of a settlement; the program recomputes it from the instruction's own fields."""
    return sha256(
        b"cyx/settle"
        + struct.pack("<B", verdict)
        + worker
        + struct.pack("<QI", price, units)
        + result_hash
        + struct.pack("<B", fee_mask)
    ).digest()


def award_digest(job: JobId, proposal: bytes, ranking: list[bytes], price: int) -> bytes:
    """Digest of an award: the encoded proposal, the bid digests in rank order, the winner's price."""
    return sha256(
        b"cyx/award" + job + sha256(proposal).digest() + b"".join(ranking) + struct.pack("<Q", price)
    ).digest()


def handover_digest(job: JobId, award: bytes, rank: int, from_leaf: int, successor: bytes, price: int) -> bytes:
    """Digest of a hand-over under the award with digest `award`: who works from leaf `from_leaf` on, at what price."""
    return sha256(
        b"cyx/handover" + job + award + struct.pack("<BI", rank, from_leaf) + successor + struct.pack("<Q", price)
    ).digest()


def membership_digest(nodes: Iterable[bytes]) -> bytes:
    """Who is heard in a cell, whatever the order; a heartbeat's author counts itself."""
    return sha256(b"cyx/members" + b"".join(sorted(nodes))).digest()


def nonce_commitment(job: JobId, member: NodeId, nonce: bytes) -> bytes:
    """A member's promise, made with its award vote, of the nonce that draws its samples."""
    return sha256(b"cyx/nonce" + job + member + nonce).digest()


def verdict_commitment(job: JobId, member: NodeId, nonce: bytes, verdict: bytes) -> bytes:
    """A member's sealed verdict. `verdict` is the encoded VerdictBody with the digest of its replayed traces."""
    return sha256(b"cyx/verdict" + job + member + nonce + verdict).digest()


def sample_segments(job: JobId, member: NodeId, nonce: bytes, segments: int, samples: int) -> list[int]:
    """The distinct segments that a member replays, drawn by its committed nonce, in ascending order."""
    chosen: list[int] = []
    counter = 0
    while len(chosen) < min(samples, segments):
        seed = sha256(b"cyx/sample" + job + member + nonce + struct.pack("<I", counter)).digest()
        segment = int.from_bytes(seed[:8], "little") % segments
        if segment not in chosen:
            chosen.append(segment)
        counter += 1
    return sorted(chosen)


def trace_commitment(salt: bytes, losses: bytes) -> bytes:
    """Hides a segment's per-step float32 losses until every verdict is committed (DESIGN 7)."""
    return blake3(b"cyx/trace" + salt + losses).digest()


def trace_digest(member: NodeId, traces: list[bytes]) -> bytes:
    """Proof that a member replayed its samples: bound to its key, so that a copied verdict proves nothing."""
    inner = b"".join(blake3(trace).digest() for trace in traces)
    return blake3(b"cyx/replayed" + member + inner).digest()


def first_leaf(state: bytes) -> bytes:
    """Leaf 0: the state that follows from the seed."""
    return blake3(b"cyx/leaf0" + state).digest()


def next_leaf(previous: bytes, state: bytes, trace: bytes) -> bytes:
    """Leaf i: chained to the one before, with the state hash and the trace commitment of segment i."""
    return blake3(b"cyx/leaf" + previous + state + trace).digest()


def leaf_chain(states: list[bytes], traces: list[bytes]) -> list[bytes]:
    """All leaves from n + 1 state hashes and n trace commitments."""
    leaves = [first_leaf(states[0])]
    for state, trace in zip(states[1:], traces, strict=True):
        leaves.append(next_leaf(leaves[-1], state, trace))
    return leaves


def merkle_root(leaves: list[bytes]) -> bytes:
    """Root over the leaves; an odd node is carried up. Leaf and inner hashes have different prefixes."""
    level = [blake3(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        paired = [blake3(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = paired + level[len(paired) * 2 :]
    return level[0]
