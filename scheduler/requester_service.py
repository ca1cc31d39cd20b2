"""The requester's side of one job: fund, announce, seat, serve the spec, watch, fetch, close, receipt (DESIGN 4).

Nothing is announced before the escrow is confirmed; nothing is funded while the class is too small. Whatever happens,
the money that was not paid comes back: by the quorum's verdict, or by `refund_expired` once its time has come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal

import structlog
import trio

from ..protocol.award import CertifiedAward, JobTerms
from ..protocol.chain import CloseJob, JobAccount, JobState, OpenJob, RefundExpired, Seat, Verdict
from ..protocol.committee import draw, eligible
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import (
    ChainRejected,
    ChainUnreachable,
    CyxError,
    LocalError,
    PeerUnreachable,
    Refusal,
    RemoteError,
)
from ..protocol.hashing import job_id
from ..protocol.limits import (
    BLOB_MAX_BYTES,
    CLASS_WAIT_MS,
    COMMIT_WINDOW_MS,
    FRAME_MAX_BYTES,
    QUORUMS,
    REVEAL_WINDOW_MS,
    ROUND_MS,
    SEAT_DEADLINE_SLOTS,
)
from ..protocol.messages import (
    AwardCertificate,
    Capability,
    Decline,
    JobAnnounce,
    Message,
    Outcome,
    Progress,
    ResultClaim,
    ScoreWeights,
    SpecAnswer,
    SpecRequest,
    StartNotice,
)
from ..protocol.ports import Blobs, Chain, Journal, Randomness, Stream
from ..protocol.receipt import Evidence, derived, encode_evidence, fee_split, sign_receipt
from ..protocol.settlement import result_hash, signers
from ..protocol.spec import TrainSpec, encode_spec, spec_hash
from ..protocol.units import JobId, MicroCyx, NodeId, base58, format_cyx
from ..protocol.validation import MARKET_KINDS, market_topic
from .auction_service import certificate_of
from .data_service import DataService
from .job import FINAL, Job, JobEvent, JobPhase, step
from .presence_service import PresenceService
from .pricing import price_range, reserve_price
from .registry import Registry
from .wire import CLAIM, NOT_YET, PROGRESS, SPEC, START, Wire

SEAT_POLL_S = 0.05
OUTCOME_POLL_S = 2.0
ANNOUNCE_AGAIN_S = 0.5
ANNOUNCES_MAX = 20
LAMPORTS_NEEDED = 20_000_000
"""Rent of the job's accounts and the fees of its transactions, with room to spare."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class JobOrder:
    """What the user wants. The spec's data is already in the blob store under its CIDs."""

    spec: TrainSpec
    budget: MicroCyx
    work_mflop: int
    mflop_per_s: int = 5_000
    device: Literal["any", "cpu", "cuda"] = "any"
    memory_mb: int = 0
    region: str = ""
    unsandboxed_ok: bool = False
    k: Literal[3, 5, 7] = 5
    samples: int = 2
    work_seconds: int = 600
    class_wait_ms: int = CLASS_WAIT_MS
    commit_window_ms: int = COMMIT_WINDOW_MS
    reveal_window_ms: int = REVEAL_WINDOW_MS
    round_ms: int = ROUND_MS
    weights: ScoreWeights = field(default_factory=ScoreWeights)


@dataclass(frozen=True, slots=True)
class Stage:
    """News: the job reached a stage."""

    name: str
    at_ms: int
    detail: str


News = Stage | Progress


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended. `weights` is None unless it ended OK; `receipt` is None when nothing was ever funded."""

    job: JobId
    phase: JobPhase
    reason: str
    weights: bytes | None
    receipt: dict[str, Any] | None
    story: Job


@dataclass(slots=True)
class RequesterService:
    """One requester process; it runs one job at a time."""

    wire: Wire
    chain: Chain
    registry: Registry
    presence: PresenceService
    blobs: Blobs
    journal: Journal
    randomness: Randomness
    observe: Callable[[News], None]

    async def submit(self, order: JobOrder) -> JobResult:
        """Run one job from draft to receipt."""
        return await JobRun(self, order).run()


@dataclass(slots=True)
class JobRun:
    """One job of a requester."""

    service: RequesterService
    order: JobOrder
    job: JobId = field(default_factory=lambda: JobId(bytes(32)))
    story: Job = field(default_factory=Job)
    account: JobAccount | None = None
    terms: JobTerms | None = None
    announce: Signed[JobAnnounce] | None = None
    certificate: bytes = b""
    award: CertifiedAward | None = None
    claim: Signed[ResultClaim] | None = None
    outcome: Signed[Outcome] | None = None
    declines: Counter[str] = field(default_factory=Counter)
    stages: dict[str, int] = field(default_factory=dict)
    transactions: dict[str, str] = field(default_factory=dict)
    _spec: bytes = b""
    _heard: bool = False
    _early: list[bytes] = field(default_factory=list)
    _settled: trio.Event = field(default_factory=trio.Event)

    # telling --------------------------------------------------------------------------------------------------------

    def _stage(self, name: str, detail: str = "") -> None:
        now_ms = self.service.wire.clock.unix_ms()
        self.stages.setdefault(name, now_ms)
        log.info("stage", job=base58(self.job), stage=name, detail=detail)
        self.service.observe(Stage(name, now_ms, detail))

    def _event(self, event: JobEvent, cause: str) -> None:
        if self.story.phase in FINAL:
            return
        now_ms = self.service.wire.clock.unix_ms()
        self.story, refused = step(self.story, event, now_ms, cause)
        if refused:
            log.info("event not applied", job=base58(self.job), cause=refused)
            return
        key = b"job/" + self.job + len(self.story.story).to_bytes(4, "big")
        line = story_line(now_ms, self.story.phase.value, cause)
        self.service.journal.put(key, line)

    # the run ----------------------------------------------------------------------------------------------------------

    async def run(self) -> JobResult:
        """Every step in its order; see the module's law."""
        self._stage("submitted")
        execution_class, reason = await self._find_class()
        if execution_class is None:
            self._event(JobEvent.QUEUED, "no class is large enough")
            self._event(JobEvent.UNSOLD, reason)
            self._stage("unsold", reason)
            return JobResult(self.job, self.story.phase, reason, None, None, self.story)
        await self._check_balance()
        topic = market_topic(execution_class)
        self._serve()
        async with self.service.wire.listen(topic, MARKET_KINDS) as messages, trio.open_nursery() as nursery:
            await self._open(execution_class)
            nursery.start_soon(self._follow, messages)
            await self._publish_announce(topic, execution_class)
            nursery.start_soon(self._announce_again, topic)
            nursery.start_soon(self._guard, self._seat)
            nursery.start_soon(self._guard, self._watch_chain)
            await self._settled.wait()
            nursery.cancel_scope.cancel()
        return await self._conclude()

    async def _guard(self, action: Callable[[], Any]) -> None:
        try:
            await action()
        except CyxError as error:
            log.warning("effect failed", job=base58(self.job), effect=action.__name__, cause=str(error))
            self.service.observe(Stage("trouble", self.service.wire.clock.unix_ms(), str(error)))

    def fitting(self) -> dict[bytes, dict[NodeId, Capability]]:
        """Live nodes that could run this job, by execution class."""
        order = self.order
        classes: dict[bytes, dict[NodeId, Capability]] = {}
        for node, offer in self.service.presence.alive().items():
            fits = (
                order.device in ("any", offer.device)
                and offer.memory_mb >= order.memory_mb
                and order.region in ("", offer.region)
                and (offer.sandbox != "none" or order.unsandboxed_ok)
            )
            if fits:
                classes.setdefault(offer.execution_class, {})[node] = offer
        return classes

    async def _find_class(self) -> tuple[bytes | None, str]:
        """The class with the most live, registered nodes, at least k + 1; waits while it is too small."""
        needed, presence = self.order.k + 1, self.service.presence
        best: dict[NodeId, Capability] = {}
        told = -1
        with trio.move_on_after(self.order.class_wait_ms / 1000):
            while True:
                slot = (await self.service.chain.time()).slot
                sizes = {name: await self._seatable(name, slot) for name in self.fitting()}
                name = max(sizes, key=lambda one: (len(sizes[one]), one), default=None)
                best = sizes[name] if name is not None else {}
                if name is not None and len(best) >= needed:
                    await presence.reach(sorted(best))
                    return name, ""
                if told != len(best):
                    told = len(best)
                    self._stage("queued", f"{told} fitting nodes are live, {needed} are needed")
                with trio.move_on_after(0.25):
                    await presence.changed.wait()
        seen = len(presence.alive())
        return None, (
            f"no node fits: {len(best)} of {needed} needed nodes after {self.order.class_wait_ms / 1000:.0f} s; "
            f"{seen} nodes are live in all; nothing was funded"
        )

    async def _seatable(self, execution_class: bytes, open_slot: int) -> dict[NodeId, Capability]:
        """Fitting nodes of a class that may sit on the committee of a job that opens in `open_slot`."""
        registry = self.service.registry
        nodes, config = await registry.nodes(fresh=True), await registry.config()
        return {
            node: offer
            for node, offer in self.fitting().get(execution_class, {}).items()
            if offer.verifier
            and node in nodes
            and eligible(
                nodes[node],
                execution_class=execution_class,
                open_slot=open_slot,
                requester=self.service.wire.me,
                minimum_stake=config.minimum_stake,
            )
        }

    async def _check_balance(self) -> None:
        balance = await self.service.chain.balance(self.service.wire.me)
        if balance.micro_cyx < self.order.budget:
            raise LocalError(
                f"{format_cyx(self.order.budget)} CYX is more than the balance of {format_cyx(balance.micro_cyx)} CYX",
                field="budget",
                fix="lower the budget, or add tokens (on the local chain: cyxnode chain airdrop)",
            )
        if balance.lamports < LAMPORTS_NEEDED:
            raise LocalError(
                f"{balance.lamports} lamports do not cover rent and fees of {LAMPORTS_NEEDED}",
                field="balance",
                fix="add SOL (on the local chain: cyxnode chain airdrop)",
            )

    async def _open(self, execution_class: bytes) -> None:
        service, order = self.service, self.order
        self._spec = encode_spec(order.spec)
        nonce, digest = service.randomness.bytes(32), spec_hash(self._spec)
        self.job = job_id(service.wire.me, nonce, digest)
        config, now_s = await service.registry.config(), service.wire.clock.unix_ms() // 1000
        deadline_s = now_s + order.work_seconds
        instruction = OpenJob(
            nonce=nonce,
            spec_hash=digest,
            execution_class=execution_class,
            budget=order.budget,
            k=order.k,
            units_total=order.spec.segments,
            work_deadline_s=deadline_s,
            refund_at_s=deadline_s + config.grace_s + 1,
        )
        service.journal.put(b"open/" + self.job, nonce + digest)
        self.transactions["open_job"] = await service.chain.submit(instruction)
        self.account = await service.chain.job(self.job)
        if self.account is None:
            raise ChainUnreachable("the escrow was confirmed but cannot be read; see cyxnode chain info")
        self._event(JobEvent.ESCROW_CONFIRMED, self.transactions["open_job"])
        self._stage("funded", f"{format_cyx(order.budget)} CYX in escrow")
        offers = list(self.fitting().get(execution_class, {}).values())
        reserve = reserve_price(offers, order.work_mflop, order.mflop_per_s) or order.budget
        announce = JobAnnounce(
            job=self.job,
            kind="train",
            spec_hash=digest,
            nonce=nonce,
            sent_at_ms=service.wire.clock.unix_ms(),
            program=service.chain.program,
            execution_class=execution_class,
            device=order.device,
            memory_mb=order.memory_mb,
            region=order.region,
            unsandboxed_ok=order.unsandboxed_ok,
            datasets=(order.spec.train_cid, order.spec.validation_cid),
            work_mflop=order.work_mflop,
            budget=order.budget,
            reserve=min(reserve, order.budget),
            work_deadline_s=deadline_s,
            commit_window_ms=order.commit_window_ms,
            reveal_window_ms=order.reveal_window_ms,
            round_ms=order.round_ms,
            weights=order.weights,
            k=order.k,
            segments=order.spec.segments,
            samples=order.samples,
            addresses=service.wire.transport.addresses(),
        )
        self.announce = open_as(service.wire.seal(announce), service.wire.genesis, JobAnnounce)

    def estimate(self) -> tuple[int, int]:
        """Lowest and highest live price in micro-CYX, before anything is signed."""
        best = max(self.fitting().values(), key=len, default={})
        return price_range(list(best.values()), self.order.work_mflop, self.order.mflop_per_s)

    async def _publish_announce(self, topic: str, execution_class: bytes) -> None:
        assert self.announce is not None
        await self.service.wire.transport.publish(topic, self.announce.raw)
        self._event(JobEvent.ANNOUNCED, "gossiped")
        self._stage("announced", f"class {execution_class[:4].hex()}")

    async def _announce_again(self, topic: str) -> None:
        """Until somebody answers: gossip may be lost, and nodes know a job that they have heard of by its id."""
        for _ in range(ANNOUNCES_MAX):
            await trio.sleep(ANNOUNCE_AGAIN_S)
            if self._heard or self.announce is None:
                return
            self._stage("announced again", "nobody has answered yet")
            await self.service.wire.transport.publish(topic, self.announce.raw)

    async def _seat(self) -> None:
        """Draw and seat the committee as soon as the open slot's hash is known."""
        account = self.account
        assert account is not None
        slot_hash: bytes | None = None
        while slot_hash is None:
            await trio.sleep(SEAT_POLL_S)
            now = await self.service.chain.time()
            if now.slot > account.open_slot + SEAT_DEADLINE_SLOTS:
                raise LocalError("the committee was not seated in time", field="seat", fix="wait for the refund")
            if now.slot > account.open_slot:
                slot_hash = await self.service.chain.slot_hash(account.open_slot)
        could = await self._seatable(account.execution_class, account.open_slot)
        committee = draw(slot_hash, self.job, could, account.k)
        if len(committee) < account.k:
            raise LocalError(f"only {len(committee)} nodes may sit, {account.k} are needed", field="committee")
        self.transactions["seat"] = await self.service.chain.submit(Seat(self.job, committee))
        self._knows_committee(committee)

    def _knows_committee(self, committee: tuple[NodeId, ...]) -> None:
        if self.terms is not None or self.announce is None or self.account is None:
            return
        self.terms = JobTerms(self.service.wire.genesis, self.announce.message, self.account.open_slot, committee)
        self._stage("seated", ", ".join(base58(node)[:8] for node in committee))
        for raw in self._early:
            self._on_certificate(raw)

    async def _watch_chain(self) -> None:
        """The chain is the last word: it settles a job whose outcome we missed, and refunds one that expired."""
        while True:
            await trio.sleep(OUTCOME_POLL_S)
            try:
                account = await self.service.chain.job(self.job)
                if account is None or account.state is JobState.SETTLED:
                    self.account = account or self.account
                    await trio.sleep(OUTCOME_POLL_S)
                    self._settled.set()
                    return
                self.account = account
                if account.committee:
                    self._knows_committee(account.committee)
                if (await self.service.chain.time()).unix_s >= account.refund_at_s:
                    await self._refund()
                    return
            except (ChainUnreachable, ChainRejected) as error:
                log.warning("chain not read", job=base58(self.job), cause=str(error))

    async def _refund(self) -> None:
        self.transactions["refund_expired"] = await self.service.chain.submit(RefundExpired(self.job))
        self._event(JobEvent.EXPIRED, "the refund time has come")
        self._stage("expired", "no verdict in time; the budget is back")
        self._settled.set()

    # what the others say ----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        wire = self.service.wire
        DataService(wire, self.service.blobs).start()
        wire.serve(SPEC, SpecRequest, self._on_spec)
        wire.serve(START, StartNotice, self._on_start)
        wire.serve(CLAIM, ResultClaim, self._on_claim)
        wire.transport.serve_stream(PROGRESS, self._on_progress)

    async def _follow(self, messages: Any) -> None:
        signed: Signed[Message]
        async for signed in messages:
            self._heard = self._heard or getattr(signed.message, "job", b"") == self.job
            match signed.message:
                case AwardCertificate(job=job) if job == self.job:
                    self._on_certificate(signed.raw)
                case Decline(job=job, reason=reason) if job == self.job:
                    self.declines[reason.name] += 1
                    hint = signed.message.hint
                    self._stage("declined", f"{base58(signed.sender)[:8]} {reason.name.lower()}: {hint}")
                case Outcome(job=job) if job == self.job:
                    self._on_outcome(Signed(signed.sender, signed.message, signed.raw))
                case _:
                    pass

    def _on_certificate(self, raw: bytes) -> None:
        if self.award is not None:
            return
        if self.terms is None:
            if len(self._early) < len(QUORUMS):
                self._early.append(raw)
            return
        try:
            self.award = certificate_of(self.terms, raw)
        except RemoteError as error:
            log.warning("certificate dropped", job=base58(self.job), cause=str(error))
            return
        self.certificate = raw
        self._event(JobEvent.AWARDED, base58(self.award.winner))
        self._stage("awarded", f"{base58(self.award.winner)[:8]} at {format_cyx(self.award.price)} CYX")

    async def _on_spec(self, signed: Signed[SpecRequest]) -> SpecAnswer:
        if signed.message.job != self.job:
            raise Refusal("not a job of this requester")
        if self.terms is None:
            raise Refusal(NOT_YET + "the committee is not known here")
        self._on_certificate(signed.message.certificate)
        if self.award is None or signed.sender not in (self.award.winner, *self.terms.committee):
            raise Refusal("the spec goes to the winner and the committee only")
        return SpecAnswer(spec=self._spec)

    async def _on_start(self, signed: Signed[StartNotice]) -> None:
        self._from_winner(signed.sender)
        self._event(JobEvent.STARTED, base58(signed.sender))
        self._stage("started")

    def _from_winner(self, sender: NodeId) -> None:
        if self.award is None:
            raise Refusal(NOT_YET + "no award is known here")
        if sender != self.award.winner:
            raise Refusal("not the winner of this job", peer=sender)

    async def _on_claim(self, signed: Signed[ResultClaim]) -> None:
        self._from_winner(signed.sender)
        if self.claim is None and signed.message.job == self.job:
            self.claim = signed
            self._event(JobEvent.CLAIMED, signed.message.final_status)
            self._stage("claimed", signed.message.message or signed.message.final_status)

    async def _on_progress(self, stream: Stream) -> None:
        self._from_winner(stream.peer)
        last = -1
        while (frame := await stream.receive()) is not None:
            signed = open_as(frame, self.service.wire.genesis, Progress, max_bytes=FRAME_MAX_BYTES)
            if signed.sender != stream.peer or signed.message.job != self.job:
                raise RemoteError("progress of another worker or job", peer=stream.peer)
            if signed.message.sequence > last:
                last = signed.message.sequence
                if last == 0:
                    self._stage("training")
                self.service.observe(signed.message)

    def _on_outcome(self, signed: Signed[Outcome]) -> None:
        if self.outcome is not None or self.terms is None:
            return
        if len(signers(self.terms, signed.message)) < self.terms.m:
            log.warning("outcome dropped: too few signatures", job=base58(self.job))
            return
        self.outcome = signed
        self.transactions["settle"] = signed.message.transaction
        self._stage("settled", f"{Verdict(signed.message.verdict).name} {signed.message.reason}".strip())
        self._settled.set()

    # the end ----------------------------------------------------------------------------------------------------------

    async def _conclude(self) -> JobResult:
        verdict = self._verdict()
        if verdict is None:
            return JobResult(self.job, self.story.phase, "expired and refunded", None, None, self.story)
        reason = self.outcome.message.reason if self.outcome is not None else ""
        event = {Verdict.OK: JobEvent.SETTLED, Verdict.UNSOLD: JobEvent.UNSOLD, Verdict.CANCELLED: JobEvent.CANCELLED}
        weights: bytes | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._guard, self._close)
            if verdict is Verdict.OK:
                weights = await self._fetch_weights()
        self._event(event.get(verdict, JobEvent.FAILED), reason or verdict.name)
        self._stage("completed", reason)
        return JobResult(self.job, self.story.phase, reason, weights, self._receipt(), self.story)

    def _verdict(self) -> Verdict | None:
        if self.outcome is not None:
            return Verdict(self.outcome.message.verdict)
        return self.account.verdict if self.account is not None and self.story.phase is not JobPhase.EXPIRED else None

    async def _close(self) -> None:
        self.transactions["close_job"] = await self.service.chain.submit(CloseJob(self.job))
        self._stage("closed")

    async def _fetch_weights(self) -> bytes | None:
        """From the worker, else from a member, which holds them since its check."""
        assert self.terms is not None and self.award is not None
        if self.claim is None or result_hash(self.claim.message) != self._result_hash():
            log.error("result not fetched: the settled claim never arrived", job=base58(self.job))
            return None
        claim = self.claim.message
        data = DataService(self.service.wire, self.service.blobs)
        for source in (self.award.winner, *self.terms.committee):
            try:
                cid = claim.model_weights_uri.removeprefix("ipfs://")
                weights = await data.fetch(source, cid, max_bytes=min(BLOB_MAX_BYTES, claim.model_weights_bytes))
            except (PeerUnreachable, RemoteError) as error:
                log.warning("weights not fetched", job=base58(self.job), peer=base58(source), cause=str(error))
                continue
            if sha256(weights).digest() == claim.model_weights_hash:
                self._stage("fetched", f"{len(weights)} bytes")
                return weights
        return None

    def _result_hash(self) -> bytes:
        return self.outcome.message.result_hash if self.outcome is not None else b""

    def _receipt(self) -> dict[str, Any] | None:
        if self.outcome is None or self.announce is None or self.terms is None or self.account is None:
            return None
        outcome = self.outcome.message
        claim = self.claim.raw if self.claim is not None and outcome.verdict == Verdict.OK else b""
        evidence = Evidence(self.announce.raw, self.certificate, claim, self.outcome.raw)
        account, started_ms = self.account, self.stages["submitted"]
        split = fee_split(
            outcome.price, outcome.units, account.units_total, account.fee_bps, account.verifier_share_bps
        )
        receipt = {
            "version": 1,
            "network": {
                "genesis": base58(self.service.wire.genesis),
                "program": base58(self.service.chain.program),
            },
            "requester": base58(self.service.wire.me),
            "committee": [base58(node) for node in self.terms.committee],
            "open_slot": account.open_slot,
            "paid": {**split, "fee_bps": account.fee_bps, "verifier_share_bps": account.verifier_share_bps},
            "transactions": self.transactions,
            "timeline_ms": {name: at_ms - started_ms for name, at_ms in self.stages.items()},
            "completed_in_ms": self.stages["completed"] - started_ms,
            "evidence": encode_evidence(evidence),
            **derived(self.terms, evidence),
        }
        return sign_receipt(receipt, self.service.wire.key)


def story_line(at_ms: int, phase: str, cause: str) -> bytes:
    """One line of a job's story in the journal."""
    return f"{at_ms}\t{phase}\t{cause}".encode()
