"""The receipt of a settled job, from the evidence that its requester collected (DESIGN 9)."""

from __future__ import annotations

from typing import Any

from ..protocol.chain import Verdict
from ..protocol.errors import RemoteError
from ..protocol.receipt import Evidence, derived, encode_evidence, fee_split, sign_receipt
from ..protocol.units import base58
from .requester_record import JobRecord
from .wire import Wire


def build_receipt(record: JobRecord, wire: Wire, program: bytes) -> dict[str, Any] | None:
    """None when evidence is missing, which is told as trouble: without it nothing could be verified."""
    if record.outcome is None or record.announce is None or record.terms is None or record.account is None:
        return None
    outcome, account, terms = record.outcome.message, record.account, record.terms
    claim = record.claim.raw if record.claim is not None and outcome.verdict == Verdict.OK else b""
    evidence = Evidence(record.announce.raw, record.certificate, claim, record.outcome.raw)
    try:
        fields = derived(terms, evidence)
    except RemoteError as error:
        record.trouble(f"no receipt: {error}")
        return None
    started_ms = record.stages["submitted"]
    split = fee_split(outcome.price, outcome.units, account.units_total, account.fee_bps, account.verifier_share_bps)
    receipt = {
        "version": 1,
        "network": {"genesis": base58(wire.genesis), "program": base58(program)},
        "requester": base58(wire.me),
        "committee": [base58(node) for node in terms.committee],
        "open_slot": account.open_slot,
        "paid": {**split, "fee_bps": account.fee_bps, "verifier_share_bps": account.verifier_share_bps},
        "transactions": record.transactions,
        "timeline_ms": {name: at_ms - started_ms for name, at_ms in record.stages.items()},
        "completed_in_ms": record.stages["completed"] - started_ms,
        "evidence": encode_evidence(evidence),
        **fields,
    }
    return sign_receipt(receipt, wire.key)
