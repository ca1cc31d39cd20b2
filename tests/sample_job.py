"""One whole job as evidence: announce, certificate, claim and outcome, signed by fixed keys; and its receipt."""

from __future__ import annotations

from typing import Any

import msgspec

from cyxnode.protocol import codec
from cyxnode.protocol.award import JobTerms, award_message, recompute
from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.hashing import bid_digest, job_id, leaf_chain, merkle_root
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import (
    AwardCertificate,
    AwardVote,
    BidderRecord,
    BidReveal,
    Outcome,
    Proposal,
    ResultClaim,
    Tally,
)
from cyxnode.protocol.receipt import VERSION, Evidence, derived, encode_evidence, fee_split, sign_receipt
from cyxnode.protocol.settlement import NO_RESULT, NOBODY, Settlement, result_hash, sealed, settle_message
from cyxnode.protocol.units import NodeId, base58
from sample_messages import ANNOUNCE, BID, GENESIS, KEY, MESSAGES, run

MEMBERS = [KeyPair(bytes([i]) * 32) for i in (1, 2, 3)]
WORKER = KeyPair(b"w" * 32)
JOB = job_id(KEY.node_id, ANNOUNCE.nonce, ANNOUNCE.spec_hash)
OPENING = msgspec.structs.replace(ANNOUNCE, job=JOB, segments=4)
TERMS = JobTerms(GENESIS, OPENING, open_slot=77, committee=tuple(key.node_id for key in MEMBERS))
STATES, TRACES = [run(i) for i in range(5)], [run(50 + i) for i in range(4)]


def claim(**changes: object) -> ResultClaim:
    sample = next(message for message in MESSAGES if isinstance(message, ResultClaim))
    honest = msgspec.structs.replace(
        sample,
        job=JOB,
        states=tuple(STATES),
        traces=tuple(TRACES),
        merkle_root=merkle_root(leaf_chain(STATES, TRACES)),
    )
    return sealed(TERMS, WORKER, msgspec.structs.replace(honest, **changes))


def certificate(*others: tuple[KeyPair, int]) -> AwardCertificate:
    """The worker's bid, and those of others at their prices, listed by all members, awarded by all."""
    offers = [(WORKER, BID.price), *others]
    bids = [(key, codec.encode(msgspec.structs.replace(BID, price=price))) for key, price in offers]
    listed = tuple(sorted(bid_digest(JOB, key.node_id, bid) for key, bid in bids))
    proposal = codec.encode(
        Proposal(
            job=JOB,
            round=0,
            tallies=tuple(
                seal(member, GENESIS, Tally(job=JOB, bids=listed, nonce_commitment=run(9))) for member in MEMBERS
            ),
            reveals=tuple(seal(key, GENESIS, BidReveal(job=JOB, bid=bid, salt=run(8))) for key, bid in bids),
            records=tuple(BidderRecord(node=key.node_id, stake=10**9, reputation_ppm=0) for key, _ in bids),
        )
    )
    award = recompute(TERMS, proposal)
    votes = [
        AwardVote(
            job=JOB,
            round=0,
            digest=award.digest,
            signature=member.sign(award_message(TERMS, 0, award.digest)),
            nonce_commitment=run(9),
        )
        for member in MEMBERS
    ]
    sealed = tuple(seal(member, GENESIS, vote) for member, vote in zip(MEMBERS, votes, strict=True))
    return AwardCertificate(job=JOB, proposal=proposal, winner=award.winner or b"", price=award.price, votes=sealed)


def outcome(settlement: Settlement, signed_by: list[KeyPair], **changes: object) -> Outcome:
    honest = Outcome(
        job=JOB,
        verdict=settlement.verdict,
        worker=settlement.worker,
        price=settlement.price,
        units=settlement.units,
        result_hash=settlement.result_hash,
        fee_mask=settlement.fee_mask,
        round=0,
        signatures=tuple((key.node_id, key.sign(settle_message(TERMS, 0, settlement))) for key in signed_by),
        transaction="5" * 88,
        reason="",
    )
    return msgspec.structs.replace(honest, **changes)


AWARDED = certificate()
PAID = Settlement(Verdict.OK, WORKER.node_id, AWARDED.price, 4, result_hash(claim()), 0b011)
UNSOLD = Settlement(Verdict.UNSOLD, NOBODY, 0, 0, NO_RESULT, 0)


def evidence(settlement: Settlement = PAID, signed_by: list[KeyPair] = MEMBERS[:2]) -> Evidence:
    """What the parties signed; an unsold job has neither award nor result."""
    sold = settlement.verdict is Verdict.OK
    return Evidence(
        announce=seal(KEY, GENESIS, OPENING),
        certificate=seal(MEMBERS[0], GENESIS, AWARDED) if sold else b"",
        claim=seal(WORKER, GENESIS, claim()) if sold else b"",
        outcome=seal(MEMBERS[0], GENESIS, outcome(settlement, signed_by)),
    )


def unsigned(settlement: Settlement = PAID) -> dict[str, Any]:
    """All fields of an honest receipt."""
    split = fee_split(settlement.price, settlement.units, OPENING.segments, 1_000, 2_000)
    return {
        "version": VERSION,
        "network": {"genesis": base58(GENESIS), "program": base58(OPENING.program)},
        "requester": base58(KEY.node_id),
        "committee": [base58(node) for node in TERMS.committee],
        "open_slot": TERMS.open_slot,
        "paid": {"fee_bps": 1_000, "verifier_share_bps": 2_000, **split},
        "transactions": {"open_job": "5" * 88},
        "timeline_ms": {"announced": 0, "paid": 9_000},
        "completed_in_ms": 9_000,
        "evidence": encode_evidence(evidence(settlement)),
        **derived(TERMS, evidence(settlement)),
    }


def signed(key: KeyPair = KEY, settlement: Settlement = PAID, **changes: Any) -> dict[str, Any]:
    """An honest receipt, or one in which the signer itself lies about some fields."""
    return sign_receipt({**unsigned(settlement), **changes}, key)


def with_evidence(**parts: bytes) -> dict[str, Any]:
    """A receipt whose requester replaced parts of the evidence, and signed that."""
    honest = evidence()
    kept = {name: getattr(honest, name) for name in ("announce", "certificate", "claim", "outcome")}
    return signed(evidence=encode_evidence(Evidence(**{**kept, **parts})))


def node_named(number: int) -> NodeId:
    """Some node that has no part in the job."""
    return KeyPair(bytes([100 + number]) * 32).node_id
