"""What a requester hears of its job: awards, declines, the worker's start, progress and claim, and the outcome.

Each is believed only with its evidence. What comes before the committee is known is refused as early, or waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from ..protocol.chain import Verdict
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import Refusal, RemoteError
from ..protocol.handover import check_handover
from ..protocol.limits import FRAME_MAX_BYTES, QUORUMS
from ..protocol.messages import (
    AwardCertificate,
    Claim,
    Decline,
    HandoverCertificate,
    JobAnnounce,
    Message,
    Outcome,
    Progress,
    SpecAnswer,
    SpecRequest,
    StartNotice,
)
from ..protocol.ports import Stream
from ..protocol.settlement import quorum_for, signers
from ..protocol.units import NodeId, base58, format_cyx
from .auction_voting import certificate_of
from .job import JobEvent
from .presence_service import PresenceService
from .requester_record import JobRecord
from .wire import NOT_YET

log = structlog.get_logger()


@dataclass(slots=True)
class Listener:
    """Ears for one job. `on_settled` is called when a valid outcome is here."""

    record: JobRecord
    presence: PresenceService
    genesis: bytes
    on_settled: Callable[[], None]
    heard: bool = False
    _early: list[bytes] = field(default_factory=list)

    def gossip(self, signed: Signed[Message]) -> None:
        """A message of the market's topic."""
        message = signed.message
        if getattr(message, "job", b"") != self.record.job:
            return
        self.heard = self.heard or not isinstance(message, JobAnnounce)
        match message:
            case AwardCertificate():
                self.certificate(signed.raw)
            case HandoverCertificate():
                self.handover(signed.raw)
            case Decline():
                self._decline(signed.sender, message)
            case Outcome():
                self.outcome(Signed(signed.sender, message, signed.raw))
            case _:
                pass

    def _decline(self, node: NodeId, decline: Decline) -> None:
        if node in self.record.declines or node not in self.presence.alive():
            return
        self.record.declined_by(node, decline)

    def committee_known(self) -> None:
        """Certificates that came early can be judged now."""
        for raw in self._early:
            self.certificate(raw)
        self._early.clear()

    def certificate(self, raw: bytes) -> None:
        """An award, from gossip, by hand, or with a request of the winner."""
        record = self.record
        if record.award is not None:
            return
        if record.terms is None:
            if len(self._early) < len(QUORUMS):
                self._early.append(raw)
            return
        try:
            record.award = certificate_of(record.terms, raw)
        except RemoteError as error:
            log.warning("certificate dropped", job=base58(record.job), cause=str(error))
            return
        record.certificate = raw
        record.keep("certificate", raw)
        record.event(JobEvent.AWARDED, base58(record.award.winner))
        record.stage("awarded", f"{base58(record.award.winner)[:8]} at {format_cyx(record.award.price)} CYX")

    def handover(self, raw: bytes) -> None:
        """Another node takes over, by gossip, by hand, or with a request of that node. RemoteError when the certificate
        does not say so."""
        record, certificate = self.record, open_as(raw, self.genesis, HandoverCertificate).message
        if record.award is None or record.terms is None or record.outcome is not None:
            return
        if certificate.rank > record.rank:
            record.hand_over(check_handover(record.terms, record.award.award, certificate), raw, certificate.reason)

    def outcome(self, signed: Signed[Outcome]) -> None:
        """The quorum's settlement."""
        record = self.record
        if record.outcome is not None or record.terms is None:
            return
        if len(signers(record.terms, signed.message)) < quorum_for(signed.message.verdict, record.terms.announce.k):
            log.warning("outcome dropped: too few signatures", job=base58(record.job))
            return
        record.outcome = signed
        record.keep("outcome", signed.raw)
        if signed.message.transaction:
            record.sent("settle", signed.message.transaction)
        record.stage("settled", f"{Verdict(signed.message.verdict).name} {signed.message.reason}".strip())
        self.on_settled()

    # requests -------------------------------------------------------------------------------------------------------

    async def on_certificate(self, signed: Signed[AwardCertificate]) -> None:
        """Handed over by the leader."""
        if self.record.terms is None:
            raise Refusal(NOT_YET + "the committee is not known here")
        self.certificate(signed.raw)

    async def on_handover(self, signed: Signed[HandoverCertificate]) -> None:
        """Handed over by the leader of the hand-over."""
        if self.record.award is None:
            raise Refusal(NOT_YET + "no award is known here")
        self.handover(signed.raw)

    async def on_outcome(self, signed: Signed[Outcome]) -> None:
        """Handed over by the leader of the settlement."""
        if self.record.terms is None:
            raise Refusal(NOT_YET + "the committee is not known here")
        self.outcome(signed)

    async def on_spec(self, signed: Signed[SpecRequest]) -> SpecAnswer:
        """The spec, for the worker and the committee."""
        record = self.record
        if record.terms is None:
            raise Refusal(NOT_YET + "the committee is not known here")
        self.certificate(signed.message.certificate)
        if signed.message.handover:
            self.handover(signed.message.handover)
        if record.award is None or signed.sender not in (record.award.winner, *record.terms.committee):
            raise Refusal("the spec goes to the worker and the committee only")
        return SpecAnswer(spec=record.spec)

    async def on_start(self, signed: Signed[StartNotice]) -> None:
        """The worker has begun."""
        self._from_worker(signed.sender)
        self.record.event(JobEvent.STARTED, base58(signed.sender))
        self.record.stage("started")

    async def on_claim(self, signed: Signed[Claim]) -> None:
        """The worker's result; its first one counts."""
        self._from_worker(signed.sender)
        if self.record.claim is None:
            self.record.claim = signed
            self.record.keep("claim", signed.raw)
            self.record.event(JobEvent.CLAIMED, signed.message.final_status)
            self.record.stage("claimed", signed.message.message or signed.message.final_status)

    def _from_worker(self, sender: NodeId) -> None:
        if self.record.award is None:
            raise Refusal(NOT_YET + "no award is known here")
        if sender == self.record.award.winner:
            return
        if self.record.award.rank_of(sender) > self.record.rank:
            raise Refusal(NOT_YET + "no hand-over to this node is known here", peer=sender)
        raise Refusal("not the worker of this job", peer=sender)

    async def on_progress(self, stream: Stream, first: Signed[Progress]) -> None:
        """The worker's live metrics; sequence numbers only rise."""
        last, signed = -1, first
        while True:
            self._from_worker(stream.peer)
            if signed.sender != stream.peer or signed.message.job != self.record.job:
                raise RemoteError("progress of another worker or job", peer=stream.peer)
            if signed.message.sequence > last:
                if last < 0:
                    self.record.stage("training")
                last = signed.message.sequence
                self.record.progressed(signed.message)
            frame = await stream.receive()
            if frame is None:
                return
            signed = open_as(frame, self.genesis, Progress, max_bytes=FRAME_MAX_BYTES)
