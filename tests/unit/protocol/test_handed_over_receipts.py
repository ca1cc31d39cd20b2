"""The receipt of a job that others took over: from the award by its hand-overs to the worker that was paid."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from cyxnode.protocol.award import Award, recompute
from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.errors import LocalError, RemoteError
from cyxnode.protocol.evidence import Evidence, decode_evidence, encode_evidence
from cyxnode.protocol.handover import Successor, digest_of, handover_message, ladder
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import HANDOVERS_MAX
from cyxnode.protocol.messages import HandoverCertificate
from cyxnode.protocol.receipt import derived, fee_split, load_receipt, sign_receipt, verify_receipt
from cyxnode.protocol.settlement import NO_RESULT, Settlement, result_hash, sealed
from sample_job import AWARDED, MEMBERS, OPENING, TERMS, certificate, claim, evidence, outcome, unsigned
from sample_messages import BID, GENESIS, KEY

NEXT, LAST = KeyPair(b"n" * 32), KeyPair(b"l" * 32)
CERTIFICATE = certificate((NEXT, BID.price + 1_000), (LAST, BID.price + 2_000))
AWARD = recompute(TERMS, CERTIFICATE.proposal)
STEPS = ladder(TERMS.announce, AWARD)


def handed_over(step: Successor, under: Award = AWARD, count: int = 2, **changes: Any) -> bytes:
    """The envelope of a hand-over, signed by `count` members, and what was changed after that."""
    message = handover_message(TERMS, step.rank, 0, digest_of(TERMS, under, step))
    said = HandoverCertificate(
        job=TERMS.job, award=under.digest, rank=step.rank, from_leaf=0, successor=step.node, price=step.price, round=0,
        signatures=tuple((key.node_id, key.sign(message)) for key in MEMBERS[:count]), reason="silence",
    )  # fmt: skip
    return seal(MEMBERS[0], GENESIS, msgspec.structs.replace(said, **changes))


def paid(step: Successor, key: KeyPair, *handovers: bytes, verdict: Verdict = Verdict.OK, price: int = 0) -> Evidence:
    """The node of a rank is settled with, after these hand-overs."""
    result = sealed(TERMS, key, claim())
    good = verdict is Verdict.OK
    settlement = Settlement(
        verdict, step.node, price or (step.price if good else 0), 4 if good else 0,
        result_hash(result) if good else NO_RESULT, 0b011 if good else 0,
    )  # fmt: skip
    return Evidence(
        announce=seal(KEY, GENESIS, OPENING),
        certificate=seal(MEMBERS[0], GENESIS, CERTIFICATE),
        claim=seal(key, GENESIS, result) if good else b"",
        outcome=seal(MEMBERS[0], GENESIS, outcome(settlement, MEMBERS[:2])),
        handovers=handovers,
    )


def receipt_of(found: Evidence, **changes: Any) -> dict[str, Any]:
    """A receipt over evidence; what does not follow from it is what an honest one has, or changed."""
    fields = unsigned()
    try:
        fields |= derived(TERMS, found)
    except RemoteError:
        """It will not verify: that is what the test wants to see."""
    split = fee_split(fields["price_micro_cyx"], 4 if fields["result"] else 0, OPENING.segments, 1_000, 2_000)
    fields |= {"evidence": encode_evidence(found), "paid": {**fields["paid"], **split}}
    return sign_receipt({**fields, **changes}, KEY)


def refused(receipt: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(LocalError, match=why) as caught:
        verify_receipt(receipt)
    assert caught.value.field == field


GOOD = receipt_of(paid(STEPS[1], NEXT, handed_over(STEPS[1])))


def test_the_worker_that_took_over_is_paid_its_own_price() -> None:
    lines = verify_receipt(load_receipt(json.dumps(GOOD).encode()))
    assert any("hand-over to" in line and "signed by 2 of 3 members" in line for line in lines)
    assert GOOD["price_micro_cyx"] == STEPS[1].price > BID.price
    assert verify_receipt(receipt_of(paid(STEPS[2], LAST, handed_over(STEPS[1]), handed_over(STEPS[2]))))


def test_an_earlier_hand_over_may_be_missing() -> None:
    """A requester that slept through it needs it for nothing."""
    assert verify_receipt(receipt_of(paid(STEPS[2], LAST, handed_over(STEPS[2]))))


def test_receipts_without_hand_overs_have_the_evidence_that_they_always_had() -> None:
    assert set(encode_evidence(evidence())) == {"announce", "certificate", "claim", "outcome"}
    assert decode_evidence(encode_evidence(evidence())) == evidence()
    both = paid(STEPS[1], NEXT, handed_over(STEPS[1]))
    assert decode_evidence(encode_evidence(both)) == both


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (paid(STEPS[1], NEXT, handed_over(STEPS[1], count=1)), "1 valid signatures, 2 are needed"),
        (paid(STEPS[1], NEXT, handed_over(STEPS[1], price=STEPS[1].price + 1)), "another successor or price"),
        (paid(STEPS[1], NEXT, handed_over(STEPS[1], rank=2)), "another successor or price"),
        (paid(STEPS[1], NEXT, handed_over(STEPS[1], award=bytes(32))), "another job or award"),
        (paid(STEPS[1], NEXT, b"no envelope"), "."),
        (paid(STEPS[2], LAST, handed_over(STEPS[2]), handed_over(STEPS[1])), "not in the order"),
        (paid(STEPS[2], LAST, handed_over(STEPS[1])), "another worker or price than the hand-overs"),
        (paid(STEPS[0], LAST, handed_over(STEPS[1])), "another worker or price than the hand-overs"),
        (paid(STEPS[1], NEXT, handed_over(STEPS[1]), price=STEPS[0].price), "another worker or price"),
        (replace(paid(STEPS[1], NEXT, handed_over(STEPS[1])), certificate=b""), "no award to hand over"),
    ],
)
def test_a_broken_chain_is_named(bad: Evidence, why: str) -> None:
    refused(receipt_of(bad), "receipt.evidence.handovers", why)


def test_who_took_over_needs_its_hand_over() -> None:
    refused(receipt_of(paid(STEPS[1], NEXT)), "receipt.evidence.certificate", "another worker or price than the award")


def test_a_hand_over_under_another_award_is_none_of_this_job() -> None:
    other = recompute(TERMS, AWARDED.proposal)
    step = replace(ladder(TERMS.announce, other)[0], rank=1)
    refused(receipt_of(paid(STEPS[1], NEXT, handed_over(step, other))), "receipt.evidence.handovers", "another job or")


def test_more_hand_overs_than_there_can_be() -> None:
    many = [base64.b64encode(handed_over(STEPS[1])).decode()] * (HANDOVERS_MAX + 1)
    bad = receipt_of(paid(STEPS[1], NEXT), evidence={**GOOD["evidence"], "handovers": many})
    refused(bad, "receipt.evidence.handovers", "more than")


@pytest.mark.parametrize("spoilt", ["text", 5, [5], ["no base64!"], {"a": "b"}])
def test_hand_overs_of_another_shape_are_malformed(spoilt: object) -> None:
    with pytest.raises(LocalError) as caught:
        verify_receipt(receipt_of(paid(STEPS[1], NEXT), evidence={**GOOD["evidence"], "handovers": spoilt}))
    assert caught.value.field.startswith("receipt")


def test_a_failure_after_the_last_rank_names_the_last_worker() -> None:
    failed = receipt_of(paid(STEPS[1], NEXT, handed_over(STEPS[1]), verdict=Verdict.FAILED))
    assert verify_receipt(failed) and failed["status"] == "FAILED" and failed["paid"]["amount"] == 0


@pytest.mark.slow
def test_one_flipped_bit_of_a_hand_over_is_noticed() -> None:
    (text,) = GOOD["evidence"]["handovers"]
    raw = base64.b64decode(text)
    for index in range(len(raw)):
        forged = bytearray(raw)
        forged[index] ^= 1 << index % 7
        handovers = [base64.b64encode(bytes(forged)).decode()]
        touched = {**GOOD, "evidence": {**GOOD["evidence"], "handovers": handovers}}
        refused(touched, "receipt.evidence", "changed after the receipt was signed")
        refused(receipt_of(paid(STEPS[1], NEXT, bytes(forged))), "receipt.evidence.handovers", ".")
