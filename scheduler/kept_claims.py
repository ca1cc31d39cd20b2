"""What a settled job was paid for, on the disks of its worker and its members: a requester that was gone may ask for it
a day later, and after a restart of the node (DESIGN 10, 11)."""

from __future__ import annotations

import msgspec

from ..protocol import codec
from ..protocol.errors import RemoteError
from ..protocol.fields import Evidence, Millis
from ..protocol.limits import CLAIM_KEPT_MS, CLAIMS_KEPT_MAX, RESPONSE_MAX_BYTES
from ..protocol.messages import ResultAnswer
from ..protocol.ports import Journal
from ..protocol.spec import Bytes32
from ..protocol.units import JobId, NodeId

BY_JOB, BY_PLACE, COUNT = b"kept/", b"kept-place/", b"kept-count"
_COUNT_BYTES, _PLACE_BYTES = 8, 4


class KeptClaim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For whom, since when, and the envelopes of award certificate, claim and, if there was one, hand-over."""

    requester: Bytes32
    at_ms: Millis
    certificate: Evidence
    claim: Evidence
    handover: Evidence = b""


def keep_claim(journal: Journal, job: JobId, kept: KeptClaim) -> None:
    """Keep it; the one that came CLAIMS_KEPT_MAX before it is dropped."""
    if journal.get(BY_JOB + job):
        return
    count = int.from_bytes((journal.get(COUNT) or b"")[:_COUNT_BYTES], "big")
    place = BY_PLACE + (count % CLAIMS_KEPT_MAX).to_bytes(_PLACE_BYTES, "big")
    oldest = journal.get(place)
    if oldest:
        journal.note(BY_JOB + oldest, b"")
    journal.note(place, job)
    journal.note(COUNT, (count + 1).to_bytes(_COUNT_BYTES, "big"))
    journal.note(BY_JOB + job, codec.encode(kept))


def kept_claim(journal: Journal, job: JobId, requester: NodeId, now_ms: int) -> ResultAnswer | None:
    """What is kept for this requester, for CLAIM_KEPT_MS."""
    value = journal.get(BY_JOB + job)
    try:
        kept = codec.decode(value, KeptClaim, max_bytes=2 * RESPONSE_MAX_BYTES) if value else None
    except RemoteError:
        return None
    if kept is None or kept.requester != requester or now_ms > kept.at_ms + CLAIM_KEPT_MS:
        return None
    return ResultAnswer(job=job, certificate=kept.certificate, claim=kept.claim, handover=kept.handover)
