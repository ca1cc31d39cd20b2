"""Gossip rules as functions (DESIGN 2, 3): cheap checks first, signatures before anything is believed.

IGNORE drops a message that may be honest (late, of a skewed clock); REJECT also costs the forwarder, because no honest
node forwards it.
"""

from __future__ import annotations

import msgspec

from .bundle import unpack
from .envelope import Opener, Signed, open_any
from .errors import RemoteError
from .hashing import job_id
from .limits import ADDRESSES_MAX, CLOCK_SKEW_MS, GOSSIP_MESSAGE_MAX_BYTES
from .messages import (
    AwardCertificate,
    BidCommit,
    BidReveal,
    Capability,
    Decline,
    HandoverCertificate,
    Heartbeat,
    JobAnnounce,
    JobStatus,
    Message,
    Outcome,
)
from .ports import GossipVerdict
from .units import NodeId

PRESENCE_KINDS: tuple[type[Message], ...] = (Heartbeat, Capability)
MARKET_KINDS: tuple[type[Message], ...] = (
    JobAnnounce, Decline, BidCommit, BidReveal, AwardCertificate, HandoverCertificate, Outcome,
)  # fmt: skip
STATUS_KINDS: tuple[type[Message], ...] = (JobStatus,)

CheckedRecord = tuple[GossipVerdict, Signed[msgspec.Struct] | None, str]
"""The verdict, the opened envelope when it is ACCEPT, and otherwise the reason."""
Checked = tuple[GossipVerdict, tuple[Signed[msgspec.Struct], ...], str]
"""The verdict, the opened envelopes when it is ACCEPT, and otherwise the reason."""


def presence_topic(execution_class: bytes, shards: int = 1, shard: int = 0) -> str:
    """Heartbeats and capability records of one cell: an execution class, or one of the `shards` of a large one."""
    part = f"/{shards}-{shard}" if shards > 1 else ""
    return f"cyx/1/presence/{execution_class[:8].hex()}{part}"


def market_topic(execution_class: bytes) -> str:
    """Announces, bids, awards and outcomes of one execution class."""
    return f"cyx/1/market/{execution_class[:8].hex()}"


def job_topic(job: bytes) -> str:
    """Status digests of one job."""
    return f"cyx/1/jobs/{job[:16].hex()}"


def check_gossip(
    data: bytes, genesis: bytes, kinds: tuple[type[Message], ...], now_ms: int, opener: Opener = open_any
) -> Checked:
    """Judge a gossip message of a topic that carries `kinds`: all its records are good, or none is believed."""
    # [REJECT] larger than any honest message
    if len(data) > GOSSIP_MESSAGE_MAX_BYTES:
        return GossipVerdict.REJECT, (), "too large"
    # [REJECT] not a bundle of one or more envelopes
    try:
        records = unpack(data)
    except RemoteError as error:
        return GossipVerdict.REJECT, (), str(error)
    ignored, opened = "", list[Signed[msgspec.Struct]]()
    for record in records:
        verdict, signed, reason = check_record(record, genesis, kinds, now_ms, opener)
        # [REJECT] any of its records must be rejected
        if verdict is GossipVerdict.REJECT:
            return verdict, (), reason
        if signed is None:
            ignored = ignored or reason
        else:
            opened.append(signed)
    # [REJECT] records of more than one author: each would be heard at the rate of another
    if len({signed.sender for signed in opened}) > 1:
        return GossipVerdict.REJECT, (), "its records are not of one author"
    # [IGNORE] any of its records must be ignored
    return (GossipVerdict.IGNORE, (), ignored) if ignored else (GossipVerdict.ACCEPT, tuple(opened), "")


def check_record(
    data: bytes, genesis: bytes, kinds: tuple[type[Message], ...], now_ms: int, opener: Opener = open_any
) -> CheckedRecord:
    """Judge one envelope of a topic that carries `kinds`."""
    # [REJECT] larger than any honest message
    if len(data) > GOSSIP_MESSAGE_MAX_BYTES:
        return GossipVerdict.REJECT, None, "too large"
    # [REJECT] not an envelope of a known kind, not canonical, or wrongly signed
    try:
        signed = opener(data, genesis, max_bytes=GOSSIP_MESSAGE_MAX_BYTES)
    except RemoteError as error:
        return GossipVerdict.REJECT, None, str(error)
    # [REJECT] a kind that does not belong on this topic
    if not isinstance(signed.message, kinds):
        return GossipVerdict.REJECT, None, f"{type(signed.message).__name__} does not belong on this topic"
    # [IGNORE] sent by a clock more than CLOCK_SKEW_MS away, or held back that long
    sent_at = getattr(signed.message, "sent_at_ms", None)
    if sent_at is not None and abs(sent_at - now_ms) > CLOCK_SKEW_MS:
        return GossipVerdict.IGNORE, None, f"its clock is {(sent_at - now_ms) / 1000:+.0f} s away from ours"
    # [REJECT] an announce whose id does not follow from its requester, nonce and spec
    if isinstance(signed.message, JobAnnounce):
        announce = signed.message
        if announce.job != job_id(NodeId(signed.sender), announce.nonce, announce.spec_hash):
            return GossipVerdict.REJECT, None, "the job id does not follow from requester, nonce and spec"
        if not announce.addresses or len(announce.addresses) > ADDRESSES_MAX:
            return GossipVerdict.REJECT, None, "the announce has no address to fetch the spec from"
    return GossipVerdict.ACCEPT, signed, ""
