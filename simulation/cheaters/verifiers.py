"""Members of a committee that want its fee without its work, or sign two things at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import trio

from ...protocol.award import JobTerms
from ...protocol.chain import Verdict
from ...protocol.envelope import open_as
from ...protocol.errors import CyxError, Refusal
from ...protocol.identity import verify
from ...protocol.limits import SETTLE_ROUND_MS
from ...protocol.messages import ResultClaim, SettleProposal, SettleVote, VerdictCommit, VerdictReveal
from ...protocol.ports import (
    Replay,
    RequestHandler,
    ResultCheck,
    Runner,
    RunnerSession,
    TrainTask,
)
from ...protocol.settlement import NO_RESULT, NO_SEAL, NOBODY, Settlement, settle_message
from ...protocol.spec import encode_spec, spec_hash
from ...protocol.units import NodeId
from ...scheduler.node import Ports
from ...scheduler.settlement_service import settle_instruction, settlement_of_proposal
from ...scheduler.wire import CLAIM, COMMIT, REVEAL, SETTLE
from ..world import Peer
from .cheat import Ending, Fate
from .meddling import DressedRunner, Meddler, Session

PATIENCE_S = 50.0
"""How long a copier waits for something to copy."""


def fee_fate(me: NodeId, key: bytes, ending: Ending) -> Fate:
    """Whether a member got the fee of a job that ended well."""
    account = ending.settled(key)
    if account is None or account.verdict is not Verdict.OK or me not in account.committee:
        return Fate.NEITHER
    return Fate.PAID if account.fee_mask >> account.committee.index(me) & 1 else Fate.CAUGHT


class IdleVerdict(Meddler):
    """Says OK to whatever is claimed, at once, without a replay. A try is a job that it judged."""

    name: ClassVar[str] = "idle-verdict"
    role = "verifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.claims: dict[bytes, ResultClaim] = {}

    def dress(self, peer: Peer, ports: Ports, runner: Runner) -> tuple[Ports, Runner]:
        """Both hands: one in the network to read the claim, one in the runner to repeat it."""
        ports, runner = super().dress(peer, ports, runner)
        return ports, DressedRunner(runner, self.session)

    async def answers(self, node: NodeId, protocol: str, payload: bytes, handler: RequestHandler) -> bytes:
        """Remembers what workers claim."""
        if protocol == CLAIM:
            claim = open_as(payload, self.genesis, ResultClaim).message
            self.claims.setdefault(claim.spec_hash, claim)
        return await super().answers(node, protocol, payload, handler)

    def session(self, inner: RunnerSession, task: TrainTask) -> RunnerSession:
        """Finds what was claimed, whatever that is."""
        cheat, key = self, spec_hash(encode_spec(task.spec))

        @dataclass
        class Idle(Session):
            async def initial_state(self) -> bytes:
                await trio.lowlevel.checkpoint()
                return cheat.claims[key].states[0]

            async def replay(self, segment: int, state: bytes) -> Replay:
                await trio.lowlevel.checkpoint()
                cheat.tried(key, 1.0)
                states, steps = cheat.claims[key].states, task.spec.segment_steps(segment)
                return Replay(states[segment], states[segment + 1], bytes(4 * len(steps)))

            async def check_result(self, final_state: bytes, weights: bytes) -> ResultCheck:
                await trio.lowlevel.checkpoint()
                claim = cheat.claims[key]
                return ResultCheck(claim.states[-1], True, claim.final_loss_micro, claim.final_accuracy_micro)

        return Idle(inner, task)

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By the fee mask."""
        return fee_fate(self.me, key, ending)


@dataclass(slots=True)
class _Copied:
    commit: VerdictCommit | None = None
    reveal: VerdictReveal | None = None
    heard: trio.Event = field(default_factory=trio.Event)


class CopiedVerdict(IdleVerdict):
    """Idle, and sends what another member sent, as its own."""

    name: ClassVar[str] = "copied-verdict"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.copied: dict[bytes, _Copied] = {}

    async def answers(self, node: NodeId, protocol: str, payload: bytes, handler: RequestHandler) -> bytes:
        """Takes down the first commit and the first reveal of another member."""
        if protocol in (COMMIT, REVEAL):
            message = self.open(payload).message
            copied = self._copied(message.job)
            if isinstance(message, VerdictCommit):
                copied.commit = copied.commit or message
            elif isinstance(message, VerdictReveal):
                copied.reveal = copied.reveal or message
            copied.heard.set()
            copied.heard = trio.Event()
        return await super().answers(node, protocol, payload, handler)

    def _copied(self, job: bytes) -> _Copied:
        return self.copied.setdefault(job, _Copied())

    async def sends(self, node: NodeId, protocol: str, payload: bytes) -> bytes | None:
        """Waits for another member's message, and sends that one in its own name."""
        if protocol not in (COMMIT, REVEAL):
            return payload
        copied = self._copied(self.open(payload).message.job)
        with trio.move_on_after(PATIENCE_S):
            while (copied.commit if protocol == COMMIT else copied.reveal) is None:
                await copied.heard.wait()
        message = copied.commit if protocol == COMMIT else copied.reveal
        return self.seal(message) if message is not None else None


class Equivocator(Meddler):
    """Signs whatever settlement it is asked for, and the opposite one too, with no journal between.

    It asks the other members for the opposite one, and sends that to the chain as soon as enough of them sign. A try
    is a job in which it signed both; it is paid when the chain took the opposite one.
    """

    name: ClassVar[str] = "equivocator"
    role = "verifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.opposite: dict[bytes, Verdict] = {}

    async def answers(self, node: NodeId, protocol: str, payload: bytes, handler: RequestHandler) -> bytes:
        """Signs what is asked, and begins its own settlement."""
        if protocol != SETTLE:
            return await super().answers(node, protocol, payload, handler)
        asked: SettleProposal = self.open(payload).message
        terms = self._terms(asked.job)
        if terms is None:
            raise Refusal("not yet: this job is not known here")
        self._contradict_once(terms, asked)
        return self.seal(SettleVote(job=asked.job, round=asked.round, signature=self._sign(terms, asked)))

    async def sends(self, node: NodeId, protocol: str, payload: bytes) -> bytes | None:
        """As the leader it proposes like an honest one, and contradicts itself."""
        if protocol == SETTLE:
            proposal: SettleProposal = self.open(payload).message
            terms = self._terms(proposal.job)
            if terms is not None:
                self._contradict_once(terms, proposal)
        return payload

    def _terms(self, job: bytes) -> JobTerms | None:
        room = self.peer.node.market.rooms.get(job) if self.peer.node is not None else None
        return room.auction.terms if room is not None else None

    def _sign(self, terms: JobTerms, proposal: SettleProposal) -> bytes:
        return self.peer.key.sign(settle_message(terms, proposal.round, settlement_of_proposal(proposal)))

    def _contradict_once(self, terms: JobTerms, proposal: SettleProposal) -> None:
        if terms.job in self.opposite:
            return
        verdict = Verdict.FAILED if proposal.verdict == Verdict.OK else Verdict.UNSOLD
        self.opposite[terms.job] = verdict
        self.tried(terms.job, 1.0)
        worker = NodeId(proposal.worker) if verdict is Verdict.FAILED else NOBODY
        self.world.nursery.start_soon(
            self._contradict, terms, proposal.round, Settlement(verdict, worker, 0, 0, NO_RESULT, 0)
        )

    async def _contradict(self, terms: JobTerms, round_: int, settlement: Settlement) -> None:
        proposal = SettleProposal(
            job=terms.job,
            round=round_,
            verdict=settlement.verdict,
            worker=settlement.worker,
            price=0,
            units=0,
            result_hash=NO_RESULT,
            fee_mask=0,
            segment=-1,
            replayed=NO_RESULT,
            reason="a contradiction",
        )
        signatures = {self.me: self._sign(terms, proposal)}
        async with trio.open_nursery() as nursery:
            for member in terms.committee:
                if member != self.me:
                    nursery.start_soon(self._ask, terms, member, proposal, signatures)
        if len(signatures) >= terms.m and self.ports is not None:
            chosen = tuple(sorted(signatures.items()))[: terms.m]
            try:
                await self.ports.chain.submit(settle_instruction(terms, round_, settlement, chosen, NO_SEAL))
            except CyxError as error:
                self.world.trace.event("cheat", f"{self.name} {self.peer.name}: {error}")

    async def _ask(
        self, terms: JobTerms, member: NodeId, proposal: SettleProposal, signatures: dict[NodeId, bytes]
    ) -> None:
        try:
            raw = await self.transport.request(member, SETTLE, self.seal(proposal), timeout_s=SETTLE_ROUND_MS / 1000)
            vote = open_as(raw, self.genesis, SettleVote).message
        except CyxError:
            return
        if verify(member, settle_message(terms, proposal.round, settlement_of_proposal(proposal)), vote.signature):
            signatures[member] = vote.signature

    def fate(self, key: bytes, ending: Ending) -> Fate:
        """By the verdict on chain."""
        account = ending.settled(key)
        if account is None:
            return Fate.NEITHER
        return Fate.PAID if account.verdict is self.opposite[key] else Fate.CAUGHT
