"""How the winner and the members come by a job's spec and data: from the requester, or from the worker that has them.

Everything is named by its hash, so it does not matter who hands it over; a requester that goes offline, or that serves
the worker but not its judges, stops nothing.
"""

from __future__ import annotations

import structlog
import trio

from ..protocol import codec
from ..protocol.errors import PeerUnreachable, RemoteError
from ..protocol.limits import BLOB_MAX_BYTES, FETCH_RETRY_S, FETCH_TRIES_MAX, SPEC_MAX_BYTES
from ..protocol.messages import SpecAnswer, SpecRequest
from ..protocol.ports import TrainTask
from ..protocol.spec import TrainSpec, spec_hash
from ..protocol.units import NodeId, base58
from .auction_voting import Awarded
from .context import NodeContext
from .data_service import DataService
from .wire import SPEC

log = structlog.get_logger()


async def fetch_task(context: NodeContext, data: DataService, awarded: Awarded) -> TrainTask:
    """The spec and its data, all checked by their hashes. Raises what the last source's refusal raised."""
    sources = [awarded.announce.sender]
    if awarded.certified.winner != context.wire.me:
        sources.append(awarded.certified.winner)
    for attempt in range(FETCH_TRIES_MAX):
        for source in sources:
            try:
                return await _fetch_from(context, data, awarded, source)
            except (RemoteError, PeerUnreachable) as error:
                last = error
                log.info("task not fetched", job=base58(awarded.terms.job), peer=base58(source), cause=str(error))
        if attempt + 1 < FETCH_TRIES_MAX:
            await trio.sleep(FETCH_RETRY_S)
    raise last


async def _fetch_from(context: NodeContext, data: DataService, awarded: Awarded, source: NodeId) -> TrainTask:
    spec = await _fetch_spec(context, awarded, source)
    train = await data.fetch(source, spec.train_cid, max_bytes=BLOB_MAX_BYTES)
    validation = await data.fetch(source, spec.validation_cid, max_bytes=BLOB_MAX_BYTES)
    return TrainTask(spec, train, validation)


async def _fetch_spec(context: NodeContext, awarded: Awarded, source: NodeId) -> TrainSpec:
    announce, wire = awarded.announce, context.wire
    if source == announce.sender:
        wire.transport.learn(source, announce.message.addresses)
    request = SpecRequest(job=awarded.terms.job, certificate=awarded.raw)
    answer = await wire.ask(source, SPEC, request, SpecAnswer)
    if spec_hash(answer.message.spec) != announce.message.spec_hash:
        raise RemoteError("the spec is another than the announced one", peer=source)
    spec = codec.decode(answer.message.spec, TrainSpec, max_bytes=SPEC_MAX_BYTES)
    if spec.segments != announce.message.segments:
        raise RemoteError("the spec has another number of segments than the announce", peer=source)
    return spec
