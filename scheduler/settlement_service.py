"""A round's leader at work: collect signatures under a settlement, submit it, and tell everyone the outcome (DESIGN 8).

The money moves on chain; the Outcome is the evidence for the receipt, gossiped to the market and handed to the parties.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
import trio

from ..protocol.award import JobTerms
from ..protocol.chain import JobState, Settle, Verdict
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import ChainRejected, ChainUnreachable, LocalError, Refusal, RemoteError
from ..protocol.hashing import QuorumKind
from ..protocol.identity import verify
from ..protocol.limits import CHAIN_RETRY_S, CONFIRM_TIMEOUT_S, GOSSIP_WINDOW_S, SETTLE_ROUND_MS
from ..protocol.messages import Outcome, SettleProposal, SettleVote
from ..protocol.settlement import NO_RESULT, NOBODY, Settlement, quorum_for, settle_message
from ..protocol.units import MicroCyx, NodeId, base58
from ..protocol.validation import market_topic
from .context import NodeContext
from .equivocation import Statement, in_settlement
from .outage import Outage
from .quorum_signer import sign_quorum
from .supervision import plain_nursery, supervised
from .verification_events import ProposeSettlement
from .wire import OUTCOME, SETTLE

Signatures = dict[NodeId, bytes]
log = structlog.get_logger()


@dataclass(slots=True)
class Settler:
    """Settles one job. `requester` hears of the outcome first-hand."""

    context: NodeContext
    terms: JobTerms
    requester: NodeId

    def sign(self, round_: int, settlement: Settlement) -> bytes:
        """Our signature, journaled first; Refusal when another settlement was signed in this round."""
        context = self.context
        try:
            return sign_quorum(
                context.wire.key, context.journal, QuorumKind.SETTLE, 0, round_, self.terms.context, settlement.digest
            )
        except LocalError as error:
            raise Refusal(str(error)) from error

    async def collect(self, proposal: SettleProposal) -> Signatures:
        """Signatures of the members that agree, ours included; ends with a quorum, or with the round."""
        signatures: Signatures = {self.context.wire.me: self.sign(proposal.round, settlement_of_proposal(proposal))}
        with trio.move_on_after(SETTLE_ROUND_MS / 1000) as scope:
            async with plain_nursery() as nursery:
                for member in self.terms.committee:
                    if member != self.context.wire.me:
                        nursery.start_soon(
                            supervised, self.terms.job, _nothing, self._ask, member, proposal, signatures, scope
                        )
        return signatures

    async def _ask(
        self, member: NodeId, proposal: SettleProposal, signatures: Signatures, scope: trio.CancelScope
    ) -> None:
        vote = await self.context.wire.ask(member, SETTLE, proposal, SettleVote, within_s=SETTLE_ROUND_MS / 1000)
        message = settle_message(self.terms, proposal.round, settlement_of_proposal(proposal))
        if vote.message.round != proposal.round or not verify(member, message, vote.message.signature):
            raise RemoteError("settlement vote has a wrong signature", peer=member)
        signatures[member] = vote.message.signature
        digest = settlement_of_proposal(proposal).digest
        said = Statement(member, QuorumKind.SETTLE, proposal.round, digest, vote.message.signature)
        self.context.hear(self.terms, [said])
        if len(signatures) >= quorum_for(proposal.verdict, self.terms.announce.k):
            scope.cancel()

    async def submit(self, proposal: SettleProposal, signatures: Signatures, seal: bytes) -> Signed[Outcome] | None:
        """Land the settlement, trying on while the chain is away and a refund is not due. None when it failed.

        `seal` is the worker's over its claim, which FRAUD needs.
        """
        settlement = settlement_of_proposal(proposal)
        chosen = tuple(sorted(signatures.items()))[: quorum_for(proposal.verdict, self.terms.announce.k)]
        instruction = settle_instruction(self.terms, proposal.round, settlement, chosen, seal)
        grace_s = (await self.context.registry.config()).grace_s
        until_s, outage = self.terms.announce.work_deadline_s + grace_s, Outage(self.terms.job)
        while self.context.wire.clock.unix_ms() / 1000 < until_s:
            try:
                transaction = await self.context.chain.submit(instruction)
            except ChainUnreachable as error:
                outage.failed(error)
                await trio.sleep(CHAIN_RETRY_S)
                continue
            except ChainRejected as error:
                if not await self._was_settled_alike(settlement):
                    log.warning("settlement rejected", job=base58(self.terms.job), cause=str(error))
                    await self._look_who_settled()
                    return None
                transaction = ""
            return self._sealed(outcome_of(proposal, chosen, transaction))
        return None

    async def _was_settled_alike(self, settlement: Settlement) -> bool:
        account = await self.context.chain.job(self.terms.job)
        return (
            account is not None
            and account.state is JobState.SETTLED
            and account.verdict is settlement.verdict
            and account.result_hash == settlement.result_hash
            and account.fee_mask == settlement.fee_mask
        )

    async def _look_who_settled(self) -> None:
        """Another settlement landed: members that signed ours too have contradicted themselves."""
        for landed in await self.context.chain.settlements(self.terms.job):
            self.context.hear(self.terms, in_settlement(self.terms, landed))

    def _sealed(self, outcome: Outcome) -> Signed[Outcome]:
        wire = self.context.wire
        return open_as(wire.seal(outcome), wire.genesis, Outcome)

    async def tell(self, outcome: Signed[Outcome]) -> None:
        """By hand to requester, worker and members; by gossip to the market."""
        message = outcome.message
        log.info("settled", job=base58(message.job), verdict=Verdict(message.verdict).name, tx=message.transaction)
        worker = () if message.worker == NOBODY else (NodeId(message.worker),)
        parties = (self.requester, *worker, *self.terms.committee)
        wire = self.context.wire
        async with plain_nursery() as nursery:
            nursery.start_soon(wire.tell_all_within, parties, OUTCOME, outcome.raw, CONFIRM_TIMEOUT_S)
            await wire.post(market_topic(self.terms.announce.execution_class), outcome.raw, window_s=GOSSIP_WINDOW_S)


def _nothing() -> None:
    """A vote that could not be collected costs nothing but itself."""


def settle_instruction(
    terms: JobTerms, round_: int, settlement: Settlement, chosen: tuple[tuple[NodeId, bytes], ...], seal: bytes
) -> Settle:
    """What the chain is asked to do."""
    return Settle(
        job=terms.job,
        verdict=settlement.verdict,
        worker=settlement.worker,
        price=MicroCyx(settlement.price),
        units=settlement.units,
        result_hash=settlement.result_hash,
        fee_mask=settlement.fee_mask,
        sequence=0,
        round=round_,
        signatures=chosen,
        claim_signature=seal,
    )


def outcome_of(proposal: SettleProposal, chosen: tuple[tuple[NodeId, bytes], ...], transaction: str) -> Outcome:
    """What everyone is told. `transaction` is empty when somebody else's landed."""
    return Outcome(
        job=proposal.job,
        verdict=proposal.verdict,
        worker=proposal.worker,
        price=proposal.price,
        units=proposal.units,
        result_hash=proposal.result_hash,
        fee_mask=proposal.fee_mask,
        round=proposal.round,
        signatures=chosen,
        transaction=transaction,
        reason=proposal.reason,
    )


def proposal_of(terms: JobTerms, effect: ProposeSettlement) -> SettleProposal:
    """The request for signatures under a settlement, with the replay that FRAUD rests on."""
    settlement, proof = effect.settlement, effect.proof
    return SettleProposal(
        job=terms.job,
        round=effect.round,
        verdict=settlement.verdict,
        worker=settlement.worker,
        price=settlement.price,
        units=settlement.units,
        result_hash=settlement.result_hash,
        fee_mask=settlement.fee_mask,
        segment=proof.segment if proof else -1,
        replayed=proof.end_hash if proof else NO_RESULT,
        reason=effect.reason[:500],
    )


def settlement_of_proposal(proposal: SettleProposal) -> Settlement:
    """The settlement that a leader asks for."""
    return Settlement(
        Verdict(proposal.verdict),
        NodeId(proposal.worker),
        proposal.price,
        proposal.units,
        proposal.result_hash,
        proposal.fee_mask,
    )
