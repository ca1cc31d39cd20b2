"""What a committee member does about one worker's claim: check it, and judge the verdicts of others (DESIGN 7).

A hand-over ends one ClaimCheck and begins the next; what an ended one still finds out is told to nobody. What fails on
our own side (disk, memory, our process) convicts nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol import codec
from ..protocol.award import JobTerms
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import ExecutionFailed, LocalError, PeerUnreachable, Refusal, RemoteError, TransientError
from ..protocol.hashing import trace_digest, verdict_commitment
from ..protocol.limits import CONFIRM_TIMEOUT_S, REPLAY_TRIES_MAX, VERDICT_REVEAL_WAIT_MS
from ..protocol.messages import Claim, Opening, OpenRequest, SpecAnswer, VerdictBody, VerdictCommit, VerdictReveal
from ..protocol.settlement import NO_SEAL
from ..protocol.units import JobId, NodeId, base58
from .auction_voting import Awarded, sampling_nonce
from .case_checks import judge_reveal
from .checker_choice import checker_for, impossible
from .checking import Checker, CheckReport, samples_of
from .context import NodeContext
from .data_service import DataService
from .supervision import contained, supervised
from .task_fetch import Task, TaskSearch, fetch_task
from .traces import opening_fits, traces_of
from .verification_events import (
    CommitReceived,
    DisputeReplayed,
    Finding,
    FindingRevealed,
    SamplesReplayed,
    Stimulus,
    TaskSought,
    TracesOpened,
)
from .wire import COMMIT, OPEN, REVEAL

log = structlog.get_logger()


@dataclass(slots=True)
class ClaimCheck:
    """The check of one worker's claim. `tell` feeds the case's machine; `commits` are the sealed verdicts so far;
    `early_reveals` came before the worker opened its traces."""

    context: NodeContext
    data: DataService
    awarded: Awarded
    tell: Callable[[Stimulus], None]
    commits: Callable[[], Mapping[NodeId, bytes]]
    on_defect: Callable[[], None]
    claim: Signed[Claim] | None = None
    early_reveals: dict[NodeId, Signed[VerdictReveal]] = field(default_factory=dict)
    _search: TaskSearch = field(init=False)
    _task: Task | None = None
    _checker: Checker | None = None
    _report: CheckReport = field(default_factory=lambda: CheckReport(False))
    _body: bytes = b""
    _traces: list[bytes] | None = None
    """What the worker opened."""
    _efforts: set[trio.CancelScope] = field(default_factory=set)
    _ended: bool = False

    def __post_init__(self) -> None:
        self._search = TaskSearch(self.context, self.data, self.awarded)

    @property
    def worker(self) -> NodeId:
        return self.awarded.certified.winner

    @property
    def terms(self) -> JobTerms:
        return self.awarded.terms

    @property
    def job(self) -> JobId:
        return self.terms.job

    @property
    def seal(self) -> bytes:
        """The worker's over its claim, which FRAUD needs."""
        return self.claim.message.seal if self.claim is not None else NO_SEAL

    def _now(self) -> int:
        return self.context.wire.clock.monotonic_ms()

    def _tell(self, stimulus: Stimulus) -> None:
        if not self._ended:
            self.tell(stimulus)

    def start(self, action: Callable[..., Awaitable[object]], *arguments: object) -> None:
        """Do something of this check in the background."""
        self.context.nursery.start_soon(self._effort, action, *arguments)

    async def _effort(self, action: Callable[..., Awaitable[object]], *arguments: object) -> None:
        with trio.CancelScope() as scope:
            self._efforts.add(scope)
            await supervised(self.job, self.on_defect, action, *arguments)
        self._efforts.discard(scope)

    def end(self) -> None:
        """Another worker took over: whatever is under way is in vain."""
        self._ended = True
        for scope in self._efforts:
            scope.cancel()

    # what others say ------------------------------------------------------------------------------------------------

    async def give_spec(self) -> SpecAnswer:
        """The spec for a worker whom the requester did not answer: we ask the requester for it."""
        if not self._search.begun:
            self.start(self._search.run)
        return self._search.answer()

    def reveal_received(self, signed: Signed[VerdictReveal]) -> None:
        """A member opened its verdict; it is judged once the worker opened the traces to us."""
        member = self.terms.member(signed.sender)
        if self._traces is None:
            self.early_reveals.setdefault(member, signed)
            return
        finding, reason = judge_reveal(self.terms, self.awarded.certified, self.commits(), self._traces, signed)
        self._tell(FindingRevealed(member, finding, reason, self._now()))

    # the check ------------------------------------------------------------------------------------------------------

    def _nonce(self) -> bytes:
        return sampling_nonce(self.context, self.job)

    async def _checks(self) -> Checker:
        """What checks the claim; the same from the first check to the last."""
        if self.claim is None:
            raise Refusal("there is nothing to replay yet")
        if self._checker is None:
            self._task = self._search.task or await fetch_task(self.context, self.data, self.awarded)
            self._checker = checker_for(self.context, self.data, self.claim, self._task)
        return self._checker

    async def seek_task(self) -> None:
        """See for ourselves whether the requester serves what can be computed."""
        found, reason = await self._search.run(), ""
        if found and self.claim is not None and self.claim.message.final_status == "invalid":
            reason = await impossible(self.context, self._search.task)
        self._tell(TaskSought(found and not reason, self._now(), reason))

    async def replay_samples(self) -> None:
        """Check the claim by our own samples."""
        samples = samples_of(self.terms, self.context.wire.me, self._nonce())
        for attempt in range(1, REPLAY_TRIES_MAX + 1):
            try:
                report = await (await self._checks()).check(samples)
                break
            except (RemoteError, PeerUnreachable) as error:
                report = CheckReport(False, reason=str(error))
                break
            except (ExecutionFailed, LocalError, TransientError) as error:
                # our own process, disk or model server failed, which says nothing of the worker
                log.warning("replay failed here", job=base58(self.job), attempt=attempt, cause=str(error))
                if attempt == REPLAY_TRIES_MAX:
                    raise
        self._report = report
        self._tell(SamplesReplayed(report.ok, report.mismatch_segment, report.reason, self._now(), report.conviction))

    async def replay_disputed(self, segment: int) -> None:
        """A worker that does not serve the accused segment is convicted; what fails on our side convicts nobody."""
        mismatch, conviction = False, None
        try:
            report = await (await self._checks()).check_segment(segment)
            mismatch, conviction = not report.ok, report.conviction
        except (RemoteError, PeerUnreachable) as error:
            log.warning("accused segment not served", job=base58(self.job), segment=segment, cause=str(error))
            mismatch = True
        finally:
            self._tell(DisputeReplayed(segment, mismatch, self._now(), conviction))

    async def send_commit(self, finding: Finding) -> None:
        """Seal our verdict, and send it to all members."""
        me = self.context.wire.me
        body = VerdictBody(
            ok=finding.ok,
            mismatch_segment=finding.mismatch_segment,
            trace_digest=trace_digest(me, self._report.traces),
            reason=self._report.reason[:500],
        )
        self._body = codec.encode(body)
        self.context.counts["verdicts/ok" if finding.ok else "verdicts/refuted"] += 1
        commitment = verdict_commitment(self.job, me, self._nonce(), self._body)
        raw = self.context.wire.seal(VerdictCommit(job=self.job, commitment=commitment))
        self._tell(CommitReceived(me, raw, self._now()))
        await self.context.wire.tell_all(self.terms.committee, COMMIT, raw, within_s=CONFIRM_TIMEOUT_S)

    async def ask_opening(self, commits: tuple[bytes, ...]) -> None:
        """All verdicts are sealed: have the worker open its traces."""
        checker = await self._checks()
        worker, request = checker.claim.sender, OpenRequest(job=self.job, commits=commits)
        try:
            opening = await self.context.wire.ask(
                worker, OPEN, request, Opening, within_s=VERDICT_REVEAL_WAIT_MS / 1000
            )
        except RemoteError as error:
            log.warning("traces not opened", job=base58(self.job), cause=str(error))
            self._tell(TracesOpened("the worker did not open its traces", self._now()))
            return
        self._tell(TracesOpened(self._refuted(checker, opening.message), self._now()))
        early, self.early_reveals = self.early_reveals, {}
        for signed in early.values():
            contained(self.reveal_received, signed)

    def _refuted(self, checker: Checker, opening: Opening) -> str:
        """Why an opening convicts the worker, or ''; then its traces are kept."""
        sizes = checker.sizes()
        if not opening_fits(opening, sizes, checker.claim.message.traces):
            return "the worker did not open the traces that it committed to"
        traces = traces_of(opening, sizes)
        drawn = [traces[segment] for segment in samples_of(self.terms, self.context.wire.me, self._nonce())]
        if self._report.ok and drawn != self._report.traces:
            return "the traces that the worker opened are not those of the work"
        self._traces = traces
        return ""

    async def send_reveal(self) -> None:
        """Open our verdict to all members."""
        raw = self.context.wire.seal(VerdictReveal(job=self.job, nonce=self._nonce(), body=self._body))
        self.reveal_received(open_as(raw, self.terms.genesis, VerdictReveal))
        await self.context.wire.tell_all(self.terms.committee, REVEAL, raw, within_s=VERDICT_REVEAL_WAIT_MS / 1000)
