"""The receipt: one JSON file that verifies offline, years later, without us (DESIGN 9).

Its readable fields follow from signed evidence: announce, award certificate, claim, settlement signatures. `verify`
recomputes each from the evidence. What no quorum signs (timeline, transactions, balances) is covered by the requester's
signature over a digest per field, so that one flipped bit is found and the field named.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from .award import JobTerms, check_certificate, recompute
from .chain import Verdict
from .envelope import open_as
from .errors import CyxError, LocalError, RemoteError
from .evidence import Evidence as Evidence
from .evidence import decode_evidence, handed_on
from .evidence import encode_evidence as encode_evidence
from .hashing import job_id, leaf_chain, merkle_root
from .identity import KeyPair, verify
from .limits import FEE_BPS_MAX, QUORUMS
from .messages import AwardCertificate, Claim, InferenceClaim, JobAnnounce, Outcome, ResultClaim
from .settlement import quorum_for, result_hash, settlement_of, signers
from .units import NodeId, base58, parse_id

VERSION = 1
RECEIPT_MAX_BYTES = 4 * 1024 * 1024
SIGNED_DOMAIN = b"cyx/receipt/1"
FIELDS = (
    "version", "network", "job", "requester", "worker", "status", "reason", "committee", "open_slot", "price_micro_cyx",
    "paid", "result", "metrics", "verified_by", "transactions", "timeline_ms", "completed_in_ms", "evidence",
)  # fmt: skip


def fee_split(price: int, units: int, units_total: int, fee_bps: int, verifier_share_bps: int) -> dict[str, int]:
    """What a settlement pays, in micro-CYX: the program's own arithmetic."""
    amount = price * units // units_total
    fee = amount * fee_bps // 10_000
    verifiers = fee * verifier_share_bps // 10_000
    return {"amount": amount, "worker": amount - fee, "treasury": fee - verifiers, "verifiers": verifiers}


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the bytes that digests cover."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _digests(receipt: dict[str, Any]) -> dict[str, str]:
    return {name: sha256(canonical(receipt[name])).hexdigest() for name in FIELDS}


def sign_receipt(receipt: dict[str, Any], key: KeyPair) -> dict[str, Any]:
    """Complete a receipt that has all FIELDS with its digests and the requester's signature."""
    digests = _digests(receipt)
    signature = key.sign(SIGNED_DOMAIN + canonical(digests))
    return {**receipt, "digests": digests, "signature": signature.hex()}


def derived(terms: JobTerms, evidence: Evidence) -> dict[str, Any]:
    """All readable fields that follow from the evidence. RemoteError names the evidence that does not hold."""
    outcome = open_as(evidence.outcome, terms.genesis, Outcome).message
    settlement = settlement_of(outcome)
    quorum = sorted(signers(terms, outcome))
    needed = quorum_for(outcome.verdict, terms.announce.k)
    if outcome.job != terms.job or len(quorum) < needed:
        raise RemoteError(f"evidence.outcome: {len(quorum)} valid signatures, {needed} are needed")
    fields: dict[str, Any] = {
        "job": base58(terms.job),
        "status": settlement.verdict.name,
        "reason": outcome.reason,
        "worker": base58(outcome.worker) if outcome.worker != bytes(32) else "",
        "price_micro_cyx": settlement.price,
        "verified_by": [base58(node) for node in quorum],
        "result": {},
        "metrics": {},
    }
    if evidence.certificate:
        certificate = open_as(evidence.certificate, terms.genesis, AwardCertificate).message
        award = check_certificate(terms, certificate)
        entitled = (award.winner, award.price)
        for successor, _ in handed_on(terms, award.award, evidence):
            entitled = (successor.node, successor.price)
        if settlement.verdict in (Verdict.OK, Verdict.FRAUD) and entitled != (outcome.worker, outcome.price):
            source = "hand-overs" if evidence.handovers else "award"
            field = "evidence.handovers" if evidence.handovers else "evidence.certificate"
            raise RemoteError(f"{field}: the settlement names another worker or price than the {source}")
    elif evidence.handovers:
        raise RemoteError("evidence.handovers: there is no award to hand over")
    elif settlement.verdict is Verdict.OK:
        raise RemoteError("evidence.certificate: missing")
    if settlement.verdict is Verdict.OK:
        fields |= _result_fields(terms, evidence, outcome)
    return fields


def _result_fields(terms: JobTerms, evidence: Evidence, outcome: Outcome) -> dict[str, Any]:
    signed = open_as(evidence.claim, terms.genesis, Claim)
    claim = signed.message
    if signed.sender != outcome.worker or result_hash(claim) != outcome.result_hash or claim.job != terms.job:
        raise RemoteError("evidence.claim: not the result that the quorum signed")
    if len(claim.traces) != terms.announce.segments:
        raise RemoteError(f"evidence.claim: not one trace for each of {terms.announce.segments} segments")
    match claim:
        case ResultClaim() if terms.announce.kind == "train":
            return _training_fields(claim, outcome)
        case InferenceClaim() if terms.announce.kind == "infer":
            return _inference_fields(claim, outcome, terms.announce.units)
        case _:
            raise RemoteError("evidence.claim: the result of another kind of job")


def _training_fields(claim: ResultClaim, outcome: Outcome) -> dict[str, Any]:
    if len(claim.states) != len(claim.traces) + 1:
        raise RemoteError("evidence.claim: not one state for each segment's start and end")
    if merkle_root(leaf_chain(list(claim.states), list(claim.traces))) != claim.merkle_root:
        raise RemoteError("evidence.claim: the Merkle root does not follow from the leaves")
    return {
        "result": {
            "uri": claim.model_weights_uri,
            "sha256": claim.model_weights_hash.hex(),
            "bytes": claim.model_weights_bytes,
            "result_hash": outcome.result_hash.hex(),
            "merkle_root": claim.merkle_root.hex(),
        },
        "metrics": {
            "final_loss_micro": claim.final_loss_micro,
            "final_accuracy_micro": claim.final_accuracy_micro,
            "best_epoch": claim.best_epoch,
            "total_compute_time_ms": claim.total_compute_time_ms,
        },
    }


def _inference_fields(claim: InferenceClaim, outcome: Outcome, units_total: int) -> dict[str, Any]:
    if outcome.units != min(claim.units, units_total):
        raise RemoteError(f"evidence.claim: {claim.units} units of tokens, but {outcome.units} were settled")
    return {
        "result": {
            "uri": claim.result_uri,
            "sha256": claim.result_hash.hex(),
            "bytes": claim.result_bytes,
            "result_hash": outcome.result_hash.hex(),
        },
        "metrics": {
            "prompt_tokens": claim.prompt_tokens,
            "tokens_generated": claim.tokens_generated,
            "compute_time_ms": claim.compute_time_ms,
            "gpu_utilization_ppm": claim.gpu_utilization_ppm,
            "units": outcome.units,
            "units_total": units_total,
        },
    }


def load_receipt(data: bytes) -> dict[str, Any]:
    """Parse a receipt file; LocalError when it is not one."""
    if len(data) > RECEIPT_MAX_BYTES:
        raise LocalError(f"{len(data)} bytes, a receipt has at most {RECEIPT_MAX_BYTES}", field="receipt")
    try:
        receipt = json.loads(data)
    except (ValueError, RecursionError):
        raise LocalError("is not JSON", field="receipt", fix="fetch the file again") from None
    missing = [n for n in (*FIELDS, "digests", "signature") if not isinstance(receipt, dict) or n not in receipt]
    if missing:
        raise LocalError("is missing", field=f"receipt.{missing[0]}", fix="fetch the file again")
    unknown = sorted(set(receipt) - {*FIELDS, "digests", "signature"})
    if unknown or receipt["version"] != VERSION:
        raise LocalError("is unknown", field=f"receipt.{unknown[0] if unknown else 'version'}", fix="update cyxnode")
    return dict(receipt)


def verify_receipt(receipt: dict[str, Any]) -> list[str]:
    """Check every hash and signature with no network; returns what was checked, one line each.

    Raises LocalError whose `field` names the first field that does not hold.
    """
    try:
        return _verify(receipt)
    except LocalError:
        raise
    except CyxError as error:
        name, _, message = str(error).partition(": ")
        raise LocalError(message or name, field=f"receipt.{name}" if message else "receipt.evidence") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise LocalError(f"is malformed ({error})", field="receipt") from None


def _verify(receipt: dict[str, Any]) -> list[str]:
    _check_digests(receipt)
    terms, evidence = _open_evidence(receipt)
    expected = derived(terms, evidence)
    for name, value in expected.items():
        if receipt[name] != value:
            raise LocalError("does not follow from the evidence", field=f"receipt.{name}")
    paid, announce = receipt["paid"], terms.announce
    outcome = open_as(evidence.outcome, terms.genesis, Outcome).message
    fee_bps = _integer(paid["fee_bps"], "receipt.paid.fee_bps", FEE_BPS_MAX)
    share_bps = _integer(paid["verifier_share_bps"], "receipt.paid.verifier_share_bps", 10_000)
    split = fee_split(outcome.price, outcome.units, announce.units, fee_bps, share_bps)
    for name, value in split.items():
        if paid[name] != value:
            raise LocalError(f"is {paid[name]}, the settlement gives {value}", field=f"receipt.paid.{name}")
    lines = [
        f"requester's signature and {len(FIELDS)} field digests",
        f"job id follows from requester, nonce and spec hash: {receipt['job']}",
        f"settlement {receipt['status']} signed by {len(receipt['verified_by'])} of {announce.k} members",
    ]
    if evidence.certificate:
        lines += _award_lines(terms, evidence)
    if receipt["result"]:
        proven = "Merkle root of the leaves, weights hash" if announce.kind == "train" else "metered tokens"
        lines.append(f"result: worker's signature, result hash, {proven}")
    lines.append("fee split: worker, treasury and verifiers add up")
    return lines


def _award_lines(terms: JobTerms, evidence: Evidence) -> list[str]:
    certificate = open_as(evidence.certificate, terms.genesis, AwardCertificate).message
    award = recompute(terms, certificate.proposal)
    same = "the settlement follows its hand-overs" if evidence.handovers else "same winner, same price"
    lines = [f"award recomputed from signed bids and tallies: {same}"]
    for successor, agreed in handed_on(terms, award, evidence):
        lines.append(f"hand-over to {base58(successor.node)} signed by {agreed} of {terms.announce.k} members")
    return lines


def open_receipt(receipt: dict[str, Any]) -> tuple[JobTerms, Outcome]:
    """The terms and the settlement of a receipt that `verify_receipt` has passed."""
    terms, evidence = _open_evidence(receipt)
    return terms, open_as(evidence.outcome, terms.genesis, Outcome).message


def open_award(receipt: dict[str, Any]) -> tuple[JobTerms, bytes]:
    """The terms and the award certificate, empty when there was no award, of a receipt that `verify_receipt` has
    passed."""
    terms, evidence = _open_evidence(receipt)
    return terms, evidence.certificate


def _integer(value: object, field: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise LocalError(f"is not an integer from 0 to {most}", field=field)
    return value


def _check_digests(receipt: dict[str, Any]) -> None:
    actual = _digests(receipt)
    for name in FIELDS:
        if receipt["digests"].get(name) != actual[name]:
            raise LocalError("was changed after the receipt was signed", field=f"receipt.{name}")
    if set(receipt["digests"]) != set(FIELDS):
        raise LocalError("names other fields", field="receipt.digests")
    requester = parse_id(receipt["requester"], field="receipt.requester")
    signature = bytes.fromhex(receipt["signature"])
    if receipt["signature"] != signature.hex():
        raise LocalError("is not in lower case hexadecimal", field="receipt.signature")
    if not verify(requester, SIGNED_DOMAIN + canonical(receipt["digests"]), signature):
        raise LocalError("does not hold over the digests", field="receipt.signature")


def _open_evidence(receipt: dict[str, Any]) -> tuple[JobTerms, Evidence]:
    evidence = decode_evidence(receipt["evidence"])
    genesis = parse_id(receipt["network"]["genesis"], field="receipt.network.genesis")
    try:
        signed = open_as(evidence.announce, genesis, JobAnnounce)
    except RemoteError as error:
        raise LocalError(str(error), field="receipt.evidence.announce") from None
    announce = signed.message
    requester = parse_id(receipt["requester"], field="receipt.requester")
    if signed.sender != requester:
        raise LocalError("did not sign the announce", field="receipt.requester")
    if announce.job != job_id(NodeId(requester), announce.nonce, announce.spec_hash):
        raise LocalError("does not follow from requester, nonce and spec hash", field="receipt.job")
    if base58(announce.program) != receipt["network"]["program"]:
        raise LocalError("is not the announced program", field="receipt.network.program")
    committee = tuple(NodeId(parse_id(text, field="receipt.committee")) for text in receipt["committee"])
    if len(set(committee)) != announce.k or announce.k not in QUORUMS:
        raise LocalError(f"has not {announce.k} members", field="receipt.committee")
    open_slot = _integer(receipt["open_slot"], "receipt.open_slot", 2**63 - 1)
    return JobTerms(genesis, announce, open_slot, committee), evidence
