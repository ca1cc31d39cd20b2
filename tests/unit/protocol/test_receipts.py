"""A receipt verifies offline, names the field that was touched, and withstands a requester that lies in its own."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import ResultClaim
from cyxnode.protocol.receipt import FIELDS, fee_split, load_receipt, verify_receipt
from cyxnode.protocol.settlement import Settlement, result_hash
from cyxnode.protocol.units import base58
from sample_job import (
    AWARDED,
    MEMBERS,
    OPENING,
    PAID,
    STATES,
    UNSOLD,
    WORKER,
    claim,
    evidence,
    node_named,
    outcome,
    signed,
    unsigned,
    with_evidence,
)
from sample_messages import GENESIS, KEY

STRANGER = KeyPair(b"s" * 32)
HONEST = signed()


def refused(receipt: dict[str, Any], field: str, why: str = ".") -> None:
    with pytest.raises(LocalError, match=why) as caught:
        verify_receipt(receipt)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_an_honest_receipt_verifies_and_says_what_was_checked() -> None:
    lines = verify_receipt(load_receipt(json.dumps(HONEST).encode()))
    assert any("settlement OK signed by 2 of 3" in line for line in lines)
    assert any("award recomputed" in line for line in lines)
    assert any("Merkle root" in line for line in lines)


def test_an_unsold_job_has_a_receipt_too() -> None:
    lines = verify_receipt(signed(settlement=UNSOLD))
    assert any("settlement UNSOLD" in line for line in lines)
    assert not any("Merkle" in line for line in lines)


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_changed_afterwards_is_named(field: str) -> None:
    refused({**HONEST, field: "changed"}, f"receipt.{field}", "changed after the receipt was signed")


@pytest.mark.slow
def test_one_flipped_bit_anywhere_is_noticed() -> None:
    data = json.dumps(HONEST).encode()
    for index in range(len(data)):
        forged = bytearray(data)
        forged[index] ^= 1 << index % 7
        with pytest.raises(LocalError) as caught:
            verify_receipt(load_receipt(bytes(forged)))
        assert caught.value.field.startswith("receipt")


@pytest.mark.parametrize("receipt", [signed(key=STRANGER), {**HONEST, "signature": "00" * 64}])
def test_only_the_requester_signs_a_receipt(receipt: dict[str, Any]) -> None:
    refused(receipt, "receipt.signature")


@pytest.mark.parametrize("signature", [HONEST["signature"].upper(), HONEST["signature"] + " ", "no hex", 5])
def test_a_signature_has_one_text_form(signature: object) -> None:
    with pytest.raises(LocalError):
        verify_receipt({**HONEST, "signature": signature})


@pytest.mark.parametrize(
    ("field", "lie"),
    [
        ("job", base58(bytes(32))),
        ("worker", base58(node_named(1))),
        ("status", "FAILED"),
        ("reason", "all went well"),
        ("price_micro_cyx", 1),
        ("verified_by", [base58(MEMBERS[2].node_id)]),
        ("result", {}),
        ("metrics", {**HONEST["metrics"], "final_accuracy_micro": 999_999}),
    ],
)
def test_a_requester_cannot_lie_about_what_follows_from_evidence(field: str, lie: object) -> None:
    refused(signed(**{field: lie}), f"receipt.{field}", "does not follow from the evidence")


@pytest.mark.parametrize("part", ["amount", "worker", "treasury", "verifiers"])
def test_a_requester_cannot_lie_about_the_split(part: str) -> None:
    paid = HONEST["paid"]
    refused(signed(paid={**paid, part: paid[part] + 1}), f"receipt.paid.{part}", "the settlement gives")


def test_a_requester_cannot_name_another_committee() -> None:
    others = [base58(node_named(i)) for i in range(3)]
    refused(signed(committee=others), "receipt.evidence.outcome", "0 valid signatures, 2 are needed")
    refused(signed(committee=HONEST["committee"][:2]), "receipt.committee", "has not 3 members")
    refused(signed(committee=[HONEST["committee"][0]] * 3), "receipt.committee", "has not 3 members")


def test_evidence_is_bound_to_network_program_and_slot() -> None:
    network = HONEST["network"]
    refused(signed(network={**network, "genesis": base58(bytes(32))}), "receipt.evidence.announce")
    refused(signed(network={**network, "program": base58(bytes(32))}), "receipt.network.program")
    refused(signed(open_slot=78), "receipt.evidence.outcome", "0 valid signatures")


def test_one_signature_is_no_quorum() -> None:
    alone = evidence(signed_by=MEMBERS[:1]).outcome
    refused(with_evidence(outcome=alone), "receipt.evidence.outcome", "1 valid signatures, 2 are needed")


def test_the_announce_is_the_requesters_own() -> None:
    refused(with_evidence(announce=seal(STRANGER, GENESIS, OPENING)), "receipt.requester", "did not sign")


def test_the_announce_carries_the_id_that_follows_from_it() -> None:
    other = msgspec.structs.replace(OPENING, nonce=bytes(32))
    refused(with_evidence(announce=seal(KEY, GENESIS, other)), "receipt.job", "does not follow from requester")


def test_an_outcome_under_another_jobs_name() -> None:
    other = seal(MEMBERS[0], GENESIS, outcome(PAID, MEMBERS, job=bytes(32)))
    refused(with_evidence(outcome=other), "receipt.evidence.outcome")


def test_a_certificate_without_its_quorum() -> None:
    fewer = seal(MEMBERS[0], GENESIS, msgspec.structs.replace(AWARDED, votes=AWARDED.votes[:1]))
    refused(with_evidence(certificate=fewer), "receipt.evidence", "1 votes, 2 are needed")


def test_a_paid_job_needs_its_award() -> None:
    refused(with_evidence(certificate=b""), "receipt.evidence.certificate", "missing")


@pytest.mark.parametrize("change", [{"price": AWARDED.price - 1}, {"worker": node_named(1)}])
def test_a_settlement_pays_the_awarded_worker_the_awarded_price(change: dict[str, Any]) -> None:
    fields = {"worker": PAID.worker, "price": PAID.price} | change
    other = Settlement(Verdict.OK, fields["worker"], fields["price"], 4, PAID.result_hash, 0b011)
    bad = seal(MEMBERS[0], GENESIS, outcome(other, MEMBERS))
    refused(with_evidence(outcome=bad), "receipt.evidence.certificate", "another worker or price")


@pytest.mark.parametrize("key", [STRANGER, MEMBERS[0]])
def test_the_claim_is_the_workers_own(key: KeyPair) -> None:
    refused(with_evidence(claim=seal(key, GENESIS, claim())), "receipt.evidence.claim", "not the result")


def test_the_claim_is_the_one_that_the_quorum_signed() -> None:
    better = seal(WORKER, GENESIS, claim(final_accuracy_micro=999_999))
    refused(with_evidence(claim=better), "receipt.evidence.claim", "not the result")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (claim(states=tuple(STATES[::-1])), "Merkle root"),
        (claim(merkle_root=bytes(32)), "Merkle root"),
        (claim(states=(), traces=()), "4 segments"),
        (claim(states=tuple(STATES[:4])), "one state for each"),
        (claim(traces=claim().traces[:3]), "4 segments"),
    ],
    ids=["order", "root", "empty", "few states", "few traces"],
)
def test_the_root_follows_from_the_leaves_even_if_a_quorum_signed_otherwise(bad: ResultClaim, why: str) -> None:
    settlement = Settlement(Verdict.OK, WORKER.node_id, AWARDED.price, 4, result_hash(bad), 0b011)
    receipt = with_evidence(
        claim=seal(WORKER, GENESIS, bad), outcome=seal(MEMBERS[0], GENESIS, outcome(settlement, MEMBERS))
    )
    refused(receipt, "receipt.evidence.claim", why)


@pytest.mark.parametrize(
    "data", [b"", b"not json", b"[" * 100_000, b"null", b"[]", b'"text"', b"{}", b"\xff\xfe", b"1" * 5_000]
)
def test_what_is_no_receipt(data: bytes) -> None:
    with pytest.raises(LocalError) as caught:
        load_receipt(data)
    assert caught.value.field.startswith("receipt")


@pytest.mark.parametrize("field", [*FIELDS, "digests", "signature"])
def test_a_missing_field_is_named(field: str) -> None:
    rest = {name: value for name, value in HONEST.items() if name != field}
    with pytest.raises(LocalError, match="is missing") as caught:
        load_receipt(json.dumps(rest).encode())
    assert caught.value.field == f"receipt.{field}"


@pytest.mark.parametrize(("field", "value"), [("surprise", 1), ("version", 2), ("version", "1")])
def test_a_receipt_of_another_version_is_not_guessed_at(field: str, value: object) -> None:
    with pytest.raises(LocalError, match="is unknown") as caught:
        load_receipt(json.dumps({**HONEST, field: value}).encode())
    assert caught.value.field == f"receipt.{field}"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def all_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inner for found in all_paths(item, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.slow
@given(st.sampled_from([path for path in all_paths(unsigned()) if path]), json_values)
def test_a_requester_that_signs_nonsense_is_told_so(path: tuple[Any, ...], value: object) -> None:
    receipt = signed(**replaced(unsigned(), path, value))
    try:
        verify_receipt(receipt)
    except LocalError as error:
        assert error.field.startswith("receipt")


@pytest.mark.parametrize(
    "lies",
    [
        {"open_slot": -1},
        {"open_slot": 2**64},
        {"open_slot": float("inf")},
        {"open_slot": "77"},
        {"open_slot": []},
        {"paid": {**HONEST["paid"], "fee_bps": "10"}},
        {"paid": {**HONEST["paid"], "fee_bps": float("inf")}},
        {"paid": {**HONEST["paid"], "fee_bps": 10**400, "verifier_share_bps": 1.5}},
        {"paid": {**HONEST["paid"], "verifier_share_bps": []}},
        {"paid": []},
        {"committee": 5},
        {"committee": [[]] * 3},
        {"network": None},
        {"requester": 5},
        {"evidence": {}},
        {"evidence": {"announce": 5}},
        {"evidence": {**HONEST["evidence"], "outcome": "not base64!"}},
        {"evidence": {**HONEST["evidence"], "certificate": ""}},
    ],
    ids=lambda lies: json.dumps(lies)[:40],
)
def test_a_requester_that_signs_the_wrong_type_is_told_so(lies: dict[str, Any]) -> None:
    with pytest.raises(LocalError) as caught:
        verify_receipt(signed(**lies))
    assert caught.value.field.startswith("receipt")


@pytest.mark.parametrize("digests", [{}, [], None, "text", {**HONEST["digests"], "more": ""}])
def test_digests_of_other_fields(digests: object) -> None:
    with pytest.raises(LocalError) as caught:
        verify_receipt({**HONEST, "digests": digests})
    assert caught.value.field.startswith("receipt")


@given(st.integers(0, 2**50), st.integers(1, 128), st.integers(0, 1_000), st.integers(0, 10_000), st.data())
def test_a_split_gives_out_what_it_takes(price: int, total: int, fee: int, share: int, data: st.DataObject) -> None:
    units = data.draw(st.integers(0, total))
    split = fee_split(price, units, total, fee, share)
    assert all(part >= 0 for part in split.values())
    assert split["amount"] == split["worker"] + split["treasury"] + split["verifiers"] <= price


def test_the_split_of_a_whole_job_is_ninety_to_ten() -> None:
    assert fee_split(1_000_000, 4, 4, 1_000, 2_000) == {
        "amount": 1_000_000,
        "worker": 900_000,
        "treasury": 80_000,
        "verifiers": 20_000,
    }
    assert KEY.node_id not in {member.node_id for member in MEMBERS}
