"""The stream of a growing answer: a reader that comes early, and a stream that breaks."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import trio

from cyxnode.p2p.memory import MemoryTransport
from cyxnode.p2p.memory_network import MemoryNetwork
from cyxnode.protocol.envelope import open_as
from cyxnode.protocol.errors import Refusal
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.messages import Tokens, TokensRequest
from cyxnode.protocol.ports import Stream
from cyxnode.protocol.units import JobId
from cyxnode.scheduler.token_reader import TokenReader
from cyxnode.scheduler.wire import TOKENS, Wire
from market_world import VirtualClock

GENESIS, JOB, PIECES = bytes(32), JobId(bytes([7]) * 32), 6


@dataclass
class Worker:
    """Serves PIECES pieces from `ready_s` on; its first streams break after so many of them."""

    wire: Wire
    ready_s: float
    breaks: list[int] = field(default_factory=list)
    refused: int = 0

    async def serve(self, stream: Stream) -> None:
        start = open_as(await stream.receive() or b"", GENESIS, TokensRequest, max_bytes=1024).message.start
        if trio.current_time() < self.ready_s:
            self.refused += 1
            raise Refusal("this node does not work on that job")
        last = start + self.breaks.pop(0) if self.breaks else PIECES
        for number in range(start, last):
            piece = Tokens(job=JOB, sequence=number, prompt_index=0, generated=number + 1, text=str(number))
            await stream.send(self.wire.seal(piece))
        if last < PIECES:
            raise Refusal("it breaks")
        await stream.close()


async def read(ready_after_s: float, breaks: list[int]) -> tuple[Worker, list[str], list[str], float]:
    """The worker, what was heard, what was told as trouble, and how many seconds it took."""
    network = MemoryNetwork(random.Random(1))
    keys = [KeyPair(bytes([number]) * 32) for number in (1, 2)]
    near, far = (MemoryTransport(network, key.node_id) for key in keys)
    asking, serving = (Wire(t, key, GENESIS, VirtualClock()) for t, key in zip((near, far), keys, strict=True))
    heard: list[str] = []
    trouble: list[str] = []
    async with network.run(), near.run(), far.run():
        began = trio.current_time()
        worker = Worker(serving, began + ready_after_s, breaks)
        far.serve_stream(TOKENS, worker.serve)
        await near.connect(far.addresses()[0])
        await TokenReader(asking, JOB, far.node_id, lambda piece: heard.append(piece.text), trouble.append).run()
        return worker, heard, trouble, trio.current_time() - began


async def test_a_reader_that_comes_before_the_worker_knows_waits_a_moment_and_says_nothing(
    autojump_clock: object,
) -> None:
    worker, heard, trouble, took_s = await read(0.6, [])
    assert heard == ["0", "1", "2", "3", "4", "5"] and trouble == []
    assert 1 < worker.refused <= 4 and took_s < 1.0


async def test_a_stream_that_breaks_goes_on_where_it_was_and_says_so(autojump_clock: object) -> None:
    _, heard, trouble, _ = await read(0, [2, 3])
    assert heard == ["0", "1", "2", "3", "4", "5"]
    assert ["piece 2" in trouble[0], "piece 5" in trouble[1], len(trouble)] == [True, True, 2]


async def test_a_worker_that_never_answers_is_given_up_with_a_word(autojump_clock: object) -> None:
    _, heard, trouble, took_s = await read(1e9, [])
    assert heard == [] and "result will be fetched" in trouble[-1] and 31 < took_s < 40
