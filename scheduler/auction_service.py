"""Runs one auction machine: feeds it what gossip and members say, and carries out what it decides.

One AuctionRun per announced job. It checks the escrow before it bids, watches the chain for the draw, and hands a valid
certificate (or the word that the job is unsold) to its owner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol import codec
from ..protocol.award import (
    Award,
    CertifiedAward,
    JobTerms,
    check_certificate,
    check_vote,
    decode_bid,
    recompute,
)
from ..protocol.chain import JobAccount, JobState
from ..protocol.committee import eligible, passed_over
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, Refusal, RemoteError
from ..protocol.hashing import QuorumKind, nonce_commitment
from ..protocol.limits import QUORUMS
from ..protocol.messages import (
    AwardCertificate,
    AwardVote,
    BidCommit,
    BidderRecord,
    BidReveal,
    Decline,
    DeclineReason,
    JobAnnounce,
    Proposal,
    Tally,
)
from ..protocol.scoring import reputation_ppm
from ..protocol.units import JobId, NodeId, base58
from ..protocol.validation import market_topic
from . import auction as machine
from .context import NodeContext
from .pricing import Declined, quote
from .quorum_signer import sign_quorum
from .wire import NOT_YET, PROPOSAL, TALLY

SEAT_POLL_S = 0.15
SEAT_POLLS_MAX = 1_200
"""Polls until the seat deadline of 400 slots has certainly passed."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Awarded:
    """A job with its checked certificate."""

    announce: Signed[JobAnnounce]
    terms: JobTerms
    certified: CertifiedAward
    raw: bytes


@dataclass(slots=True)
class AuctionRun:
    """The shell around one auction. `on_award` and `on_unsold` are called at most once, not both."""

    context: NodeContext
    announce: Signed[JobAnnounce]
    received_at_ms: int
    expected: frozenset[NodeId]
    alive: Callable[[], list[NodeId]]
    running: Callable[[], int]
    committed_price: Callable[[NodeId], int]
    on_award: Callable[[Awarded], None]
    on_unsold: Callable[[JobTerms, Signed[JobAnnounce], str], None]
    state: machine.Auction | None = None
    terms: JobTerms | None = None
    proposal: tuple[bytes, Award] | None = None
    _early: list[machine.Stimulus] = field(default_factory=list)
    _early_certificates: list[bytes] = field(default_factory=list)
    _poke: trio.Event = field(default_factory=trio.Event)
    _finished: bool = False

    @property
    def job(self) -> JobId:
        return JobId(self.announce.message.job)

    def _now(self) -> int:
        return self.context.wire.clock.monotonic_ms()

    async def run(self) -> None:
        """From the announce to the certificate, or to the word that there will be none."""
        account = await self._confirmed_escrow()
        if account is None:
            return
        await self._open(account)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_for_seat)
            await self._keep_time()
            nursery.cancel_scope.cancel()

    # entering -----------------------------------------------------------------------------------------------------

    async def _confirmed_escrow(self) -> JobAccount | None:
        """The escrow account if it agrees with the announce; a job without one is not bid on."""
        announce = self.announce.message
        account = await self.context.chain.job(self.job)
        cause = ""
        if account is None:
            cause = "no escrow account"
        elif account.requester != self.announce.sender or account.budget != announce.budget:
            cause = "escrow of another requester or budget"
        elif account.spec_hash != announce.spec_hash or account.execution_class != announce.execution_class:
            cause = "escrow for another spec or class"
        elif (account.k, account.units_total) != (announce.k, announce.segments):
            cause = "escrow for another committee size or number of segments"
        elif account.state is JobState.SETTLED:
            cause = "escrow is settled"
        elif announce.program != self.context.chain.program:
            cause = "escrow of another program"
        if cause:
            log.warning("announce not followed", job=base58(self.job), cause=cause)
            return None
        return account

    async def _open(self, account: JobAccount) -> None:
        announce, wire = self.announce.message, self.context.wire
        own = await self._own_bid()
        now_ms = self._now()
        terms = machine.AuctionTerms(
            job=self.job,
            me=wire.me,
            m=QUORUMS[announce.k],
            price_limit=announce.price_limit,
            commit_ms=announce.commit_window_ms,
            reveal_ms=announce.reveal_window_ms,
            round_ms=announce.round_ms,
        )
        self.state, effects = machine.open_auction(terms, self.received_at_ms, self.expected, own)
        self._perform(effects)
        for stimulus in self._early:
            self.apply(stimulus)
        self._early.clear()
        if account.state is JobState.SEATED:
            self._seated(account)
        self.apply(machine.TimePassed(now_ms))

    async def _own_bid(self) -> machine.SealedBid | None:
        context, announce = self.context, self.announce.message
        if not context.settings.provider:
            return None
        account = (await context.registry.nodes()).get(context.wire.me)
        if account is None or account.unbonding_at_s:
            await self._decline(Declined(DeclineReason.STAKE, "not registered, or unbonding"))
            return None
        free = account.stake - self.committed_price(context.wire.me)
        seconds_left = announce.work_deadline_s - context.wire.clock.unix_ms() // 1000
        bid = quote(announce, context.offer(), running=self.running(), free_stake=free, seconds_left=seconds_left)
        if isinstance(bid, Declined):
            await self._decline(bid)
            return None
        return machine.SealedBid(codec.encode(bid), context.randomness.bytes(32))

    async def _decline(self, declined: Declined) -> None:
        log.info("declined", job=base58(self.job), reason=declined.reason.name, hint=declined.hint)
        message = Decline(job=self.job, reason=declined.reason, hint=declined.hint[:120])
        await self.context.wire.publish(market_topic(self.announce.message.execution_class), message)

    async def _watch_for_seat(self) -> None:
        for _ in range(SEAT_POLLS_MAX):
            if self.state is None or self.state.committee:
                return
            await trio.sleep(SEAT_POLL_S)
            try:
                account = await self.context.chain.job(self.job)
            except CyxError as error:
                log.warning("chain not read", job=base58(self.job), cause=str(error))
                continue
            if account is None or account.state is JobState.SETTLED:
                return self._finish()
            if account.state is JobState.SEATED:
                if await self._draw_is_fair(account):
                    self._seated(account)
                else:
                    self._finish()
                return
        self._finish()

    async def _draw_is_fair(self, account: JobAccount) -> bool:
        """DESIGN 8: shun a job where more than one lower ticket that we see alive was passed over."""
        slot_hash = await self.context.chain.slot_hash(account.open_slot)
        if slot_hash is None:
            log.warning("draw not checked: the slot's hash is gone", job=base58(self.job), slot=account.open_slot)
            return True
        nodes, config = await self.context.registry.nodes(), await self.context.registry.config()
        could = [
            node
            for node in self.alive()
            if node in nodes
            and eligible(
                nodes[node],
                execution_class=account.execution_class,
                open_slot=account.open_slot,
                requester=account.requester,
                minimum_stake=config.minimum_stake,
            )
        ]
        passed = passed_over(slot_hash, account, could)
        if len(passed) > 1:
            log.warning("job shunned: its committee was chosen", job=base58(self.job), passed_over=len(passed))
        return len(passed) <= 1

    def _seated(self, account: JobAccount) -> None:
        self.terms = JobTerms(self.context.wire.genesis, self.announce.message, account.open_slot, account.committee)
        log.info("committee seated", job=base58(self.job), seat=self.context.wire.me in account.committee)
        self.apply(machine.CommitteeSeated(account.committee, self._now()))
        for raw in self._early_certificates:
            self.certificate_seen(raw)
        self._early_certificates.clear()

    # time ---------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while not self._finished and self.state is not None:
            wake_ms = machine.next_wake_ms(self.state)
            self._poke = trio.Event()
            seconds = 3600.0 if wake_ms is None else max(0.0, (wake_ms - self._now()) / 1000)
            with trio.move_on_after(seconds):
                await self._poke.wait()
                continue
            self.apply(machine.TimePassed(self._now()))

    def _finish(self) -> None:
        self._finished = True
        self._poke.set()

    # stimuli ------------------------------------------------------------------------------------------------------

    def apply(self, stimulus: machine.Stimulus) -> None:
        """Feed the machine; what arrives before the escrow is confirmed waits for it."""
        if self.state is None:
            self._early.append(stimulus)
            return
        before = self.state.phase
        self.state, effects = machine.step(self.state, stimulus)
        if self.state.phase is not before:
            log.info("auction", job=base58(self.job), phase=self.state.phase.name, cause=type(stimulus).__name__)
        self._perform(effects)
        self._poke.set()

    def gossip(self, signed: Signed[BidCommit | BidReveal | Decline]) -> None:
        """A market message about this job."""
        sender, now_ms = signed.sender, self._now()
        if sender == self.announce.sender:
            return
        match signed.message:
            case BidCommit(commitment=commitment):
                self.apply(machine.CommitSeen(sender, commitment, now_ms))
            case Decline():
                self.apply(machine.DeclineSeen(sender, now_ms))
            case BidReveal() as reveal:
                try:
                    price = decode_bid(reveal).price
                except RemoteError as error:
                    log.info("reveal dropped", job=base58(self.job), peer=base58(sender), cause=str(error))
                    return
                self.apply(machine.RevealSeen(sender, reveal.bid, reveal.salt, price, signed.raw, now_ms))

    def certificate_seen(self, raw: bytes) -> None:
        """A certificate envelope arrived, from gossip or with a request; the first valid one ends the auction."""
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
        self._finish()
        log.info("awarded", job=base58(self.job), winner=base58(certified.winner), price=certified.price)
        self.on_award(Awarded(self.announce, self.terms, certified, raw))

    async def tally_received(self, signed: Signed[Tally]) -> None:
        """A member's tally for us as leader."""
        if self.state is None or not self.state.committee:
            raise Refusal(NOT_YET + "the committee is not known here")
        self.apply(machine.TallyReceived(signed.sender, signed.raw, self._now()))

    async def judge(self, signed: Signed[Proposal]) -> AwardVote:
        """Answer a leader's proposal with our vote, or refuse with the reason."""
        if self.state is None or self.terms is None or self.state.phase is not machine.Phase.ROUNDS:
            raise Refusal(NOT_YET + "no voting round here")
        encoded = codec.encode(signed.message)
        award = recompute(self.terms, encoded)
        await self._check_records(signed.message)
        self.state, vote = machine.judge_proposal(self.state, signed.sender, award)
        if isinstance(vote, str):
            raise Refusal(vote)
        return self._vote(vote.round, vote.digest)

    async def _check_records(self, proposal: Proposal) -> None:
        nodes = await self.context.registry.nodes()
        for record in proposal.records:
            account = nodes.get(NodeId(record.node))
            if account is None or (account.stake, reputation_ppm(account)) != (record.stake, record.reputation_ppm):
                await self.context.registry.nodes(fresh=True)
                raise Refusal("the chain has another record of a bidder")

    def _vote(self, round_: int, digest: bytes) -> AwardVote:
        assert self.terms is not None
        context, journal = self.context, self.context.journal
        nonce = journal.get(b"nonce/" + self.job)
        if nonce is None:
            nonce = context.randomness.bytes(32)
            journal.put(b"nonce/" + self.job, nonce)
        signature = sign_quorum(context.wire.key, journal, QuorumKind.AWARD, 0, round_, self.terms.context, digest)
        return AwardVote(
            job=self.job,
            round=round_,
            digest=digest,
            signature=signature,
            nonce_commitment=nonce_commitment(self.job, context.wire.me, nonce),
        )

    # effects ------------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[machine.Effect]) -> None:
        topic, nursery = market_topic(self.announce.message.execution_class), self.context.nursery
        for effect in effects:
            match effect:
                case machine.PublishCommit(commitment):
                    message = BidCommit(job=self.job, commitment=commitment)
                    nursery.start_soon(self._safely, self.context.wire.publish, topic, message)
                case machine.PublishReveal(bid, salt):
                    reveal = BidReveal(job=self.job, bid=bid, salt=salt)
                    nursery.start_soon(self._safely, self.context.wire.publish, topic, reveal)
                case machine.SendTally(leader, bids):
                    nursery.start_soon(self._safely, self._send_tally, leader, bids)
                case machine.Propose():
                    nursery.start_soon(self._safely, self._propose, effect)
                case machine.PublishCertificate(votes=votes):
                    nursery.start_soon(self._safely, self._publish_certificate, votes)
                case machine.DeclareUnsold(reason):
                    log.info("unsold", job=base58(self.job), cause=reason)
                    assert self.terms is not None
                    self._finish()
                    self.on_unsold(self.terms, self.announce, reason)

    async def _safely(self, action: Callable[..., object], *arguments: object) -> None:
        """An effect that fails is logged with its cause; the machine's timers decide what follows."""
        try:
            await action(*arguments)  # type: ignore[misc]
        except CyxError as error:
            log.warning("effect failed", job=base58(self.job), effect=action.__name__, cause=str(error))

    async def _send_tally(self, leader: NodeId, bids: tuple[bytes, ...]) -> None:
        raw = self.context.wire.seal(Tally(job=self.job, bids=bids))
        if leader == self.context.wire.me:
            self.apply(machine.TallyReceived(leader, raw, self._now()))
        else:
            await self.context.wire.deliver(leader, TALLY, raw, within_s=self.announce.message.round_ms / 1000)

    async def _propose(self, effect: machine.Propose) -> None:
        assert self.terms is not None and self.state is not None
        proposal, award = await self._make_proposal(effect)
        if award.winner is None:
            log.info("nothing to propose", job=base58(self.job), round=effect.round, cause="no bid counts")
            return
        self.proposal = codec.encode(proposal), award
        self.state, own = machine.judge_proposal(self.state, self.context.wire.me, award)
        if isinstance(own, machine.VoteCast):
            raw = self.context.wire.seal(self._vote(own.round, own.digest))
            self.apply(machine.VoteReceived(self.context.wire.me, own.round, raw, self._now()))
        async with trio.open_nursery() as nursery:
            for member in self.terms.committee:
                if member != self.context.wire.me:
                    nursery.start_soon(self._safely, self._collect_vote, member, proposal, award)

    async def _make_proposal(self, effect: machine.Propose) -> tuple[Proposal, Award]:
        assert self.terms is not None
        listed: dict[bytes, int] = {}
        for raw in effect.tallies:
            for digest in tally_of(self.terms, raw).bids:
                listed[digest] = listed.get(digest, 0) + 1
        counted = {n: r for n, r in effect.reveals.items() if listed.get(r.digest, 0) >= self.terms.m}
        nodes = await self.context.registry.nodes()
        records = tuple(
            BidderRecord(node=n, stake=nodes[n].stake, reputation_ppm=reputation_ppm(nodes[n]))
            for n in sorted(counted)
            if n in nodes
        )
        proposal = Proposal(
            job=self.job,
            round=effect.round,
            tallies=effect.tallies,
            reveals=tuple(counted[n].raw for n in sorted(counted)),
            records=records,
        )
        return proposal, recompute(self.terms, codec.encode(proposal))

    async def _collect_vote(self, member: NodeId, proposal: Proposal, award: Award) -> None:
        assert self.terms is not None
        within_s = self.announce.message.round_ms / 1000
        vote = await self.context.wire.ask(member, PROPOSAL, proposal, AwardVote, within_s=within_s)
        check_vote(self.terms, vote, award)
        self.apply(machine.VoteReceived(member, award.round, vote.raw, self._now()))

    async def _publish_certificate(self, votes: tuple[bytes, ...]) -> None:
        if self.proposal is None or self._finished:
            return
        encoded, award = self.proposal
        certificate = AwardCertificate(
            job=self.job, proposal=encoded, winner=award.winner or b"", price=award.price, votes=votes
        )
        topic = market_topic(self.announce.message.execution_class)
        raw = self.context.wire.seal(certificate)
        self.certificate_seen(raw)
        await self.context.wire.transport.publish(topic, raw)


def tally_of(terms: JobTerms, raw: bytes) -> Tally:
    """The tally inside a member's envelope."""
    return open_as(raw, terms.genesis, Tally, max_bytes=8192).message


def certificate_of(terms: JobTerms, raw: bytes) -> CertifiedAward:
    """Open and check a certificate envelope; who published it does not matter, the votes do."""
    return check_certificate(terms, open_as(raw, terms.genesis, AwardCertificate).message)
