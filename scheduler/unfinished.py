"""Awards that this node has not answered with a claim, on disk: a restart must not end in silence (DESIGN 11).

A record is written at the award and cleared when the claim has been told or the job is over. After a restart the node
owns up: the parties hear that it restarted, and need not wait for a deadline.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from ..protocol import codec
from ..protocol.award import JobTerms
from ..protocol.envelope import open_as
from ..protocol.errors import RemoteError
from ..protocol.limits import COMMITTEE_MAX, RESPONSE_MAX_BYTES
from ..protocol.messages import JobAnnounce
from ..protocol.ports import Journal
from ..protocol.spec import Bytes32
from ..protocol.units import JobId, NodeId
from .auction_voting import Awarded, certificate_of

PREFIX = b"run/"


class Unfinished(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is needed to speak for an award again: signed envelopes, and what the chain says of the draw."""

    announce: bytes
    certificate: bytes
    open_slot: Annotated[int, Meta(ge=0)]
    committee: Annotated[tuple[Bytes32, ...], Meta(max_length=COMMITTEE_MAX)]


def remember(journal: Journal, awarded: Awarded) -> None:
    """The node begins to work on an award."""
    record = Unfinished(
        announce=awarded.announce.raw,
        certificate=awarded.raw,
        open_slot=awarded.terms.open_slot,
        committee=awarded.terms.committee,
    )
    journal.put(PREFIX + awarded.terms.job, codec.encode(record))


def forget(journal: Journal, job: JobId) -> None:
    """The award is answered."""
    journal.put(PREFIX + job, b"")


def unfinished(journal: Journal, genesis: bytes) -> Iterator[Awarded]:
    """Awards of an earlier life of this node. A record that no longer checks is dropped."""
    for key, value in list(journal.items(PREFIX)):
        if not value:
            continue
        try:
            yield _restore(value, genesis)
        except RemoteError:
            forget(journal, JobId(key.removeprefix(PREFIX)))


def _restore(value: bytes, genesis: bytes) -> Awarded:
    record = codec.decode(value, Unfinished, max_bytes=RESPONSE_MAX_BYTES)
    announce = open_as(record.announce, genesis, JobAnnounce)
    committee = tuple(NodeId(node) for node in record.committee)
    terms = JobTerms(genesis, announce.message, record.open_slot, committee)
    return Awarded(announce, terms, certificate_of(terms, record.certificate), record.certificate)
