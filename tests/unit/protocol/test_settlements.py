"""What a quorum signs to end a job: bound to every field, round and job; strangers and copies do not count."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from cyxnode.protocol.award import JobTerms
from cyxnode.protocol.chain import Verdict
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import Outcome, ResultClaim
from cyxnode.protocol.settlement import (
    Settlement,
    is_sealed,
    quorum_for,
    result_hash,
    sealed,
    settle_message,
    settlement_of,
    signers,
)
from cyxnode.protocol.units import NodeId
from sample_messages import ANNOUNCE, GENESIS, MESSAGES

MEMBERS = [KeyPair(bytes([i]) * 32) for i in (1, 2, 3)]
STRANGER = KeyPair(b"s" * 32)
TERMS = JobTerms(GENESIS, ANNOUNCE, open_slot=77, committee=tuple(key.node_id for key in MEMBERS))
DONE = Settlement(Verdict.OK, NodeId(b"w" * 32), 1_500_000, 128, b"r" * 32, 0b101)
ROUND = 2
SIGNED = tuple((key.node_id, key.sign(settle_message(TERMS, ROUND, DONE))) for key in MEMBERS)


def outcome(signatures: tuple[tuple[bytes, bytes], ...] = SIGNED, **changes: object) -> Outcome:
    honest = Outcome(
        job=ANNOUNCE.job, verdict=1, worker=DONE.worker, price=DONE.price, units=DONE.units,
        result_hash=DONE.result_hash, fee_mask=DONE.fee_mask, round=ROUND, signatures=signatures, transaction="",
        reason="",
    )  # fmt: skip
    return msgspec.structs.replace(honest, **changes)


def test_an_outcome_reports_the_settlement_that_was_signed() -> None:
    assert settlement_of(outcome()) == DONE
    assert signers(TERMS, outcome()) == set(TERMS.committee)


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": 2},
        {"worker": b"x" * 32},
        {"price": 1_500_001},
        {"units": 127},
        {"result_hash": b"s" * 32},
        {"fee_mask": 0b111},
        {"round": 1},
    ],
)
def test_no_field_can_be_changed_under_the_signatures(change: dict[str, object]) -> None:
    assert signers(TERMS, outcome(**change)) == set()


@pytest.mark.parametrize(
    "terms",
    [
        replace(TERMS, open_slot=78),
        replace(TERMS, genesis=bytes(32)),
        replace(TERMS, announce=msgspec.structs.replace(ANNOUNCE, job=bytes(32))),
        replace(TERMS, announce=msgspec.structs.replace(ANNOUNCE, program=bytes(32))),
    ],
    ids=["slot", "network", "job", "program"],
)
def test_signatures_do_not_carry_over(terms: JobTerms) -> None:
    assert signers(terms, outcome()) == set()


def test_strangers_and_copies_do_not_count() -> None:
    message = settle_message(TERMS, ROUND, DONE)
    first = SIGNED[0]
    assert signers(TERMS, outcome((first, first, first))) == {first[0]}
    assert signers(TERMS, outcome((first, (STRANGER.node_id, STRANGER.sign(message))))) == {first[0]}
    assert signers(TERMS, outcome((first, (MEMBERS[1].node_id, first[1])))) == {first[0]}


def test_the_result_hash_names_every_field_of_the_claim() -> None:
    claim = next(message for message in MESSAGES if isinstance(message, ResultClaim))
    hashes = {result_hash(claim)}
    for field in ("spec_hash", "execution_class", "model_weights_hash", "merkle_root"):
        hashes.add(result_hash(msgspec.structs.replace(claim, **{field: b"x" * 32})))
    hashes.add(result_hash(msgspec.structs.replace(claim, final_loss_micro=0)))
    assert len(hashes) == 6


def test_a_seal_is_the_workers_over_all_the_rest_of_its_claim() -> None:
    claim = next(message for message in MESSAGES if isinstance(message, ResultClaim))
    whole = sealed(TERMS, STRANGER, claim)
    assert result_hash(whole) == result_hash(claim), "the seal is over the hash"
    assert is_sealed(TERMS, STRANGER.node_id, whole)
    assert not is_sealed(TERMS, STRANGER.node_id, claim)
    assert not is_sealed(TERMS, MEMBERS[0].node_id, whole)
    assert not is_sealed(replace(TERMS, open_slot=78), STRANGER.node_id, whole)
    assert not is_sealed(TERMS, STRANGER.node_id, msgspec.structs.replace(whole, final_loss_micro=0))


@pytest.mark.parametrize(("k", "money", "stake"), [(3, 2, 3), (5, 3, 4), (7, 5, 5)])
def test_fraud_needs_more_signatures_than_money(k: int, money: int, stake: int) -> None:
    assert [quorum_for(verdict, k) for verdict in Verdict] == [money] * 5 + [stake]
