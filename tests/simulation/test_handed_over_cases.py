"""A member's seat while its job is handed over: whom it hears, and what becomes of what it was about to find out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import msgspec
import pytest
import trio

from cyxnode.executor.simulated import SimulatedRunner
from cyxnode.protocol.envelope import Signed, open_as
from cyxnode.protocol.errors import Refusal, RemoteError
from cyxnode.protocol.handover import digest_of, handover_message, ladder
from cyxnode.protocol.limits import CONFIRM_TIMEOUT_S
from cyxnode.protocol.messages import Claim, HandoverCertificate, HandoverProposal, Progress, SpecRequest
from cyxnode.protocol.settlement import sealed
from cyxnode.protocol.units import NodeId
from cyxnode.protocol.validation import market_topic
from cyxnode.scheduler.auction_voting import Awarded
from cyxnode.scheduler.claims import Failure, failed_claim
from cyxnode.scheduler.committee_service import CaseRun
from cyxnode.scheduler.requester_listener import Listener
from cyxnode.scheduler.verification import Phase
from cyxnode.scheduler.verification_events import SamplesReplayed, Stimulus
from cyxnode.scheduler.wire import CLAIM, NOT_YET, SPEC
from market_world import World, open_world, run_job, winner_of
from sample_messages import MESSAGES

pytestmark = pytest.mark.slow


@dataclass
class Seat:
    """A member whose worker trains for long."""

    world: World
    case: CaseRun
    awarded: Awarded
    listener: Listener
    """Of the job's requester."""

    def bidder(self, rank: int) -> NodeId:
        return NodeId(self.awarded.certified.award.ranking[rank].bidder)

    def claim(self, sender: NodeId, status: Failure) -> Signed[Claim]:
        """A claim without a result, sealed by one of the nodes."""
        terms = self.awarded.terms
        key = next(key for n in range(6) if (key := self.world.key(f"node{n}")).node_id == sender)
        said = sealed(terms, key, failed_claim(terms, terms.announce.execution_class, "broken", status))
        return open_as(self.world.nodes[sender].context.wire.seal(said), terms.genesis, Claim)

    def certificate(self, rank: int = 1) -> HandoverCertificate:
        """What all members would have signed."""
        terms, award = self.awarded.terms, self.awarded.certified.award
        step = ladder(terms.announce, award)[rank]
        message = handover_message(terms, rank, 0, digest_of(terms, award, step))
        keys = [self.world.key(f"node{n}") for n in range(6)]
        return HandoverCertificate(
            job=terms.job, award=award.digest, rank=rank, from_leaf=0, successor=step.node, price=step.price, round=0,
            signatures=tuple((key.node_id, key.sign(message)) for key in keys if key.node_id in terms.committee),
            reason="a test",
        )  # fmt: skip

    @property
    def member(self) -> NodeId:
        """Whose seat it is."""
        return self.case.state.terms.me

    def bind(self) -> None:
        """The member has signed a hand-over that nobody else wants."""
        now_ms = self.world.nodes[self.member].context.wire.clock.monotonic_ms()
        self.case.state = replace(
            self.case.state, phase=Phase.HANDING_OVER, provisional=True, handover_signed=1, reason="silence",
            handover_round_started_ms=now_ms,
        )  # fmt: skip
        self.case._poke.set()


@asynccontextmanager
async def seated() -> AsyncIterator[Seat]:
    async with open_world() as world:
        for number in range(6):
            await world.add_node(f"node{number}", SimulatedRunner(1.0), rate_micro_per_s=20_000 + 5_000 * number)
        requester = await world.add_requester()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_job, requester)
            await winner_of(world)
            await trio.sleep(2)
            rooms = [room for node in world.nodes.values() for room in node.market.rooms.by_job.values()]
            room = next(room for room in rooms if room.case is not None)
            assert room.case is not None and room.awarded is not None
            assert room.case.state.phase is Phase.RUNNING
            assert requester._listener is not None
            yield Seat(world, room.case, room.awarded, requester._listener)
            nursery.cancel_scope.cancel()


async def test_only_the_present_worker_is_heard_and_who_may_follow_is_early(autojump_clock: object) -> None:
    async with seated() as seat:
        with pytest.raises(Refusal, match=NOT_YET + "no hand-over to this node"):
            seat.case.claimed(seat.claim(seat.bidder(1), "failed"))
        with pytest.raises(Refusal, match="not the worker of this job"):
            seat.case.claimed(seat.claim(seat.awarded.terms.committee[0], "failed"))
        assert seat.case.state.phase is Phase.RUNNING
        await seat.world.nodes[seat.bidder(0)].context.wire.publish(topic(seat), seat.certificate())
        await trio.sleep(1)
        assert (seat.case.worker, seat.case.state.rank) == (seat.bidder(1), 1)
        with pytest.raises(Refusal, match="not the worker of this job"):
            seat.case.claimed(seat.claim(seat.bidder(0), "failed"))
        seat.case.claimed(seat.claim(seat.bidder(1), "failed"))
        assert seat.case.state.phase is Phase.HANDING_OVER and "broken" in seat.case.state.reason


def topic(seat: Seat) -> str:
    return market_topic(seat.awarded.terms.announce.execution_class)


async def test_a_bound_member_hears_its_worker_later_and_its_confession_at_once(autojump_clock: object) -> None:
    async with seated() as seat:
        seat.bind()
        worker = seat.bidder(0)
        for status in ("unserved", "invalid"):
            with pytest.raises(Refusal, match=NOT_YET):
                seat.case.claimed(seat.claim(worker, status))  # type: ignore[arg-type]
        with pytest.raises(Refusal, match=NOT_YET):
            seat.case.started(worker)
        seat.case.claimed(seat.claim(worker, "failed"))
        assert not seat.case.state.provisional and "broken" in seat.case.state.reason


async def test_what_a_bound_member_refused_counts_when_the_rounds_are_over(autojump_clock: object) -> None:
    async with seated() as seat:
        seat.bind()
        wire, claim = seat.world.nodes[seat.bidder(0)].context.wire, seat.claim(seat.bidder(0), "unserved")
        await wire.deliver(seat.member, CLAIM, claim.raw, within_s=CONFIRM_TIMEOUT_S)
        assert seat.case.state.phase is Phase.SEEKING


async def test_what_is_still_found_out_about_the_worker_before_is_told_to_nobody(autojump_clock: object) -> None:
    async with seated() as seat:
        former, told = seat.case._check, list[Stimulus]()
        assert former is not None
        former.tell = told.append
        done = trio.Event()

        async def replay() -> None:
            try:
                await trio.sleep(5)
            finally:
                former._tell(SamplesReplayed(True, -1, "", 0))
                done.set()

        former.start(replay)
        await trio.sleep(0.1)
        await seat.world.nodes[seat.bidder(0)].context.wire.publish(topic(seat), seat.certificate())
        with trio.fail_after(1):
            await done.wait()
        assert told == []
        assert seat.case._check is not former and seat.case.state.rank == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rank": 3}, "nobody is of this rank here"),
        ({"digest": bytes(32)}, "another successor or price"),
        ({}, NOT_YET + "the worker of rank 0 is RUNNING"),
    ],
)
async def test_a_leader_cannot_have_a_healthy_worker_replaced(
    autojump_clock: object, changes: dict[str, object], why: str
) -> None:
    async with seated() as seat:
        terms, award = seat.awarded.terms, seat.awarded.certified.award
        step = ladder(terms.announce, award)[1]
        fields = {"job": terms.job, "rank": 1, "round": 0, "digest": digest_of(terms, award, step), **changes}
        proposal = HandoverProposal(**fields)  # type: ignore[arg-type]
        with pytest.raises(Refusal, match=why):
            await seat.case.judge_handover(Signed(terms.committee[0], proposal, b""))
        with pytest.raises(RemoteError, match="not a member"):
            await seat.case.judge_handover(Signed(seat.bidder(1), proposal, b""))


async def test_a_requester_follows_the_present_worker_alone(autojump_clock: object) -> None:
    async with seated() as seat:
        old, listener, job = seat.bidder(0), seat.listener, seat.awarded.terms.job
        wire = seat.world.nodes[old].context.wire
        heard: list[int] = []
        listener.record.observe = lambda news: heard.append(news.sequence) if isinstance(news, Progress) else None

        def progress(sequence: int) -> Progress:
            sample = next(one for one in MESSAGES if isinstance(one, Progress))
            return msgspec.structs.replace(sample, job=job, sequence=sequence)

        class Streamed:
            peer = old

            async def receive(self) -> bytes:
                await wire.publish(topic(seat), seat.certificate())
                await trio.sleep(1)
                return wire.seal(progress(9_001))

        with trio.fail_after(30), pytest.raises(Refusal, match="not the worker of this job"):
            await listener.on_progress(Streamed(), Signed(old, progress(9_000), b""))  # type: ignore[arg-type]
        assert 9_000 in heard and 9_001 not in heard
        with pytest.raises(Refusal, match="not the worker of this job"):
            await listener.on_claim(seat.claim(old, "failed"))
        asked = SpecRequest(job=job, certificate=seat.awarded.raw)
        with pytest.raises(Refusal, match="the spec goes to the worker and the committee only"):
            await listener.on_spec(Signed(old, asked, b""))
        assert (await listener.on_spec(Signed(seat.bidder(1), asked, b""))).spec
        assert listener.record.rank == 1 and listener.record.claim is None


async def test_a_successor_brings_its_hand_over_with_its_request_for_the_spec(autojump_clock: object) -> None:
    async with seated() as seat:
        job, wire = seat.awarded.terms.job, seat.world.nodes[seat.bidder(1)].context.wire
        raw = wire.seal(seat.certificate())
        asked = SpecRequest(job=job, certificate=seat.awarded.raw, handover=raw)
        assert (await seat.listener.on_spec(Signed(seat.bidder(1), asked, b""))).spec
        assert seat.listener.record.rank == 1 and seat.case.state.rank == 0
        assert await wire.deliver(seat.member, SPEC, wire.seal(asked), within_s=10)
        assert seat.case.state.rank == 1
