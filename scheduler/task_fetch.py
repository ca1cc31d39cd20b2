"""How the winner and the members come by a job's spec and data: from the requester, or from the worker that has them.

Everything is named by its hash, so it does not matter who hands it over; a requester that goes offline, or that serves
some of the parties and not the others, stops nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog
import trio

from ..protocol import codec
from ..protocol.errors import CyxError, PeerUnreachable, Refusal, RemoteError
from ..protocol.inference import InferSpec, JobSpec, prompt_tokens_most
from ..protocol.limits import BLOB_MAX_BYTES, FETCH_RETRY_S, FETCH_TRIES_MAX, REQUEST_TIMEOUT_S, SPEC_MAX_BYTES
from ..protocol.messages import JobAnnounce, SpecAnswer, SpecRequest
from ..protocol.ports import TrainTask
from ..protocol.spec import TrainSpec, encode_spec, spec_hash
from ..protocol.units import NodeId, base58
from .auction_voting import Awarded
from .context import NodeContext
from .data_service import DataService
from .wire import NOT_YET, SPEC

log = structlog.get_logger()
Task = TrainTask | InferSpec
"""All that a worker computes from: a spec with its data, or the spec of an inference, which holds its prompts."""


def spec_of(task: Task) -> JobSpec:
    """The spec of a task."""
    return task.spec if isinstance(task, TrainTask) else task


class TaskUnserved(RemoteError):
    """Nobody gave us the spec and its data, though we asked all who should."""


async def fetch_task(context: NodeContext, data: DataService, awarded: Awarded, *, first_hand: bool = False) -> Task:
    """The spec and its data, all checked by their hashes; `first_hand` asks the requester alone. TaskUnserved carries
    the text of the last refusal."""
    last: CyxError | None = None
    for attempt in range(FETCH_TRIES_MAX):
        if attempt:
            await trio.sleep(FETCH_RETRY_S)
        for source, within_s in _sources(context, awarded, attempt, first_hand):
            try:
                return await _fetch_from(context, data, awarded, source, within_s)
            except (RemoteError, PeerUnreachable) as error:
                last = error
                log.info("task not fetched", job=base58(awarded.terms.job), peer=base58(source), cause=str(error))
    raise TaskUnserved(str(last)) from last


@dataclass(slots=True)
class TaskSearch:
    """A member's own request to the requester, for a worker that was not served. It is made once: what the member did
    not get when the worker asked for it, the worker could not get either."""

    context: NodeContext
    data: DataService
    awarded: Awarded
    task: Task | None = None
    begun: bool = False
    _over: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> bool:
        """Search, or wait for the search that is on; whether the task is here."""
        if self.begun:
            await self._over.wait()
            return self.task is not None
        self.begun = True
        try:
            self.task = await fetch_task(self.context, self.data, self.awarded, first_hand=True)
        except TaskUnserved as error:
            log.warning("task not served", job=base58(self.awarded.terms.job), cause=str(error))
        finally:
            self._over.set()
        return self.task is not None

    def answer(self) -> SpecAnswer:
        """The spec for the worker; Refusal while, or since, it is not here."""
        if self.task is not None:
            return SpecAnswer(spec=encode_spec(spec_of(self.task)))
        early = "" if self._over.is_set() else NOT_YET
        raise Refusal(f"{early}the requester has not served the spec and its data here")


def _sources(context: NodeContext, awarded: Awarded, attempt: int, first_hand: bool) -> list[tuple[NodeId, float]]:
    """Who is asked, and for how long: the requester; then, by a member, the worker that has it; by the worker, at last,
    the members, who ask the requester for it and so see for themselves whether it serves."""
    requester, winner, members = awarded.announce.sender, awarded.certified.winner, awarded.terms.committee
    sources = [(requester, REQUEST_TIMEOUT_S)]
    if first_hand:
        return sources
    if winner != context.wire.me:
        return [*sources, (winner, REQUEST_TIMEOUT_S)]
    last = attempt + 1 == FETCH_TRIES_MAX
    return [(member, REQUEST_TIMEOUT_S / len(members)) for member in members] if last else sources


async def _fetch_from(
    context: NodeContext, data: DataService, awarded: Awarded, source: NodeId, within_s: float
) -> Task:
    spec = await _fetch_spec(context, awarded, source, within_s)
    if isinstance(spec, InferSpec):
        return spec
    train = await data.fetch(source, spec.train_cid, max_bytes=BLOB_MAX_BYTES)
    validation = await data.fetch(source, spec.validation_cid, max_bytes=BLOB_MAX_BYTES)
    return TrainTask(spec, train, validation)


async def _fetch_spec(context: NodeContext, awarded: Awarded, source: NodeId, within_s: float) -> JobSpec:
    announce, wire = awarded.announce, context.wire
    if source == announce.sender:
        wire.transport.learn(source, announce.message.addresses)
    request = SpecRequest(job=awarded.terms.job, certificate=awarded.raw, handover=awarded.handover)
    answer = await wire.ask(source, SPEC, request, SpecAnswer, within_s=within_s)
    if spec_hash(answer.message.spec) != announce.message.spec_hash:
        raise RemoteError("the spec is another than the announced one", peer=source)
    return announced_spec(answer.message.spec, announce.message)


def announced_spec(encoded: bytes, announce: JobAnnounce) -> JobSpec:
    """A spec that is of the kind and size that the announce says; RemoteError when it is not."""
    if announce.inference is None:
        spec = codec.decode(encoded, TrainSpec, max_bytes=SPEC_MAX_BYTES)
        if spec.segments != announce.segments:
            raise RemoteError("the spec has another number of segments than the announce")
        return spec
    asked, terms = codec.decode(encoded, InferSpec, max_bytes=SPEC_MAX_BYTES), announce.inference
    if (asked.model, asked.backend) != (terms.model, terms.backend):
        raise RemoteError("the spec is for another model or backend than the announce")
    if len(asked.task.prompts) != announce.segments:
        raise RemoteError("the spec has another number of prompts than the announce")
    if len(asked.task.prompts) * asked.task.num_predict > terms.generated_tokens:
        raise RemoteError("the spec asks for more tokens than the announce")
    if prompt_tokens_most(asked.task) > terms.prompt_tokens:
        raise RemoteError("the spec's prompts can have more tokens than the announce")
    return asked
