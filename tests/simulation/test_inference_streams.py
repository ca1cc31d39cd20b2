"""Answers while they grow, in virtual time: streams that break, workers that die, backends that do not know where they
end, and strangers who would read along."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from cyxnode.executor.simulated_inference import SimulatedModels
from cyxnode.protocol.inference import TokensGenerated
from cyxnode.protocol.messages import TokensRequest
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.requester_service import JobResult, RequesterService
from cyxnode.scheduler.wire import TOKENS
from inference_world import Heard, asked, manifest, market, question, serving
from market_world import World, winner_of


async def asked_meanwhile(
    world: World, requester: RequesterService, heard: Heard, act: Callable[[NodeId], Awaitable[None]]
) -> JobResult:
    """Ask, and do something to the worker once three pieces have come."""

    async def later() -> None:
        worker = await winner_of(world)
        while len(heard.pieces) < 3:  # noqa: ASYNC110
            await trio.sleep(0.1)
        await act(worker)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        return await asked(requester, question())


async def test_a_stream_that_breaks_goes_on_where_it_was(autojump_clock: object) -> None:
    async with market(lambda: serving(pace_s=2.0)) as (world, requester, heard):

        async def cut_twice(worker: NodeId) -> None:
            for _ in range(2):
                world.network.partition([[requester.wire.me], [worker]])
                await trio.sleep(2)
                world.network.heal()
                await trio.sleep(3)

        result = await asked_meanwhile(world, requester, heard, cut_twice)
        assert result.answers is not None, result
        assert heard.text() == result.answers.answers[0].text
        assert [piece.sequence for piece in heard.pieces] == list(range(len(heard.pieces)))
        assert any(stage.name == "trouble" and "stream broke" in stage.detail for stage in heard.stages)


async def test_what_was_not_streamed_is_shown_from_the_result(autojump_clock: object) -> None:
    async with market(lambda: serving(pace_s=0.5)) as (world, requester, heard):

        async def cut(worker: NodeId) -> None:
            world.network.partition([[requester.wire.me], [worker]])
            await trio.sleep(8)
            world.network.heal()

        result = await asked_meanwhile(world, requester, heard, cut)
        assert result.answers is not None, result
        assert heard.text() == result.answers.answers[0].text
        assert [piece.last for piece in heard.pieces].count(True) == 1 and heard.pieces[-1].last


async def test_a_worker_that_dies_in_mid_answer_is_not_paid(autojump_clock: object) -> None:
    """Nobody can take over: three of the four are members."""
    async with market(lambda: serving(pace_s=1.0), count=4) as (world, requester, heard):

        async def kill(worker: NodeId) -> None:
            world.kill(worker)

        result = await asked_meanwhile(world, requester, heard, kill)
        assert (result.phase, result.delivered) == (JobPhase.FAILED, False)
        assert result.receipt is not None and result.receipt["paid"]["amount"] == 0


async def test_only_the_requester_reads_the_answers_as_they_grow(autojump_clock: object) -> None:
    async with market(lambda: serving(pace_s=0.5)) as (world, requester, _):
        stranger = await world.add_requester("stranger")
        got: list[bytes | None] = []
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                worker = await winner_of(world)
                (job,) = world.nodes[worker].market.rooms.by_job
                reader = stranger.wire.transport
                reader.learn(worker, world.nodes[worker].context.wire.transport.addresses())
                stream = await reader.open_stream(worker, TOKENS)
                await stream.send(stranger.wire.seal(TokensRequest(job=job, start=0)))
                try:
                    got.append(await stream.receive())
                except Exception:
                    got.append(None)

            nursery.start_soon(listen)
            await asked(requester, question())
        assert got == [None]


class Endless(SimulatedModels):
    """Says of one piece after the other whether it is the last, as it likes."""

    def __init__(self, lasts: tuple[bool, ...]) -> None:
        super().__init__([(manifest(), 500, 2_000)])
        self._lasts = lasts

    @asynccontextmanager
    async def _session(self, spec: Any) -> AsyncIterator[Any]:
        async with super()._session(spec) as honest:
            lasts = self._lasts

            class Session:
                async def generate(self, emit: Any) -> Any:
                    for place, last in enumerate(lasts):
                        await emit(TokensGenerated(0, place, (1,), "a", last))
                    return ()

                check = honest.check

            yield Session()


@pytest.mark.parametrize(
    ("lasts", "reason"),
    [
        ((False, False), "sent no last piece for prompts[0]"),
        ((True, True), "sent a piece for prompts[0], whose answer had its last piece"),
        ((True, False), "sent a piece for prompts[0], whose answer had its last piece"),
    ],
)
async def test_a_backend_that_does_not_know_where_it_ends_is_reported(
    autojump_clock: object, lasts: tuple[bool, ...], reason: str
) -> None:
    async with market(lambda: Endless(lasts)) as (_, requester, _):
        result = await asked(requester, question())
        assert (result.phase, result.delivered) == (JobPhase.FAILED, False)
        assert reason in result.reason
