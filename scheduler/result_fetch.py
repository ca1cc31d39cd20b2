"""How a requester comes by what the quorum accepted: from the worker, else from a member, which holds it since its
check. What arrives is believed by its hash alone."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import structlog
import trio

from ..protocol import codec
from ..protocol.errors import PeerUnreachable, RemoteError
from ..protocol.inference import Answers
from ..protocol.limits import ANSWERS_MAX_BYTES, BLOB_MAX_BYTES, OUTCOME_PATIENCE_S
from ..protocol.messages import Claim, InferenceClaim, ResultClaim
from ..protocol.units import NodeId, base58
from .data_service import DataService
from .requester_record import JobRecord

log = structlog.get_logger()


async def fetch_result(record: JobRecord, data: DataService) -> bytes | None:
    """The weights of a training, the encoded answers of an inference; None when nobody gave them."""
    with trio.move_on_after(OUTCOME_PATIENCE_S):
        while record.settled_claim() is None:
            await record.changed.wait()
    claim = record.settled_claim()
    if claim is None or record.outcome is None or record.terms is None:
        record.trouble("the settled claim never arrived: ask its worker")
        return None
    result = await fetch_claimed(data, claim, (NodeId(record.outcome.message.worker), *record.terms.committee))
    if result is not None:
        record.stage("fetched", f"{len(result)} bytes")
    return result


async def fetch_claimed(data: DataService, claim: Claim, sources: Iterable[NodeId]) -> bytes | None:
    """The result that a claim names, from our own store or from the first source that gives it."""
    cid, digest, size = _named(claim)
    for source in sources:
        try:
            result = await data.fetch(source, cid, max_bytes=size)
        except (PeerUnreachable, RemoteError) as error:
            log.warning("result not fetched", job=base58(claim.job), peer=base58(source), cause=str(error))
            continue
        if sha256(result).digest() == digest:
            return result
    return None


def answers_of(result: bytes) -> Answers:
    """The answers inside a result; RemoteError when there are none, which no honest quorum accepts."""
    return codec.decode(result, Answers, max_bytes=ANSWERS_MAX_BYTES)


def _named(claim: Claim) -> tuple[str, bytes, int]:
    """CID, sha256 and most bytes of a claim's result."""
    if isinstance(claim, InferenceClaim):
        return claim.result_uri.removeprefix("ipfs://"), claim.result_hash, claim.result_bytes
    assert isinstance(claim, ResultClaim)
    size = min(BLOB_MAX_BYTES, claim.model_weights_bytes)
    return claim.model_weights_uri.removeprefix("ipfs://"), claim.model_weights_hash, size
