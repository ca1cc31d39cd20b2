"""Who contradicts itself is noticed, whatever brought its signatures; who repeats itself is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from cyxnode.protocol.award import award_message
from cyxnode.protocol.chain import SlashEquivocation, Verdict
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.errors import ChainRejected, ChainUnreachable
from cyxnode.protocol.handover import certified_digest, handover_message
from cyxnode.protocol.hashing import QuorumKind, quorum_message
from cyxnode.protocol.identity import KeyPair, verify
from cyxnode.protocol.limits import HANDOVER_ROUNDS_MAX, STATEMENTS_HEARD_MAX
from cyxnode.protocol.messages import AwardVote, HandoverCertificate
from cyxnode.protocol.settlement import Settlement
from cyxnode.scheduler.equivocation import (
    NODE_RETIRED,
    Heard,
    Statement,
    accuse,
    contradictions,
    in_certificate,
    in_handover,
    in_outcome,
)
from sample_job import AWARDED, JOB, MEMBERS, PAID, TERMS, WORKER, outcome
from sample_messages import GENESIS

LIAR = MEMBERS[0]


def vote(digest: bytes, *, signer: KeyPair = LIAR, round_: int = 0, job: bytes = JOB) -> bytes:
    signature = signer.sign(award_message(TERMS, round_, digest))
    return seal(
        signer, GENESIS, AwardVote(job=job, round=round_, digest=digest, signature=signature, nonce_commitment=digest)
    )


def certificate(*votes: bytes) -> Any:
    return msgspec.structs.replace(AWARDED, votes=votes)


def said(digest: bytes, **changes: Any) -> Statement:
    return replace(Statement(LIAR.node_id, QuorumKind.AWARD, 0, digest, digest * 2), **changes)


def test_two_awards_in_one_round_contradict_each_other() -> None:
    heard, one, other = Heard(), b"1" * 32, b"2" * 32
    assert not contradictions(heard, TERMS, in_certificate(TERMS, certificate(vote(one))))
    (found,) = contradictions(heard, TERMS, in_certificate(TERMS, certificate(vote(other))))
    assert (found.node, found.job, found.open_slot, found.kind) == (
        LIAR.node_id,
        JOB,
        TERMS.open_slot,
        QuorumKind.AWARD,
    )
    for digest, signature in zip(found.digests, found.signatures, strict=True):
        message = quorum_message(QuorumKind.AWARD, found.sequence, found.round, TERMS.context, digest)
        assert verify(LIAR.node_id, message, signature), "the program must believe it"


def test_two_settlements_in_one_round_contradict_each_other() -> None:
    heard = Heard()
    assert not contradictions(heard, TERMS, in_outcome(TERMS, outcome(PAID, MEMBERS)))
    failed = Settlement(Verdict.FAILED, WORKER.node_id, 0, 0, bytes(32), 0)
    found = contradictions(heard, TERMS, in_outcome(TERMS, outcome(failed, MEMBERS[1:])))
    assert {one.node for one in found} == {member.node_id for member in MEMBERS[1:]}


def hand_over(successor: bytes, rank: int = 1, round_: int = 0, signer: KeyPair = LIAR) -> HandoverCertificate:
    said = HandoverCertificate(
        job=JOB, award=b"a" * 32, rank=rank, from_leaf=0, successor=successor, price=7, round=round_, signatures=(),
        reason="silence",
    )  # fmt: skip
    message = handover_message(TERMS, rank, round_, certified_digest(TERMS, said))
    return msgspec.structs.replace(said, signatures=((signer.node_id, signer.sign(message)),))


def test_two_successors_of_one_rank_and_round_contradict_each_other() -> None:
    """Also in certificates that are none, for want of signatures."""
    heard = Heard()
    assert not contradictions(heard, TERMS, in_handover(TERMS, hand_over(WORKER.node_id, round_=2)))
    (found,) = contradictions(heard, TERMS, in_handover(TERMS, hand_over(MEMBERS[1].node_id, round_=2)))
    assert (found.node, found.kind) == (LIAR.node_id, QuorumKind.HANDOVER)
    for digest, signature in zip(found.digests, found.signatures, strict=True):
        message = quorum_message(QuorumKind.HANDOVER, found.sequence, found.round, TERMS.context, digest)
        assert verify(LIAR.node_id, message, signature), "the program must believe it"


def test_successors_of_two_ranks_or_two_rounds_do_not() -> None:
    heard, others = Heard(), [(2, 0), (1, 1), (1, HANDOVER_ROUNDS_MAX - 1), (2, HANDOVER_ROUNDS_MAX - 1)]
    assert not contradictions(heard, TERMS, in_handover(TERMS, hand_over(WORKER.node_id)))
    for rank, round_ in others:
        said = hand_over(MEMBERS[1].node_id, rank, round_)
        assert not contradictions(heard, TERMS, in_handover(TERMS, said))
    assert len(heard._first) == 5
    assert not list(in_handover(TERMS, hand_over(WORKER.node_id, signer=KeyPair(b"s" * 32))))
    assert not list(in_handover(TERMS, msgspec.structs.replace(hand_over(WORKER.node_id), price=8)))


@pytest.mark.parametrize("changes", [{"round": 1}, {"kind": QuorumKind.SETTLE}, {"signer": MEMBERS[1].node_id}, {}])
def test_what_does_not_contradict(changes: dict[str, Any]) -> None:
    """Another round, another kind, another member; and the same again."""
    heard = Heard()
    assert heard.contradiction(TERMS, said(b"1" * 32)) is None
    digest = b"2" * 32 if changes else b"1" * 32
    assert heard.contradiction(TERMS, said(digest, **changes)) is None


def test_another_job_or_opening_is_another_place() -> None:
    heard = Heard()
    assert heard.contradiction(TERMS, said(b"1" * 32)) is None
    assert heard.contradiction(replace(TERMS, open_slot=78), said(b"2" * 32)) is None
    assert heard.contradiction(TERMS, said(b"2" * 32)) is not None


def test_signatures_that_do_not_hold_and_strangers_are_left_out() -> None:
    stranger, digest = KeyPair(b"s" * 32), b"1" * 32
    forged = seal(
        LIAR, GENESIS, AwardVote(job=JOB, round=0, digest=digest, signature=bytes(64), nonce_commitment=digest)
    )
    other_job = vote(digest, job=bytes(32))
    votes = (forged, b"garbage", other_job, vote(digest, signer=stranger), vote(digest, round_=1))
    (kept,) = in_certificate(TERMS, certificate(*votes))
    assert (kept.signer, kept.round) == (LIAR.node_id, 1)
    spoilt = msgspec.structs.replace(outcome(PAID, MEMBERS), units=1)
    assert list(in_outcome(TERMS, spoilt)) == []


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    heard = Heard()
    for number in range(STATEMENTS_HEARD_MAX + 1):
        heard.contradiction(TERMS, said(b"1" * 32, round=number))
    assert len(heard._first) == STATEMENTS_HEARD_MAX
    assert heard.contradiction(TERMS, said(b"2" * 32, round=0)) is None
    assert heard.contradiction(TERMS, said(b"2" * 32, round=STATEMENTS_HEARD_MAX)) is not None


class Court:
    """A chain that answers an accusation as told."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.heard = error, 0

    async def submit(self, accusation: SlashEquivocation) -> str:
        self.heard += 1
        if self.error is not None:
            raise self.error
        return "signature"


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (None, True),
        (ChainRejected("the key was retired", code=NODE_RETIRED), True),
        (ChainRejected("the statements are equal", code=284), False),
        (ChainUnreachable("away"), True),
    ],
)
async def test_an_accusation_may_come_second_or_in_vain_but_not_be_wrong(error: Exception | None, passes: bool) -> None:
    heard, court = Heard(), Court(error)
    heard.contradiction(TERMS, said(b"1" * 32))
    accusation = heard.contradiction(TERMS, said(b"2" * 32))
    assert accusation is not None
    if passes:
        await accuse(court, accusation)  # type: ignore[arg-type]
    else:
        with pytest.raises(ChainRejected):
            await accuse(court, accusation)  # type: ignore[arg-type]
    assert court.heard == 1


def test_votes_of_an_honest_certificate_are_heard() -> None:
    assert {one.signer for one in in_certificate(TERMS, AWARDED)} == {member.node_id for member in MEMBERS}
