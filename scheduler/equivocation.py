"""Members that contradict themselves: what a node remembers of their signatures, and how it accuses them (DESIGN 8).

A member signs once per kind, sequence and round of a job. Whoever holds two signatures of one key for one such place
with different digests can have its stake taken; nobody gains by it but the network. Every node remembers what passes
through its hands: votes that it collected, the quorums of certificates and outcomes, and, when another settlement than
its own has landed, the quorum of that one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import structlog

from ..protocol.award import JobTerms, award_message
from ..protocol.chain import Settle, SlashEquivocation
from ..protocol.envelope import open_as
from ..protocol.errors import ChainRejected, CyxError, RemoteError
from ..protocol.handover import certified_digest, handover_signers, slot
from ..protocol.hashing import QuorumKind, settle_digest
from ..protocol.identity import verify
from ..protocol.limits import STATEMENTS_HEARD_MAX
from ..protocol.messages import AwardCertificate, AwardVote, HandoverCertificate, Outcome
from ..protocol.ports import Chain
from ..protocol.settlement import settle_message, settlement_of
from ..protocol.units import NodeId, base58

NODE_RETIRED = 167
"""The program's answer when somebody else was quicker."""
Place = tuple[NodeId, bytes, QuorumKind, int, int]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Statement:
    """A member's signature under a digest, checked."""

    signer: NodeId
    kind: QuorumKind
    round: int
    digest: bytes
    signature: bytes
    sequence: int = 0


@dataclass(slots=True)
class Heard:
    """The last STATEMENTS_HEARD_MAX statements, the first of each place."""

    _first: OrderedDict[Place, Statement] = field(default_factory=OrderedDict)

    def contradiction(self, terms: JobTerms, said: Statement) -> SlashEquivocation | None:
        """Remember a statement; the accusation, if an earlier one says something else in its place."""
        place = (said.signer, terms.context, said.kind, said.sequence, said.round)
        first = self._first.setdefault(place, said)
        while len(self._first) > STATEMENTS_HEARD_MAX:
            self._first.popitem(last=False)
        if first.digest == said.digest:
            return None
        return SlashEquivocation(
            node=said.signer,
            job=terms.job,
            open_slot=terms.open_slot,
            kind=said.kind,
            sequence=said.sequence,
            round=said.round,
            digests=(first.digest, said.digest),
            signatures=(first.signature, said.signature),
        )


def in_certificate(terms: JobTerms, certificate: AwardCertificate) -> Iterator[Statement]:
    """The votes of members in a certificate, each checked by itself; what cannot be read is left out."""
    for raw in certificate.votes:
        try:
            signed = open_as(raw, terms.genesis, AwardVote, max_bytes=2048, opener=terms.opener)
        except RemoteError:
            continue
        vote, member = signed.message, NodeId(signed.sender)
        if vote.job != terms.job or member not in terms.committee:
            continue
        if verify(member, award_message(terms, vote.round, vote.digest), vote.signature):
            yield Statement(member, QuorumKind.AWARD, vote.round, vote.digest, vote.signature)


def in_handover(terms: JobTerms, certificate: HandoverCertificate) -> Iterator[Statement]:
    """The signatures of members under a hand-over, whether they are enough or not."""
    if certificate.job != terms.job:
        return
    digest, place = certified_digest(terms, certificate), slot(certificate.rank, certificate.round)
    for node, signature in handover_signers(terms, certificate).items():
        yield Statement(node, QuorumKind.HANDOVER, place, digest, signature)


def in_outcome(terms: JobTerms, outcome: Outcome) -> Iterator[Statement]:
    """The signatures of members under an outcome, each checked by itself."""
    settlement = settlement_of(outcome)
    message = settle_message(terms, outcome.round, settlement)
    for node, signature in outcome.signatures:
        if node in terms.committee and verify(NodeId(node), message, signature):
            yield Statement(NodeId(node), QuorumKind.SETTLE, outcome.round, settlement.digest, signature)


def in_settlement(terms: JobTerms, settle: Settle) -> Iterator[Statement]:
    """The signatures of members under what landed on the chain, which has checked them."""
    said = settle_digest(settle.verdict, settle.worker, settle.price, settle.units, settle.result_hash, settle.fee_mask)
    for node, signature in settle.signatures:
        if node in terms.committee:
            yield Statement(node, QuorumKind.SETTLE, settle.round, said, signature, settle.sequence)


def contradictions(heard: Heard, terms: JobTerms, said: Iterable[Statement]) -> list[SlashEquivocation]:
    """Remember statements; the accusations that follow."""
    return [found for one in said if (found := heard.contradiction(terms, one)) is not None]


async def accuse(chain: Chain, accusation: SlashEquivocation) -> None:
    """Have the program convict a member. Whoever is second finds the key retired already."""
    job, node = base58(accusation.job), base58(accusation.node)
    log.warning("member contradicts itself", job=job, peer=node, kind=QuorumKind(accusation.kind).name)
    try:
        log.warning("member convicted", job=job, peer=node, tx=await chain.submit(accusation))
    except ChainRejected as error:
        if error.code != NODE_RETIRED:
            raise
    except CyxError as error:
        log.warning("member not convicted", job=job, peer=node, cause=str(error))
