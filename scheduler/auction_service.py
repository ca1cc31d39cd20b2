"""Runs one auction machine: feeds it what gossip and members say, and carries out what it decides.

One AuctionRun per announced job. It looks up the escrow before it bids, waits for the draw, and hands a valid
certificate (or the word that the job is unsold) to its owner. What arrives before the escrow is confirmed waits for it,
with the time at which it arrived.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol import codec
from ..protocol.award import Award, JobTerms, check_vote, recompute
from ..protocol.chain import JobAccount, JobState, NodeAccount
from ..protocol.envelope import Signed
from ..protocol.errors import Refusal, RemoteError
from ..protocol.hashing import QuorumKind
from ..protocol.limits import EARLY_MESSAGES_MAX, QUORUMS, REQUEST_TIMEOUT_S
from ..protocol.messages import (
    AwardCertificate,
    AwardVote,
    BidCommit,
    BidReveal,
    Capability,
    Decline,
    JobAnnounce,
    Proposal,
    Tally,
)
from ..protocol.units import JobId, NodeId, base58
from ..protocol.validation import market_topic
from . import auction as machine
from .auction_bidding import Bidding, sealed_bid, stimulus_of
from .auction_escrow import confirmed_escrow, draw_is_fair, seated_account
from .auction_voting import Awarded, Ballot, certificate_of, promise
from .context import NodeContext
from .equivocation import Statement
from .supervision import contained, plain_nursery, supervised
from .wire import CERTIFICATE, NOT_YET, PROPOSAL, TALLY

CHOSEN = "the committee was chosen, not drawn: live nodes with lower tickets were passed over"

log = structlog.get_logger()


@dataclass(slots=True)
class AuctionRun:
    """The shell around one auction. `on_award` and `on_unsold` are called at most once, not both.

    `alive` are the live nodes of the class with us among them; `committed_price` is what a node's open awards cost.
    """

    context: NodeContext
    announce: Signed[JobAnnounce]
    received_at_ms: int
    expected: frozenset[NodeId]
    alive: Callable[[], Mapping[NodeId, Capability]]
    running: Callable[[], int]
    committed_price: Callable[[NodeId], int]
    on_award: Callable[[Awarded], None]
    on_unsold: Callable[[JobTerms, Signed[JobAnnounce], str], None]
    on_refused: Callable[[JobId], None]
    state: machine.Auction | None = None
    terms: JobTerms | None = None
    proposal: tuple[bytes, Award] | None = None
    _bidders: Mapping[NodeId, NodeAccount] = field(default_factory=dict)
    _early: list[tuple[Bidding, int]] = field(default_factory=list)
    _early_certificates: list[bytes] = field(default_factory=list)
    _poke: trio.Event = field(default_factory=trio.Event)
    _finished: bool = False

    @property
    def job(self) -> JobId:
        return JobId(self.announce.message.job)

    @property
    def _topic(self) -> str:
        return market_topic(self.announce.message.execution_class)

    def _now(self) -> int:
        return self.context.wire.clock.monotonic_ms()

    async def run(self) -> None:
        """From the announce to the certificate, to the word that there will be none, or to the work deadline."""
        account = await self._look_up()
        if account is None:
            self.on_refused(self.job)
            return
        self.context.wire.transport.learn(self.announce.sender, self.announce.message.addresses)
        await self._open(account)
        left_s = self.announce.message.work_deadline_s - self.context.wire.clock.unix_ms() / 1000
        with trio.move_on_after(max(0.0, left_s)):
            async with plain_nursery() as nursery:
                nursery.start_soon(self._wait_for_seat)
                await self._keep_time()
                nursery.cancel_scope.cancel()

    # entering -------------------------------------------------------------------------------------------------------

    async def _look_up(self) -> JobAccount | None:
        """The escrow, and meanwhile who may bid: one round trip to the chain, not two."""
        async with plain_nursery() as nursery:
            nursery.start_soon(supervised, self.job, self.finish, self._read_bidders)
            return await confirmed_escrow(self.context, self.announce)

    async def _read_bidders(self) -> None:
        self._bidders = await self.context.registry.nodes(fresh=True)

    async def _open(self, account: JobAccount) -> None:
        announce = self.announce.message
        own = await self._own_bid()
        terms = machine.AuctionTerms(
            job=self.job,
            me=self.context.wire.me,
            m=QUORUMS[announce.k],
            price_least=announce.price_least,
            price_limit=announce.price_limit,
            commit_ms=announce.commit_window_ms,
            reveal_ms=announce.reveal_window_ms,
            round_ms=announce.round_ms,
        )
        self.state, effects = machine.open_auction(terms, self.received_at_ms, self.expected, own)
        self._perform(effects)
        early, self._early = self._early, []
        for signed, arrived_ms in early:
            contained(self._bidding, signed, arrived_ms)
        if account.state is JobState.SEATED:
            await self._seated(account)
        self.apply(machine.TimePassed(self._now()))

    async def _own_bid(self) -> machine.SealedBid | None:
        bid = sealed_bid(
            self.context,
            self.announce.message,
            self._bidders.get(self.context.wire.me),
            running=self.running(),
            committed=self.committed_price(self.context.wire.me),
        )
        if isinstance(bid, Decline):
            log.info("declined", job=base58(self.job), reason=bid.reason.name, hint=bid.hint)
            await self.context.wire.publish(self._topic, bid)
            return None
        return bid

    async def _wait_for_seat(self) -> None:
        if self.state is None or self.state.committee:
            return
        account = await seated_account(self.context, self.job)
        if account is None:
            self.finish()
        else:
            await self._seated(account)

    async def _seated(self, account: JobAccount) -> None:
        wire, fair = self.context.wire, await draw_is_fair(self.context, self.announce.message, account, self.alive())
        if self._finished:
            return
        self.terms = JobTerms(wire.genesis, self.announce.message, account.open_slot, account.committee, wire.opener)
        if not fair:
            self._shun()
            return
        log.info("committee seated", job=base58(self.job), seat=self.context.wire.me in account.committee)
        if self.context.wire.me in account.committee:
            self._look_for(account.committee)
        self.apply(machine.CommitteeSeated(account.committee, self._now()))
        for raw in self._early_certificates:
            self.certificate_seen(raw)
        self._early_certificates.clear()

    def _look_for(self, parties: Iterable[NodeId]) -> None:
        """Learn where the parties are that we shall have to talk to: those of other cells we have never heard."""
        unknown = set(parties) - self.alive().keys() - self.context.wire.transport.connected()
        if unknown:
            self._start(self.context.wire.find, *sorted(unknown))

    def _shun(self) -> None:
        """Neither bid on nor serve the job. Its members say so at once: a requester that saw too little gets its money
        back in seconds, one that chose its committee gains nothing that a job without bidders would not give it."""
        if self.terms is not None and self.context.wire.me in self.terms.committee:
            self._declare_unsold(CHOSEN)
        else:
            self.finish()

    # time -----------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while not self._finished and self.state is not None:
            wake_ms = machine.next_wake_ms(self.state)
            self._poke = trio.Event()
            seconds = 3600.0 if wake_ms is None else max(0.0, (wake_ms - self._now()) / 1000)
            with trio.move_on_after(seconds):
                await self._poke.wait()
                continue
            self.apply(machine.TimePassed(self._now()))

    def finish(self) -> None:
        """End without a word: certified, settled, shunned, or broken."""
        self._finished = True
        self._poke.set()

    # stimuli --------------------------------------------------------------------------------------------------------

    def apply(self, stimulus: machine.Stimulus) -> None:
        """Feed the machine."""
        if self.state is None or self._finished:
            return
        before = self.state.phase
        self.state, effects = machine.step(self.state, stimulus)
        if self.state.phase is not before:
            log.info("auction", job=base58(self.job), phase=self.state.phase.name, cause=type(stimulus).__name__)
        self._perform(effects)
        self._poke.set()

    def gossip(self, signed: Bidding) -> None:
        """A market message about this job."""
        if self.state is not None:
            self._bidding(signed, self._now())
        elif len(self._early) < EARLY_MESSAGES_MAX:
            self._early.append((signed, self._now()))

    def _bidding(self, signed: Bidding, now_ms: int) -> None:
        account = self._bidders.get(signed.sender)
        if account is None or account.execution_class != self.announce.message.execution_class:
            return
        stimulus = stimulus_of(signed, account, self.committed_price(signed.sender), now_ms)
        if isinstance(stimulus, str):
            log.info("bid not counted", job=base58(self.job), peer=base58(signed.sender), cause=stimulus)
        else:
            self.apply(stimulus)

    def certificate_seen(self, raw: bytes) -> None:
        """A certificate envelope arrived, from gossip or directly; the first valid one ends the auction."""
        if self._finished:
            return
        if self.terms is None:
            if len(self._early_certificates) < len(QUORUMS):
                self._early_certificates.append(raw)
            return
        try:
            certified = certificate_of(self.terms, raw)
        except RemoteError as error:
            log.warning("certificate dropped", job=base58(self.job), cause=str(error))
            return
        self.apply(machine.Certified())
        self.finish()
        log.info("awarded", job=base58(self.job), winner=base58(certified.winner), price=certified.price)
        if self.context.wire.me in self.terms.committee:
            self._look_for([certified.winner])
        self.on_award(Awarded(self.announce, self.terms, certified, raw))

    def certificate_delivered(self, raw: bytes) -> None:
        """A certificate was handed to us; Refusal while it cannot be judged yet."""
        if self.terms is None and not self._finished:
            raise Refusal(NOT_YET + "the committee is not known here")
        self.certificate_seen(raw)

    async def tally_received(self, signed: Signed[Tally]) -> None:
        """A member's tally for us as leader."""
        if self.state is None or not self.state.committee:
            raise Refusal(NOT_YET + "the committee is not known here")
        self.apply(machine.TallyReceived(signed.sender, signed.raw, self._now()))

    async def judge(self, signed: Signed[Proposal]) -> AwardVote:
        """Answer a leader's proposal with our vote, or refuse with the reason."""
        if self._finished:
            raise Refusal("the auction is over here")
        if self.state is None or self.terms is None or self.state.phase is not machine.Phase.ROUNDS:
            raise Refusal(NOT_YET + "no voting round here")
        self.terms.member(signed.sender)
        award, ballot = recompute(self.terms, codec.encode(signed.message)), Ballot(self.context, self.terms)
        await ballot.check_records(signed.message)
        self.state, vote = machine.judge_proposal(self.state, signed.sender, award)
        if isinstance(vote, str):
            raise Refusal(vote)
        return ballot.vote(vote.round, vote.digest)

    # effects --------------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[machine.Effect]) -> None:
        for effect in effects:
            match effect:
                case machine.PublishCommit(commitment):
                    self._start(self.context.wire.publish, self._topic, BidCommit(job=self.job, commitment=commitment))
                case machine.PublishReveal(bid, salt):
                    self._start(self.context.wire.publish, self._topic, BidReveal(job=self.job, bid=bid, salt=salt))
                case machine.SendTally(leader, bids):
                    self._start(self._send_tally, leader, bids)
                case machine.Propose():
                    self._start(self._propose, effect)
                case machine.PublishCertificate(votes=votes):
                    self._start(self._publish_certificate, votes)
                case machine.DeclareUnsold(reason):
                    self._declare_unsold(reason)

    def _start(self, action: Callable[..., Awaitable[object]], *arguments: object) -> None:
        self.context.nursery.start_soon(supervised, self.job, self.finish, action, *arguments)

    def _declare_unsold(self, reason: str) -> None:
        log.info("unsold", job=base58(self.job), cause=reason)
        self.finish()
        if self.terms is not None:
            self.on_unsold(self.terms, self.announce, reason)

    async def _send_tally(self, leader: NodeId, bids: tuple[bytes, ...]) -> None:
        raw = self.context.wire.seal(Tally(job=self.job, bids=bids, nonce_commitment=promise(self.context, self.job)))
        if leader == self.context.wire.me:
            self.apply(machine.TallyReceived(leader, raw, self._now()))
        else:
            await self.context.wire.deliver(leader, TALLY, raw, within_s=self.announce.message.round_ms / 1000)

    async def _propose(self, effect: machine.Propose) -> None:
        if self.terms is None or self.state is None:
            return
        ballot = Ballot(self.context, self.terms)
        proposal, award = await ballot.propose(effect)
        if award.winner is None:
            log.info("nothing to propose", job=base58(self.job), round=effect.round, cause="no bid counts")
            return
        self.proposal = codec.encode(proposal), award
        self.state, own = machine.judge_proposal(self.state, self.context.wire.me, award)
        if isinstance(own, machine.VoteCast):
            raw = self.context.wire.seal(ballot.vote(own.round, own.digest))
            self.apply(machine.VoteReceived(self.context.wire.me, own.round, raw, self._now()))
        for member in self.terms.committee:
            if member != self.context.wire.me:
                self._start(self._collect_vote, self.terms, member, proposal, award)

    async def _collect_vote(self, terms: JobTerms, member: NodeId, proposal: Proposal, award: Award) -> None:
        within_s = self.announce.message.round_ms / 1000
        vote = await self.context.wire.ask(member, PROPOSAL, proposal, AwardVote, within_s=within_s)
        check_vote(terms, vote, award)
        said = Statement(member, QuorumKind.AWARD, award.round, award.digest, vote.message.signature)
        self.context.hear(terms, [said])
        self.apply(machine.VoteReceived(member, award.round, vote.raw, self._now()))

    async def _publish_certificate(self, votes: tuple[bytes, ...]) -> None:
        """To the market by gossip, and to the parties by hand: a lost gossip message must not cost the job."""
        if self.proposal is None or self.terms is None or self._finished:
            return
        encoded, award = self.proposal
        certificate = AwardCertificate(
            job=self.job, proposal=encoded, winner=award.winner or b"", price=award.price, votes=votes
        )
        wire, raw = self.context.wire, self.context.wire.seal(certificate)
        self.certificate_seen(raw)
        parties = (NodeId(certificate.winner), self.announce.sender, *self.terms.committee)
        self._start(wire.tell_all_within, parties, CERTIFICATE, raw, REQUEST_TIMEOUT_S)
        await wire.post(self._topic, raw)
