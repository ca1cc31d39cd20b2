"""The direct requests that the parties of a job make of a node, each given to the room of its job.

Who is early is told so (NOT_YET) and tries again; who has no part in the job is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..protocol.envelope import Signed, open_as
from ..protocol.errors import Refusal
from ..protocol.messages import (
    AwardCertificate,
    AwardVote,
    Claim,
    HandoverCertificate,
    HandoverProposal,
    HandoverVote,
    JobAnnounce,
    Opening,
    OpenRequest,
    Outcome,
    Proposal,
    ResultAnswer,
    ResultRequest,
    SettleProposal,
    SettleVote,
    SpecAnswer,
    SpecRequest,
    StartNotice,
    Tally,
    TokensRequest,
    VerdictCommit,
    VerdictReveal,
)
from ..protocol.ports import GossipVerdict, Journal, Stream
from ..protocol.units import JobId
from ..protocol.validation import check_record
from .committee_service import CaseRun
from .kept_claims import kept_claim
from .room import Room, Rooms
from .wire import (
    ANNOUNCE,
    CERTIFICATE,
    CLAIM,
    COMMIT,
    HANDED_OVER,
    HANDOVER,
    NOT_YET,
    OPEN,
    OUTCOME,
    PROPOSAL,
    RESULT,
    REVEAL,
    SETTLE,
    SPEC,
    START,
    TALLY,
    TOKENS,
    Wire,
)
from .worker_service import WorkRun


@dataclass(slots=True)
class MarketRequests:
    """Request handlers over the rooms of a node."""

    wire: Wire
    journal: Journal
    rooms: Rooms
    on_announce: Callable[[Signed[JobAnnounce]], None]
    on_handover: Callable[[bytes], None]
    on_outcome: Callable[[Signed[Outcome]], None]

    def serve(self) -> None:
        """Begin to answer."""
        wire = self.wire
        wire.serve(ANNOUNCE, JobAnnounce, self._announce)
        wire.serve(TALLY, Tally, self._tally)
        wire.serve(PROPOSAL, Proposal, self._proposal)
        wire.serve(CERTIFICATE, AwardCertificate, self._certificate)
        wire.serve(SPEC, SpecRequest, self._spec)
        wire.serve(START, StartNotice, self._start)
        wire.serve(CLAIM, Claim, self._claim)
        wire.serve(RESULT, ResultRequest, self._result)
        wire.serve(COMMIT, VerdictCommit, self._commit)
        wire.serve(REVEAL, VerdictReveal, self._reveal)
        wire.serve(OPEN, OpenRequest, self._open)
        wire.serve(HANDOVER, HandoverProposal, self._handover)
        wire.serve(HANDED_OVER, HandoverCertificate, self._handed_over)
        wire.serve(SETTLE, SettleProposal, self._settle)
        wire.serve(OUTCOME, Outcome, self._outcome)
        wire.transport.serve_stream(TOKENS, self._tokens)

    def _room(self, job: bytes) -> Room:
        room = self.rooms.get(job)
        if room is None:
            raise Refusal(NOT_YET + "this job is not known here")
        return room

    def _case(self, job: bytes) -> CaseRun:
        case = self._room(job).case
        if case is None:
            raise Refusal(NOT_YET + "no award is known here")
        return case

    def _work(self, job: bytes) -> WorkRun:
        work = self._room(job).work
        if work is None:
            raise Refusal("this node is not the worker of the job")
        return work

    async def _announce(self, signed: Signed[JobAnnounce]) -> None:
        """By hand what gossip may have lost, under the rules of gossip."""
        now_ms = self.wire.clock.unix_ms()
        verdict, _, reason = check_record(signed.raw, self.wire.genesis, (JobAnnounce,), now_ms)
        if verdict is not GossipVerdict.ACCEPT:
            raise Refusal(reason)
        self.on_announce(signed)

    async def _tally(self, signed: Signed[Tally]) -> None:
        await self._room(signed.message.job).auction.tally_received(signed)

    async def _proposal(self, signed: Signed[Proposal]) -> AwardVote:
        return await self._room(signed.message.job).auction.judge(signed)

    async def _certificate(self, signed: Signed[AwardCertificate]) -> None:
        self._room(signed.message.job).auction.certificate_delivered(signed.raw)

    async def _spec(self, signed: Signed[SpecRequest]) -> SpecAnswer:
        """The worker gives it to members, and members to the worker, when the requester does not."""
        if signed.message.handover:
            self.on_handover(signed.message.handover)
        work = self._room(signed.message.job).work
        return await (work or self._case(signed.message.job)).give_spec(signed)

    async def _start(self, signed: Signed[StartNotice]) -> None:
        self._case(signed.message.job).started(signed.sender)

    async def _claim(self, signed: Signed[Claim]) -> None:
        self._case(signed.message.job).claimed(signed)

    async def _result(self, signed: Signed[ResultRequest]) -> ResultAnswer:
        """What was claimed, for a requester that was gone when it was told."""
        now_ms = self.wire.clock.unix_ms()
        kept = kept_claim(self.journal, JobId(signed.message.job), signed.sender, now_ms)
        if kept is None:
            raise Refusal("no settled claim of this requester's job is kept here", peer=signed.sender)
        return kept

    async def _commit(self, signed: Signed[VerdictCommit]) -> None:
        self._case(signed.message.job).commit_received(signed)

    async def _reveal(self, signed: Signed[VerdictReveal]) -> None:
        self._case(signed.message.job).reveal_received(signed)

    async def _open(self, signed: Signed[OpenRequest]) -> Opening:
        return await self._work(signed.message.job).open_traces(signed)

    async def _tokens(self, stream: Stream) -> None:
        signed = open_as(await stream.receive() or b"", self.wire.genesis, TokensRequest, max_bytes=1024)
        if signed.sender != stream.peer:
            raise Refusal("the envelope is not signed by the peer that sent it", peer=stream.peer)
        await self._work(signed.message.job).stream_tokens(stream, signed)

    async def _handover(self, signed: Signed[HandoverProposal]) -> HandoverVote:
        return await self._case(signed.message.job).judge_handover(signed)

    async def _handed_over(self, signed: Signed[HandoverCertificate]) -> None:
        if self._room(signed.message.job).awarded is None:
            raise Refusal(NOT_YET + "no award is known here")
        self.on_handover(signed.raw)

    async def _settle(self, signed: Signed[SettleProposal]) -> SettleVote:
        return await self._case(signed.message.job).judge_settlement(signed)

    async def _outcome(self, signed: Signed[Outcome]) -> None:
        room = self._room(signed.message.job)
        if room.auction.terms is None:
            raise Refusal(NOT_YET + "the committee is not known here")
        self.on_outcome(signed)
