"""A committee member's hand in the award: tallies, proposals, votes (DESIGN 5, steps 4 and 5).

The machine decides when; this file makes the evidence, and checks that of others against what the chain says.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from ..protocol import codec
from ..protocol.award import Award, CertifiedAward, JobTerms, check_certificate, recompute
from ..protocol.chain import NodeAccount
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import LocalError, Refusal
from ..protocol.handover import Successor, succeeded
from ..protocol.hashing import QuorumKind, nonce_commitment
from ..protocol.messages import AwardCertificate, AwardVote, BidderRecord, JobAnnounce, Proposal, Tally
from ..protocol.scoring import reputation_ppm
from ..protocol.units import JobId, NodeId
from . import auction as machine
from .context import NodeContext
from .quorum_signer import sign_quorum

TALLY_MAX_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Awarded:
    """A job with its checked certificate. After a hand-over, whose envelope is `handover`, `certified` names the node
    that took over, of that `rank` in the award's ranking, and its price."""

    announce: Signed[JobAnnounce]
    terms: JobTerms
    certified: CertifiedAward
    raw: bytes
    rank: int = 0
    handover: bytes = b""

    def after(self, successor: Successor, raw: bytes) -> Awarded:
        """The same job once `successor` took over by the envelope `raw`."""
        return replace(self, certified=succeeded(self.certified, successor), rank=successor.rank, handover=raw)


@dataclass(slots=True)
class Ballot:
    """Makes and judges the evidence of one job's award."""

    context: NodeContext
    terms: JobTerms

    async def propose(self, effect: machine.Propose) -> tuple[Proposal, Award]:
        """The proposal that follows from the tallies and our own reveals, and the award that follows from it."""
        listed = Counter(digest for raw in effect.tallies for digest in set(self._tally(raw).bids))
        counted = {node: seen for node, seen in effect.reveals.items() if listed[seen.digest] >= self.terms.m}
        nodes = await self.context.registry.nodes(fresh=effect.round > 0)
        proposal = Proposal(
            job=self.terms.job,
            round=effect.round,
            tallies=effect.tallies,
            reveals=tuple(counted[node].raw for node in sorted(counted)),
            records=tuple(_record(nodes[node]) for node in sorted(counted) if node in nodes),
        )
        return proposal, recompute(self.terms, codec.encode(proposal))

    def _tally(self, raw: bytes) -> Tally:
        return open_as(raw, self.terms.genesis, Tally, max_bytes=TALLY_MAX_BYTES).message

    async def check_records(self, proposal: Proposal) -> None:
        """Refusal when the chain, read anew if need be, says something else of a bidder than the proposal."""
        for fresh in (False, True):
            nodes = await self.context.registry.nodes(fresh=fresh)
            if all(
                record.node in nodes and record == _record(nodes[NodeId(record.node)]) for record in proposal.records
            ):
                return
        raise Refusal("the chain has another record of a bidder")

    def vote(self, round_: int, digest: bytes) -> AwardVote:
        """Our signature, journaled first; Refusal when another award was signed in this round."""
        context, job = self.context, self.terms.job
        try:
            signature = sign_quorum(
                context.wire.key, context.journal, QuorumKind.AWARD, 0, round_, self.terms.context, digest
            )
        except LocalError as error:
            raise Refusal(str(error)) from error
        return AwardVote(
            job=job,
            round=round_,
            digest=digest,
            signature=signature,
            nonce_commitment=promise(context, job),
        )


def _record(account: NodeAccount) -> BidderRecord:
    return BidderRecord(node=account.node, stake=account.stake, reputation_ppm=reputation_ppm(account))


def promise(context: NodeContext, job: JobId) -> bytes:
    """The commitment to our sampling nonce, given with our tally and with our vote."""
    return nonce_commitment(job, context.wire.me, sampling_nonce(context, job))


def sampling_nonce(context: NodeContext, job: JobId) -> bytes:
    """The secret that draws our samples of a job: made once, journaled, promised with our tally."""
    nonce = context.journal.get(b"nonce/" + job)
    if nonce is None:
        nonce = context.randomness.bytes(32)
        context.journal.put(b"nonce/" + job, nonce)
    return nonce


def certificate_of(terms: JobTerms, raw: bytes) -> CertifiedAward:
    """Open and check a certificate envelope; who published it does not matter, the votes do."""
    certificate = open_as(raw, terms.genesis, AwardCertificate).message
    return check_certificate(terms, certificate)
