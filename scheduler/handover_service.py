"""A round's leader at work on a hand-over: collect signatures, make them a certificate, tell everyone (DESIGN 5)."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from ..protocol.errors import LocalError, Refusal, RemoteError
from ..protocol.handover import FROM_LEAF, Successor, digest_of, handover_message, slot
from ..protocol.hashing import QuorumKind
from ..protocol.identity import verify
from ..protocol.limits import HANDOVER_ROUND_MS, REQUEST_TIMEOUT_S
from ..protocol.messages import HandoverCertificate, HandoverProposal, HandoverVote
from ..protocol.units import NodeId
from ..protocol.validation import market_topic
from .auction_voting import Awarded
from .context import NodeContext
from .equivocation import Statement
from .quorum_signer import sign_quorum
from .supervision import plain_nursery, supervised
from .wire import HANDED_OVER, HANDOVER


@dataclass(slots=True)
class Handovers:
    """Hand-overs of one job, under its award."""

    context: NodeContext
    awarded: Awarded

    def digest(self, successor: Successor) -> bytes:
        """What is signed for it."""
        return digest_of(self.awarded.terms, self.awarded.certified.award, successor)

    def sign(self, successor: Successor, round_: int) -> bytes:
        """Our signature, journaled first; Refusal when something else was signed for this rank and round."""
        context, place = self.context, slot(successor.rank, round_)
        try:
            return sign_quorum(
                context.wire.key,
                context.journal,
                QuorumKind.HANDOVER,
                0,
                place,
                self.awarded.terms.context,
                self.digest(successor),
            )
        except LocalError as error:
            raise Refusal(str(error)) from error

    async def certify(self, successor: Successor, round_: int, reason: str) -> bytes | None:
        """The sealed certificate once m members signed, ours included; None when the round is over before."""
        terms, me = self.awarded.terms, self.context.wire.me
        proposal = HandoverProposal(job=terms.job, rank=successor.rank, round=round_, digest=self.digest(successor))
        signatures = {me: self.sign(successor, round_)}
        with trio.move_on_after(HANDOVER_ROUND_MS / 1000) as scope:
            async with plain_nursery() as nursery:
                for member in terms.committee:
                    if member != me:
                        nursery.start_soon(
                            supervised, terms.job, _nothing, self._ask, member, proposal, signatures, scope
                        )
        if len(signatures) < terms.m:
            return None
        return self.context.wire.seal(
            HandoverCertificate(
                job=terms.job,
                award=self.awarded.certified.award.digest,
                rank=successor.rank,
                from_leaf=FROM_LEAF,
                successor=successor.node,
                price=successor.price,
                round=round_,
                signatures=tuple(sorted(signatures.items())),
                reason=reason[:500],
            )
        )

    async def _ask(
        self, member: NodeId, proposal: HandoverProposal, signatures: dict[NodeId, bytes], scope: trio.CancelScope
    ) -> None:
        within_s, terms = HANDOVER_ROUND_MS / 1000, self.awarded.terms
        vote = (await self.context.wire.ask(member, HANDOVER, proposal, HandoverVote, within_s=within_s)).message
        message = handover_message(terms, proposal.rank, proposal.round, proposal.digest)
        if (vote.rank, vote.round) != (proposal.rank, proposal.round) or not verify(member, message, vote.signature):
            raise RemoteError("hand-over vote has a wrong signature", peer=member)
        signatures[member] = vote.signature
        place = slot(proposal.rank, proposal.round)
        self.context.hear(terms, [Statement(member, QuorumKind.HANDOVER, place, proposal.digest, vote.signature)])
        if len(signatures) >= terms.m:
            scope.cancel()

    async def tell(self, raw: bytes, former: NodeId, successor: Successor) -> None:
        """By hand to requester, members and both workers; by gossip to the market."""
        terms, wire = self.awarded.terms, self.context.wire
        parties = (successor.node, *terms.committee, self.awarded.announce.sender, former)
        async with plain_nursery() as nursery:
            nursery.start_soon(wire.tell_all_within, parties, HANDED_OVER, raw, REQUEST_TIMEOUT_S)
            await wire.post(market_topic(terms.announce.execution_class), raw)


def _nothing() -> None:
    """A vote that could not be collected costs nothing but itself."""
