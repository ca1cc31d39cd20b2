"""How a winner answers prompts: pieces kept in order for the requester's stream, and its claim.

The requester asks for the pieces, from any one on: a stream that broke goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from ..protocol.errors import ExecutionFailed
from ..protocol.inference import InferSpec, TokensGenerated
from ..protocol.limits import GPU_SAMPLE_S, MICRO, TOKEN_PIECES_MAX, TOKENS_TEXT_MAX_CHARS
from ..protocol.messages import Claim, Progress, Tokens
from ..protocol.ports import Stream
from .auction_voting import Awarded
from .claims import encoded_answers, inference_claim
from .context import NodeContext
from .piece_order import PieceOrder
from .supervision import plain_nursery
from .traces import SealedTraces


@dataclass(slots=True)
class Pieces:
    """An answer as it grows: at most TOKEN_PIECES_MAX pieces. `closed` once no more will come."""

    items: list[Tokens] = field(default_factory=list)
    closed: bool = False
    _news: trio.Event = field(default_factory=trio.Event)

    def add(self, piece: Tokens) -> None:
        """The next piece; ExecutionFailed when a backend makes more of them than any answer has."""
        if len(self.items) >= TOKEN_PIECES_MAX:
            raise ExecutionFailed(f"the backend sent more than {TOKEN_PIECES_MAX} pieces")
        self.items.append(piece)
        self._wake()

    def close(self) -> None:
        """No more will come."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()

    async def wait(self) -> None:
        """Until there is something new."""
        await self._news.wait()


@dataclass(slots=True)
class InferenceWork:
    """One inference, from its task to its claim."""

    context: NodeContext
    awarded: Awarded
    task: InferSpec
    traces: SealedTraces
    pieces: Pieces
    _order: PieceOrder = field(init=False)
    _generated: dict[int, int] = field(default_factory=dict)
    _utilization: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._order = PieceOrder(len(self.task.task.prompts))

    async def perform(self) -> Claim:
        """Answer every prompt."""
        context, prompts = self.context, len(self.task.task.prompts)
        async with plain_nursery() as nursery:
            nursery.start_soon(self._watch_gpu)
            async with context.models.session(self.task) as session:
                generated = await session.generate(self._on_tokens)
            nursery.cancel_scope.cancel()
        if missing := self._order.unfinished:
            raise ExecutionFailed(f"the backend sent no last piece for prompts[{missing[0]}]")
        self.pieces.close()
        encoded = encoded_answers(generated, prompts)
        for one in generated:
            self.traces.add(one.trace)
        cid, busy = context.blobs.put(encoded), self._utilization
        gpu_ppm = sum(busy) // len(busy) if busy else None
        return inference_claim(self.awarded.terms, self.task.backend, self.traces, generated, (cid, encoded), gpu_ppm)

    async def _on_tokens(self, event: TokensGenerated) -> None:
        index, text = event.prompt_index, event.text
        if refused := self._order.take(index, last=event.last):
            raise ExecutionFailed(f"the backend sent {refused}")
        written = event.position + (len(event.tokens) or bool(text))
        count = self._generated[index] = max(written, self._generated.get(index, 0))
        for start in range(0, max(1, len(text)), TOKENS_TEXT_MAX_CHARS):
            end = start + TOKENS_TEXT_MAX_CHARS
            self.pieces.add(
                Tokens(
                    job=self.awarded.terms.job,
                    sequence=len(self.pieces.items),
                    prompt_index=index,
                    generated=count,
                    text=text[start:end],
                    last=event.last and end >= len(text),
                )
            )

    async def _watch_gpu(self) -> None:
        while (busy := self.context.models.gpu_utilization_ppm()) is not None:
            self._utilization.append(busy)
            await trio.sleep(GPU_SAMPLE_S)

    def last_progress(self) -> Progress | None:
        """How much is written of what was asked for; None before the first token."""
        asked, written = self.task.task, sum(self._generated.values())
        if not written:
            return None
        whole = len(asked.prompts) * asked.num_predict
        return Progress(
            job=self.awarded.terms.job,
            sequence=0,
            progress_ppm=min(MICRO, MICRO * written // whole),
            step=written,
            current_epoch=0,
            batch_loss_micro=0,
            batch_accuracy_micro=0,
            batch_time_us=0,
            learning_rate_micro=0,
            validation_loss_micro=-1,
            validation_accuracy_micro=-1,
        )


async def stream_pieces(context: NodeContext, pieces: Pieces, stream: Stream, start: int) -> None:
    """Hand over the pieces from `start` on, until the last one has gone."""
    sent = start
    while True:
        while sent < len(pieces.items):
            await stream.send(context.wire.seal(pieces.items[sent]))
            sent += 1
        if pieces.closed:
            break
        await pieces.wait()
    await stream.close()
