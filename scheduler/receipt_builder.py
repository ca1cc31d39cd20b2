"""The receipt of a settled job, from the evidence that its requester collected (DESIGN 9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..protocol.award import JobTerms
from ..protocol.chain import Verdict
from ..protocol.envelope import open_as
from ..protocol.errors import RemoteError
from ..protocol.messages import Outcome
from ..protocol.receipt import Evidence, derived, encode_evidence, fee_split, sign_receipt
from ..protocol.units import base58
from .requester_record import JobRecord
from .wire import Wire


@dataclass(frozen=True, slots=True)
class ReceiptParts:
    """What a receipt is made of. `stages` are Unix ms and hold `submitted` and `completed`."""

    terms: JobTerms
    evidence: Evidence
    units_total: int
    fee_bps: int
    verifier_share_bps: int
    stages: Mapping[str, int]
    transactions: Mapping[str, str]


def build_receipt(record: JobRecord, wire: Wire, program: bytes) -> dict[str, Any] | None:
    """None when evidence is missing, which is told as trouble: without it nothing could be verified."""
    if record.outcome is None or record.announce is None or record.terms is None or record.account is None:
        return None
    account, outcome = record.account, record.outcome.message
    claim = record.signed_claim() if outcome.verdict == Verdict.OK else None
    evidence = Evidence(
        record.announce.raw,
        record.certificate,
        claim.raw if claim is not None else b"",
        record.outcome.raw,
        record.handovers_to(outcome.worker),
    )
    fees = (account.units_total, account.fee_bps, account.verifier_share_bps)
    try:
        return compose(ReceiptParts(record.terms, evidence, *fees, record.stages, record.transactions), wire, program)
    except RemoteError as error:
        record.trouble(f"no receipt: {error}")
        return None


def compose(parts: ReceiptParts, wire: Wire, program: bytes) -> dict[str, Any]:
    """The signed receipt; RemoteError names the evidence that does not hold."""
    fields, terms = derived(parts.terms, parts.evidence), parts.terms
    outcome = open_as(parts.evidence.outcome, terms.genesis, Outcome).message
    started_ms = parts.stages["submitted"]
    split = fee_split(outcome.price, outcome.units, parts.units_total, parts.fee_bps, parts.verifier_share_bps)
    receipt = {
        "version": 1,
        "network": {"genesis": base58(wire.genesis), "program": base58(program)},
        "requester": base58(wire.me),
        "committee": [base58(node) for node in terms.committee],
        "open_slot": terms.open_slot,
        "paid": {**split, "fee_bps": parts.fee_bps, "verifier_share_bps": parts.verifier_share_bps},
        "transactions": dict(parts.transactions),
        "timeline_ms": {name: at_ms - started_ms for name, at_ms in parts.stages.items()},
        "completed_in_ms": parts.stages["completed"] - started_ms,
        "evidence": encode_evidence(parts.evidence),
        **fields,
    }
    return sign_receipt(receipt, wire.key)
