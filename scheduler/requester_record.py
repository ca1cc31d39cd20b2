"""All that a requester knows of one job, told to the user and written to the journal as it grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog
import trio

from ..protocol.award import CertifiedAward, JobTerms
from ..protocol.chain import JobAccount, Verdict
from ..protocol.envelope import Signed
from ..protocol.errors import LocalError
from ..protocol.handover import Successor, succeeded
from ..protocol.limits import PROGRESS_KEPT_MS
from ..protocol.messages import Claim, Decline, JobAnnounce, Outcome, Progress, Tokens
from ..protocol.ports import Clock, Journal
from ..protocol.settlement import result_hash
from ..protocol.units import JobId, NodeId, base58, format_cyx
from .chronicle import Chronicler
from .chronicle_facts import (
    NEEDED,
    AnyFact,
    Declined,
    Kept,
    Moved,
    Named,
    Placed,
    Reached,
    Sent,
    Troubled,
    Worked,
    clipped,
)
from .job import FINAL, Job, JobEvent, JobPhase, step
from .orders import JobResult, News, Order, Origin, Stage

log = structlog.get_logger()


@dataclass(slots=True)
class JobRecord:
    """One job of a requester. `stages` are Unix ms; `transactions` are signatures by instruction name.

    `changed` is set, and made anew, at every stage. Nothing is written to the journal before `place`.
    """

    order: Order
    clock: Clock
    journal: Journal
    observe: Callable[[News], None]
    job: JobId = field(default_factory=lambda: JobId(bytes(32)))
    spec: bytes = b""
    story: Job = field(default_factory=Job)
    account: JobAccount | None = None
    terms: JobTerms | None = None
    announce: Signed[JobAnnounce] | None = None
    certificate: bytes = b""
    award: CertifiedAward | None = None
    """With the present worker and its price; `rank` is its rank in the award's ranking."""
    rank: int = 0
    handovers: list[tuple[int, bytes]] = field(default_factory=list)
    """Ranks of those who took over, with the envelopes of the certificates."""
    claim: Signed[Claim] | None = None
    former_claims: list[Signed[Claim]] = field(default_factory=list)
    """Of workers that others took over from."""
    outcome: Signed[Outcome] | None = None
    heard: dict[int, str] = field(default_factory=dict)
    """Of an inference: the texts that were streamed, by prompt."""
    ended: set[int] = field(default_factory=set)
    """Prompts whose answer was streamed to its last piece."""
    declines: dict[NodeId, Decline] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    transactions: dict[str, str] = field(default_factory=dict)
    changed: trio.Event = field(default_factory=trio.Event)
    chronicler: Chronicler | None = None
    _told: dict[str, AnyFact] = field(default_factory=dict)
    _worked_ms: int = -PROGRESS_KEPT_MS

    def place(self, origin: Origin) -> None:
        """The order is accepted here: its chronicle begins."""
        order = self.order
        self.chronicler = Chronicler.begin(self.journal)
        self._tell(
            Placed(
                kind=order.kind,
                what=clipped(order.what),
                budget=order.budget,
                k=order.k,
                wait_ms=order.class_wait_ms,
                work_seconds=order.work_seconds,
                results=origin.results,
                process=origin.process,
            )
        )
        self.stage("submitted")

    @property
    def number(self) -> int:
        """Of the chronicle; 0 before there is one."""
        return self.chronicler.number if self.chronicler is not None else 0

    def _tell(self, fact: AnyFact) -> None:
        """Write a fact down; LocalError when the disk refuses one that is NEEDED."""
        if self.chronicler is None:
            return
        try:
            self.chronicler.tell(self.clock.unix_ms(), fact)
        except LocalError as error:
            if isinstance(fact, NEEDED):
                raise
            log.warning("not written down", job=base58(self.job), cause=str(error))

    def named(self, job: JobId) -> None:
        """The job has an id: on disk before the transaction that funds it is sent."""
        self.job = job
        self._tell(Named(job=job))

    def keep(self, what: Literal["announce", "certificate", "handover", "claim", "outcome"], raw: bytes) -> None:
        """A signed envelope, as evidence for later."""
        self._tell(Kept(what=what, raw=raw))

    def sent(self, name: str, signature: str) -> None:
        """A transaction, by the name of its instruction."""
        self.transactions[name] = signature
        self._tell(Sent(name=name, signature=signature[:96]))

    def stage(self, name: str, detail: str = "", fact: AnyFact | None = None) -> None:
        """The job reached a stage; its first time counts. `fact` says in the chronicle what the detail says here."""
        now_ms = self.clock.unix_ms()
        self.stages.setdefault(name, now_ms)
        told = fact or Reached(stage=name, detail=clipped(detail))
        if self._told.get(name) != told:
            self._told[name] = told
            self._tell(told)
        log.info("stage", job=base58(self.job), stage=name, detail=detail)
        self.changed.set()
        self.changed = trio.Event()
        self.observe(Stage(name, now_ms, detail))

    def heard_tokens(self, piece: Tokens) -> None:
        """A piece of the answer came from the worker."""
        if not self.heard:
            self.stage("answering")
        self.heard[piece.prompt_index] = self.heard.get(piece.prompt_index, "") + piece.text
        if piece.last:
            self.ended.add(piece.prompt_index)
        self._work(0, 0, 0, 0)
        self.observe(piece)

    def progressed(self, news: Progress) -> None:
        """The worker's live metrics."""
        self._work(news.progress_ppm, news.current_epoch, news.batch_loss_micro, news.batch_accuracy_micro)
        self.observe(news)

    def _work(self, progress_ppm: int, epoch: int, loss_micro: int, accuracy_micro: int) -> None:
        now_ms = self.clock.unix_ms()
        if self.chronicler is None or now_ms < self._worked_ms + PROGRESS_KEPT_MS:
            return
        self._worked_ms = now_ms
        news = Worked(
            progress_ppm=progress_ppm,
            epoch=epoch,
            loss_micro=loss_micro,
            accuracy_micro=accuracy_micro,
            characters=sum(map(len, self.heard.values())),
        )
        self._tell(news)

    def declined_by(self, node: NodeId, decline: Decline) -> None:
        """A node will not bid."""
        self.declines[node] = decline
        reason = decline.reason.name
        text = f"{base58(node)[:8]} {reason.lower()}: {decline.hint}"
        self.stage("declined", text, Declined(node=node, reason=reason, hint=decline.hint))

    def hand_over(self, successor: Successor, raw: bytes, reason: str) -> None:
        """Another node takes over and begins anew, by the certificate in the envelope `raw`."""
        if self.award is None:
            return
        self.award, self.rank = succeeded(self.award, successor), successor.rank
        self.handovers.append((successor.rank, raw))
        self.former_claims += [self.claim] if self.claim is not None else []
        self.claim = None
        self.heard.clear()
        self.ended.clear()
        self.keep("handover", raw)
        self.event(JobEvent.HANDED_OVER, f"{base58(successor.node)}: {reason}")
        now = f"{base58(successor.node)[:8]} takes over at {format_cyx(successor.price)} CYX and begins anew"
        self.stage("handed over", f"{now}: {reason}")

    def trouble(self, detail: str) -> None:
        """Something went wrong that does not end the job."""
        told = Troubled(detail=clipped(detail))
        if self._told.get("trouble") != told:
            self._told["trouble"] = told
            self._tell(told)
        log.warning("trouble", job=base58(self.job), cause=detail)
        self.observe(Stage("trouble", self.clock.unix_ms(), detail))

    def event(self, event: JobEvent, cause: str) -> None:
        """Move the story on, and write the step to the journal; an illegal step changes nothing."""
        if self.story.phase in FINAL:
            return
        now_ms = self.clock.unix_ms()
        self.story, refused = step(self.story, event, now_ms, cause)
        if refused:
            log.info("event not applied", job=base58(self.job), cause=refused)
            return
        self._tell(Moved(phase=self.story.phase.value, cause=clipped(cause)))

    def verdict(self) -> Verdict | None:
        """The quorum's, from its outcome, else as the chain has it; None when it never gave one."""
        if self.outcome is not None:
            return Verdict(self.outcome.message.verdict)
        expired = self.account is None or self.story.phase is JobPhase.EXPIRED
        return None if expired or self.account is None else self.account.verdict

    def settled_claim(self) -> Claim | None:
        """The claim that the quorum accepted, if it is here."""
        signed = self.signed_claim()
        return signed.message if signed is not None else None

    def signed_claim(self) -> Signed[Claim] | None:
        """The same in its envelope."""
        if self.outcome is None:
            return None
        accepted = self.outcome.message.result_hash
        claims = [*([self.claim] if self.claim is not None else []), *self.former_claims]
        return next((signed for signed in claims if result_hash(signed.message) == accepted), None)

    def handovers_to(self, worker: bytes) -> tuple[bytes, ...]:
        """The hand-overs that lead to the worker that was settled with; all of them when it was none of those."""
        last = self.award.rank_of(worker) if self.award is not None else -1
        return tuple(raw for rank, raw in self.handovers if last < 0 or rank <= last)

    def declined(self) -> dict[str, int]:
        """Nodes that would not bid, counted by reason."""
        return dict(sorted(Counter(decline.reason.name for decline in self.declines.values()).items()))

    def why_declined(self) -> str:
        """One clause with each reason and its nearest hint, e.g. '3 PRICE (from 0.02 CYX here)'."""
        hints = {decline.reason.name: decline.hint for decline in self.declines.values()}
        return ", ".join(f"{count} {name} ({hints[name]})" for name, count in self.declined().items())

    def result(self, reason: str) -> JobResult:
        """The end, without weights and receipt."""
        return JobResult(
            self.job, self.story.phase, reason, None, None, self.story, self.declined(), number=self.number
        )
