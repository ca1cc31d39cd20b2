"""The requester's end of a growing answer: pieces in order, from the worker that won, over as many streams as it takes.

A stream that breaks is opened again after 1, 2, 4, 8 and 16 s, from the piece that is due: nothing is shown twice and
nothing is left out. Before the first piece it is tried a few times more, quickly: the worker may hear of its award
after us. A worker that sends what has no place there is not asked again. What never comes is shown from the settled
result, which is fetched in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog
import trio

from ..protocol.envelope import Signed, open_as
from ..protocol.errors import PeerUnreachable, RemoteError
from ..protocol.inference import Answers
from ..protocol.limits import FRAME_MAX_BYTES, RETRY_DELAYS_S, TOKEN_PIECES_MAX
from ..protocol.messages import Tokens, TokensRequest
from ..protocol.units import JobId, NodeId, base58
from .piece_order import PieceOrder
from .wire import TOKENS, Wire

EARLY_DELAYS_S = (0.05, 0.1, 0.2, 0.4, 0.8)
log = structlog.get_logger()


@dataclass(slots=True)
class TokenReader:
    """Reads the answers to the `prompts` of one job. `heard` is called with each piece; `trouble` with what goes wrong,
    in words."""

    wire: Wire
    job: JobId
    worker: NodeId
    prompts: int
    heard: Callable[[Tokens], None]
    trouble: Callable[[str], None]
    due: int = 0
    """Sequence number of the next piece."""
    _order: PieceOrder = field(init=False)

    def __post_init__(self) -> None:
        self._order = PieceOrder(self.prompts)

    async def run(self) -> None:
        """Until the worker has no more; gives up after the last delay without a new piece."""
        failures, early = 0, iter(EARLY_DELAYS_S)
        while True:
            before = self.due
            try:
                await self._read()
                if missing := self._order.unfinished:
                    self.trouble(f"the worker ended its stream before its answer to prompts[{missing[0]}] ended")
                return
            except RemoteError as error:
                self.trouble(f"the answer is not shown any further: {error}; its result will be fetched")
                return
            except PeerUnreachable as error:
                if not self.due and (delay_s := next(early, None)) is not None:
                    log.debug("no answer yet", job=base58(self.job), cause=str(error), again_s=delay_s)
                    await trio.sleep(delay_s)
                    continue
                failures = 1 if self.due > before else failures + 1
                if failures > len(RETRY_DELAYS_S):
                    self.trouble(f"the answer is not shown any further ({error}); its result will be fetched")
                    return
                delay_s = RETRY_DELAYS_S[failures - 1]
                log.info("token stream broke", job=base58(self.job), at=self.due, cause=str(error), again_s=delay_s)
                self.trouble(f"the stream broke at piece {self.due} ({error}); again in {delay_s:.0f} s")
                await trio.sleep(delay_s)

    async def _read(self) -> None:
        stream = await self.wire.transport.open_stream(self.worker, TOKENS)
        try:
            await stream.send(self.wire.seal(TokensRequest(job=self.job, start=self.due)))
            while (frame := await stream.receive()) is not None:
                self._take(open_as(frame, self.wire.genesis, Tokens, max_bytes=FRAME_MAX_BYTES))
        finally:
            await stream.reset()

    def _take(self, signed: Signed[Tokens]) -> None:
        piece = signed.message
        if signed.sender != self.worker or piece.job != self.job:
            raise RemoteError("a piece of another worker or job came", peer=self.worker)
        if piece.sequence != self.due or self.due >= TOKEN_PIECES_MAX:
            raise RemoteError(f"piece {piece.sequence} came where {self.due} was due", peer=self.worker)
        if refused := self._order.take(piece.prompt_index, last=piece.last):
            raise RemoteError(f"the worker sent {refused}", peer=self.worker)
        self.due += 1
        self.heard(piece)


def unheard(answers: Answers, heard: Mapping[int, str], ended: Collection[int]) -> dict[int, str] | None:
    """What the settled answers add to the texts that were streamed, for each prompt whose last piece did not come; None
    when those said something else, or something else in all for one of the `ended` prompts."""
    rest: dict[int, str] = {}
    for index, answer in enumerate(answers.answers):
        said = heard.get(index, "")
        if not answer.text.startswith(said) or (index in ended and answer.text != said):
            return None
        if index not in ended:
            rest[index] = answer.text[len(said) :]
    return rest
