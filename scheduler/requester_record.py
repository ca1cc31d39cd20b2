"""All that a requester knows of one job, told to the user and written to the journal as it grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol.award import CertifiedAward, JobTerms
from ..protocol.chain import JobAccount, Verdict
from ..protocol.envelope import Signed
from ..protocol.messages import Claim, Decline, JobAnnounce, Outcome, Tokens
from ..protocol.ports import Clock, Journal
from ..protocol.settlement import result_hash
from ..protocol.units import JobId, NodeId, base58
from .job import FINAL, Job, JobEvent, JobPhase, step
from .orders import JobResult, News, Order, Stage

log = structlog.get_logger()


@dataclass(slots=True)
class JobRecord:
    """One job of a requester. `stages` are Unix ms; `transactions` are signatures by instruction name.

    `changed` is set, and made anew, at every stage.
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
    claim: Signed[Claim] | None = None
    outcome: Signed[Outcome] | None = None
    heard: dict[int, str] = field(default_factory=dict)
    """Of an inference: the texts that were streamed, by prompt."""
    ended: set[int] = field(default_factory=set)
    """Prompts whose answer was streamed to its last piece."""
    declines: dict[NodeId, Decline] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    transactions: dict[str, str] = field(default_factory=dict)
    changed: trio.Event = field(default_factory=trio.Event)

    def stage(self, name: str, detail: str = "") -> None:
        """The job reached a stage; its first time counts."""
        now_ms = self.clock.unix_ms()
        self.stages.setdefault(name, now_ms)
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
        self.observe(piece)

    def trouble(self, detail: str) -> None:
        """Something went wrong that does not end the job."""
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
        key = b"job/" + self.job + len(self.story.story).to_bytes(4, "big")
        self.journal.put(key, story_line(now_ms, self.story.phase.value, cause))

    def verdict(self) -> Verdict | None:
        """The quorum's, from its outcome, else as the chain has it; None when it never gave one."""
        if self.outcome is not None:
            return Verdict(self.outcome.message.verdict)
        expired = self.account is None or self.story.phase is JobPhase.EXPIRED
        return None if expired or self.account is None else self.account.verdict

    def settled_claim(self) -> Claim | None:
        """The claim that the quorum accepted, if it is here."""
        if self.claim is None or self.outcome is None:
            return None
        claim = self.claim.message
        return claim if result_hash(claim) == self.outcome.message.result_hash else None

    def declined(self) -> dict[str, int]:
        """Nodes that would not bid, counted by reason."""
        return dict(sorted(Counter(decline.reason.name for decline in self.declines.values()).items()))

    def why_declined(self) -> str:
        """One clause with each reason and its nearest hint, e.g. '3 PRICE (from 0.02 CYX here)'."""
        hints = {decline.reason.name: decline.hint for decline in self.declines.values()}
        return ", ".join(f"{count} {name} ({hints[name]})" for name, count in self.declined().items())

    def result(self, reason: str) -> JobResult:
        """The end, without weights and receipt."""
        return JobResult(self.job, self.story.phase, reason, None, None, self.story, self.declined())


def story_line(at_ms: int, phase: str, cause: str) -> bytes:
    """One line of a job's story in the journal."""
    return f"{at_ms}\t{phase}\t{cause}".encode()
