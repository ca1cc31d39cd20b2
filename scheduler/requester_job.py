"""One job of a requester, every step in its order: fund, announce, seat, listen, fetch, close, receipt (DESIGN 4).

Nothing is announced before the escrow is confirmed. Whatever happens, the money that was not paid comes back: by the
quorum's verdict, or by `refund_expired` once its time has come.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import msgspec
import structlog
import trio

from ..protocol.award import CertifiedAward
from ..protocol.chain import CloseJob, Verdict
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import ChainRejected, CyxError
from ..protocol.inference import Answers
from ..protocol.limits import PEERS_CONNECTED_MAX, TOKENS_TEXT_MAX_CHARS
from ..protocol.messages import JobAnnounce, Tokens
from ..protocol.units import NodeId, base58
from ..protocol.validation import market_topic
from .data_service import DataService
from .job import JobEvent, JobPhase
from .orders import JobResult, Origin
from .receipt_builder import build_receipt
from .requester_funding import Funding
from .requester_listener import Listener
from .requester_record import JobRecord
from .requester_watch import ChainWatch
from .result_fetch import answers_of, fetch_result
from .supervision import plain_nursery
from .token_reader import TokenReader, unheard
from .wire import ANNOUNCE, Wire

ANNOUNCE_AGAIN_S = 0.5
ANNOUNCE_LATER_S = 10.0
ANNOUNCES_QUICK = 10
EVENTS = {
    Verdict.OK: JobEvent.SETTLED,
    Verdict.UNSOLD: JobEvent.UNSOLD,
    Verdict.CANCELLED: JobEvent.CANCELLED,
    Verdict.FRAUD: JobEvent.FRAUD,
}

log = structlog.get_logger()


@dataclass(slots=True)
class JobRun:
    """The order of things. `join` follows a market topic; `on_funded` gets the job's ears as soon as its id exists."""

    wire: Wire
    data: DataService
    funding: Funding
    record: JobRecord
    join: Callable[[str], Awaitable[None]]
    on_funded: Callable[[Listener], None]
    _settled: trio.Event = field(default_factory=trio.Event)

    async def run(self, origin: Origin) -> JobResult:
        """From draft to receipt; LocalError and chain errors only while nothing is funded."""
        await self.funding.check_terms()
        self.record.place(origin)
        try:
            topic, reason = await self._fund()
        except CyxError as error:
            if any(self.record.job) and not isinstance(error, ChainRejected):
                self.record.trouble(f"whether the escrow was opened is not certain: {error}")
            else:
                self.record.event(JobEvent.CANCELLED, f"refused before it was funded: {error}")
            raise
        if topic is None:
            if self.record.story.phase is JobPhase.DRAFT:
                self.record.event(JobEvent.QUEUED, "no class is large enough")
            self.record.event(JobEvent.UNSOLD, reason)
            self.record.stage("unsold", reason)
            return self.record.result(reason)
        listener = Listener(self.record, self.funding.presence, self.wire.genesis, self._settled.set)
        self.on_funded(listener)
        watch = ChainWatch(self.funding, self.record, listener.committee_known, self._settled.set)
        async with plain_nursery() as nursery:
            nursery.start_soon(self._guard, self._announce, topic, listener)
            nursery.start_soon(self._guard, watch.seat)
            nursery.start_soon(self._guard, watch.follow)
            if self.record.order.kind == "infer":
                nursery.start_soon(self._guard, self._read_tokens)
            await self._settled.wait()
            result = await self._conclude()
            nursery.cancel_scope.cancel()
        return result

    async def _fund(self) -> tuple[str | None, str]:
        """The market's topic once the escrow is confirmed; None, and the reason, when no class is large enough."""
        execution_class, reason = await self.funding.find_class()
        if execution_class is None:
            return None, reason
        await self.funding.check_balance(execution_class)
        topic = market_topic(execution_class)
        await self.join(topic)
        await self.funding.open(execution_class)
        return topic, ""

    async def _guard(self, action: Callable[..., Awaitable[None]], *arguments: object) -> None:
        try:
            await action(*arguments)
        except CyxError as error:
            self.record.trouble(str(error))

    async def _announce(self, topic: str, listener: Listener) -> None:
        """Until somebody answers or the job ends: gossip may be lost, and nodes know by its id what they have heard of.

        From the second time on the nodes of the class are also told by hand.
        """
        record = self.record
        announce = record.announce
        if announce is None:
            return
        for number in count():
            if number:
                announce = record.announce = self._dated_now(announce)
            await self.wire.post(topic, announce.raw)
            if number:
                nodes = sorted(self.funding.fitting().get(announce.message.execution_class, {}))
                await self.wire.tell_all(
                    tuple(nodes[:PEERS_CONNECTED_MAX]), ANNOUNCE, announce.raw, within_s=ANNOUNCE_AGAIN_S
                )
                record.stage("announced again", "nobody has answered yet")
            else:
                record.event(JobEvent.ANNOUNCED, "gossiped")
                record.stage("announced", topic)
            await trio.sleep(ANNOUNCE_AGAIN_S if number < ANNOUNCES_QUICK else ANNOUNCE_LATER_S)
            if listener.heard:
                break
        await self._tell_members()

    async def _tell_members(self) -> None:
        """Once the market has heard, tell the committee by hand until all of it listens: members that were cut off when
        the job was announced know nothing of it, and could not even end it."""
        record = self.record
        while record.terms is None or record.announce is None:
            await record.changed.wait()
        untold = set(record.terms.committee)

        async def tell(member: NodeId, raw: bytes) -> None:
            try:
                await self.wire.deliver(member, ANNOUNCE, raw, within_s=ANNOUNCE_LATER_S / 2)
                untold.discard(member)
            except CyxError as error:
                log.info("member not told yet", peer=base58(member), cause=str(error))

        while untold:
            raw = self._dated_now(record.announce).raw
            async with plain_nursery() as nursery:
                for member in sorted(untold):
                    nursery.start_soon(tell, member, raw)
            await trio.sleep(ANNOUNCE_LATER_S / 2)

    def _dated_now(self, announce: Signed[JobAnnounce]) -> Signed[JobAnnounce]:
        """The same announce with a fresh date: nobody follows one that is older than CLOCK_SKEW_MS."""
        fresh = msgspec.structs.replace(announce.message, sent_at_ms=self.wire.clock.unix_ms())
        return open_as(self.wire.seal(fresh), self.wire.genesis, JobAnnounce)

    # the end --------------------------------------------------------------------------------------------------------

    async def _conclude(self) -> JobResult:
        record, verdict = self.record, self.record.verdict()
        if verdict is None:
            record.event(JobEvent.EXPIRED, "no verdict is on chain")
            return record.result("no verdict in time: expired and refunded")
        reason = record.outcome.message.reason if record.outcome is not None else ""
        result: bytes | None = None
        async with plain_nursery() as nursery:
            nursery.start_soon(self._guard, self._close)
            if verdict is Verdict.OK:
                result = await fetch_result(record, self.data)
        if verdict is Verdict.OK and result is None:
            reason = "paid, but the result could not be fetched yet"
        if verdict is Verdict.UNSOLD and record.declines:
            reason = f"{reason}; declined: {record.why_declined()}"
        record.event(EVENTS.get(verdict, JobEvent.FAILED), reason or verdict.name)
        record.stage("completed", reason)
        receipt = build_receipt(record, self.wire, self.funding.chain.program)
        answers = self._shown(result) if result is not None and record.order.kind == "infer" else None
        weights = result if answers is None else None
        return JobResult(
            record.job, record.story.phase, reason, weights, receipt, record.story, record.declined(), answers,
            record.number,
        )  # fmt: skip

    def _shown(self, result: bytes) -> Answers:
        """The settled answers; what the stream did not show of them is shown now."""
        answers, record = answers_of(result), self.record
        rest = unheard(answers, record.heard, record.ended)
        if rest is None:
            record.trouble("the worker streamed something else than the committee checked: only the result counts")
        for index, text in (rest or {}).items():
            for start in range(0, max(1, len(text)), TOKENS_TEXT_MAX_CHARS):
                end = start + TOKENS_TEXT_MAX_CHARS
                piece = Tokens(
                    job=record.job,
                    sequence=0,
                    prompt_index=index,
                    generated=answers.answers[index].generated_tokens,
                    text=text[start:end],
                    last=end >= len(text),
                )
                record.heard_tokens(piece)
        return answers

    async def _read_tokens(self) -> None:
        """Show the answer as it grows, from the award on; anew when another node takes over."""
        record = self.record
        while True:
            award = record.award
            async with plain_nursery() as nursery:
                if award is not None:
                    nursery.start_soon(self._guard, self._read_tokens_of, award)
                while record.award is award:
                    await record.changed.wait()
                nursery.cancel_scope.cancel()

    async def _read_tokens_of(self, award: CertifiedAward) -> None:
        record = self.record

        def heard(piece: Tokens) -> None:
            if record.award is award:
                record.heard_tokens(piece)

        prompts = record.order.segments
        await TokenReader(self.wire, record.job, award.winner, prompts, heard, record.trouble).run()

    async def _close(self) -> None:
        self.record.sent("close_job", await self.funding.chain.submit(CloseJob(self.record.job)))
        self.record.stage("closed")
