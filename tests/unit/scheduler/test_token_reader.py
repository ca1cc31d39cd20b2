"""The stream of growing answers: a reader that comes early, a stream that breaks, and a worker that stops early or
sends what has no place there."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import trio

from cyxnode.p2p.memory import MemoryTransport
from cyxnode.p2p.memory_network import MemoryNetwork
from cyxnode.protocol.envelope import open_as
from cyxnode.protocol.errors import Refusal
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.inference import Answer, Answers
from cyxnode.protocol.messages import Tokens, TokensRequest
from cyxnode.protocol.ports import Stream
from cyxnode.protocol.units import JobId
from cyxnode.scheduler.piece_order import PieceOrder
from cyxnode.scheduler.token_reader import TokenReader, unheard
from cyxnode.scheduler.wire import TOKENS, Wire
from market_world import VirtualClock

GENESIS, JOB = bytes(32), JobId(bytes([7]) * 32)


def piece(sequence: int, prompt: int = 0, *, last: bool = False, job: bytes = JOB) -> Tokens:
    return Tokens(job=job, sequence=sequence, prompt_index=prompt, generated=1, text=str(sequence), last=last)


WHOLE = (piece(0), piece(1, 1), piece(2), piece(3, 1, last=True), piece(4), piece(5, last=True))
"""Two answers, interleaved."""


@dataclass
class Worker:
    """Serves its pieces from `ready_s` on; its first streams break after so many of them."""

    wire: Wire
    pieces: tuple[Tokens, ...]
    ready_s: float
    breaks: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    refused: int = 0

    async def serve(self, stream: Stream) -> None:
        start = open_as(await stream.receive() or b"", GENESIS, TokensRequest, max_bytes=1024).message.start
        if trio.current_time() < self.ready_s:
            self.refused += 1
            raise Refusal("this node does not work on that job")
        self.asked.append(start)
        end = start + self.breaks.pop(0) if self.breaks else len(self.pieces)
        for one in self.pieces[start:end]:
            await stream.send(self.wire.seal(one))
        if end < len(self.pieces):
            raise Refusal("it breaks")
        await stream.close()


@dataclass
class Reading:
    """What was heard of two answers, what was told as trouble, and how many seconds it took."""

    worker: Worker
    heard: list[Tokens] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    took_s: float = 0.0


async def read(pieces: tuple[Tokens, ...], ready_after_s: float = 0.0, breaks: tuple[int, ...] = ()) -> Reading:
    """Read from a worker to the end."""
    network = MemoryNetwork(random.Random(1))
    keys = [KeyPair(bytes([number]) * 32) for number in (1, 2)]
    near, far = (MemoryTransport(network, key.node_id) for key in keys)
    asking, serving = (Wire(t, key, GENESIS, VirtualClock()) for t, key in zip((near, far), keys, strict=True))
    async with network.run(), near.run(), far.run():
        began = trio.current_time()
        reading = Reading(Worker(serving, pieces, began + ready_after_s, list(breaks)))
        far.serve_stream(TOKENS, reading.worker.serve)
        await near.connect(far.addresses()[0])
        await TokenReader(asking, JOB, far.node_id, 2, reading.heard.append, reading.trouble.append).run()
        reading.took_s = trio.current_time() - began
        return reading


async def test_a_reader_that_comes_before_the_worker_knows_waits_a_moment_and_says_nothing(
    autojump_clock: object,
) -> None:
    reading = await read(WHOLE, ready_after_s=0.6)
    assert tuple(reading.heard) == WHOLE and reading.trouble == []
    assert 1 < reading.worker.refused <= 4 and reading.took_s < 1.0


async def test_a_stream_that_breaks_goes_on_where_it_was_and_says_so(autojump_clock: object) -> None:
    reading = await read(WHOLE, breaks=(2, 3))
    assert tuple(reading.heard) == WHOLE and reading.worker.asked == [0, 2, 5]
    assert ["piece 2" in reading.trouble[0], "piece 5" in reading.trouble[1], len(reading.trouble)] == [True, True, 2]


async def test_a_worker_that_never_answers_is_given_up_with_a_word(autojump_clock: object) -> None:
    reading = await read(WHOLE, ready_after_s=1e9)
    assert reading.heard == [] and "result will be fetched" in reading.trouble[-1] and 31 < reading.took_s < 40


async def test_a_worker_that_stops_before_an_answer_ends_is_told(autojump_clock: object) -> None:
    reading = await read(WHOLE[:5])
    assert reading.worker.asked == [0], "it said itself that there is no more"
    assert reading.trouble == ["the worker ended its stream before its answer to prompts[0] ended"]


@pytest.mark.parametrize(
    ("hostile", "reason"),
    [
        ((piece(0, last=True), piece(1)), "a piece for prompts[0], whose answer had its last piece"),
        ((piece(0, last=True), piece(1, last=True)), "a piece for prompts[0], whose answer had its last piece"),
        ((piece(0), piece(1, 2, last=True)), "a piece for prompts[2], where 2 were asked"),
        ((piece(0), piece(2)), "piece 2 came where 1 was due"),
        ((piece(0), piece(0)), "piece 0 came where 1 was due"),
        ((piece(0), piece(1, job=bytes(32))), "a piece of another worker or job"),
    ],
)
async def test_what_has_no_place_ends_the_reading(
    autojump_clock: object, hostile: tuple[Tokens, ...], reason: str
) -> None:
    reading = await read((*hostile, piece(2, 1)))
    assert tuple(reading.heard) == hostile[:1], "what came before stands, and nothing after it is heard"
    assert reading.worker.asked == [0]
    (said,) = reading.trouble
    assert reason in said and "its result will be fetched" in said


def test_a_piece_that_is_refused_changes_nothing() -> None:
    order = PieceOrder(2)
    assert order.take(1, last=True) == ""
    for prompt in (-1, 1, 2):
        assert order.take(prompt, last=True) and order.unfinished == (0,)
    assert order.take(0, last=False) == order.take(0, last=True) == "" and order.unfinished == ()


def settled(*texts: str) -> Answers:
    some = {"tokens": b"", "prompt_tokens": 1, "generated_tokens": 1, "stop_reason": "end", "compute_ms": 1}
    return Answers(answers=tuple(Answer(text=text, **some) for text in texts))


def test_what_was_not_heard_of_the_settled_answers() -> None:
    answers = settled("one", "two", "")
    assert unheard(answers, {}, ()) == {0: "one", 1: "two", 2: ""}
    assert unheard(answers, {0: "one", 1: "t"}, (0,)) == {1: "wo", 2: ""}
    assert unheard(answers, {0: "one", 1: "two"}, (0, 1, 2)) == {}
    assert unheard(answers, {0: "uno"}, ()) is None
    assert unheard(answers, {0: "on"}, (0,)) is None, "it said that there was no more"
