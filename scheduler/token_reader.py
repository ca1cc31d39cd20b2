"""The requester's end of a growing answer: pieces in order, from the worker that won, over as many streams as it takes.

A stream that breaks is opened again after 1, 2, 4, 8 and 16 s, from the piece that is due: nothing is shown twice and
nothing is left out. Before the first piece it is tried a few times more, quickly: the worker may hear of its award
after us. What never comes is shown from the settled result, which is fetched in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
import trio

from ..protocol.envelope import open_as
from ..protocol.errors import PeerUnreachable, RemoteError
from ..protocol.inference import Answers
from ..protocol.limits import FRAME_MAX_BYTES, RETRY_DELAYS_S, TOKEN_PIECES_MAX
from ..protocol.messages import Tokens, TokensRequest
from ..protocol.units import JobId, NodeId, base58
from .wire import TOKENS, Wire

EARLY_DELAYS_S = (0.05, 0.1, 0.2, 0.4, 0.8)
log = structlog.get_logger()


@dataclass(slots=True)
class TokenReader:
    """Reads the answers of one job. `heard` is called with each piece; `trouble` with what goes wrong, in words."""

    wire: Wire
    job: JobId
    worker: NodeId
    heard: Callable[[Tokens], None]
    trouble: Callable[[str], None]
    due: int = 0
    """Sequence number of the next piece."""

    async def run(self) -> None:
        """Until the worker has no more; gives up after the last delay without a new piece."""
        failures, early = 0, iter(EARLY_DELAYS_S)
        while True:
            before = self.due
            try:
                await self._read()
                return
            except (PeerUnreachable, RemoteError) as error:
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
                piece = open_as(frame, self.wire.genesis, Tokens, max_bytes=FRAME_MAX_BYTES)
                if piece.sender != self.worker or piece.message.job != self.job:
                    raise RemoteError("a piece of another worker or job", peer=self.worker)
                if piece.message.sequence != self.due or self.due >= TOKEN_PIECES_MAX:
                    raise RemoteError(f"piece {piece.message.sequence} came where {self.due} was due")
                self.due += 1
                self.heard(piece.message)
        finally:
            await stream.reset()


def unheard(answers: Answers, heard: Mapping[int, str]) -> dict[int, str] | None:
    """What the settled answers add to the texts that were streamed, by prompt; None when those said something else."""
    rest: dict[int, str] = {}
    for index, answer in enumerate(answers.answers):
        said = heard.get(index, "")
        if not answer.text.startswith(said):
            return None
        if len(answer.text) > len(said):
            rest[index] = answer.text[len(said) :]
    return rest
