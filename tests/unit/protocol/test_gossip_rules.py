"""Gossip rules: what is dropped, what is held against the forwarder, and what is believed."""

from __future__ import annotations

import msgspec
import pytest

from cyxnode.protocol.bundle import pack
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.hashing import job_id
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import CLOCK_SKEW_MS, GOSSIP_MESSAGE_MAX_BYTES
from cyxnode.protocol.messages import Heartbeat, JobAnnounce, Message, kind_of
from cyxnode.protocol.ports import GossipVerdict
from cyxnode.protocol.validation import (
    MARKET_KINDS,
    PRESENCE_KINDS,
    STATUS_KINDS,
    check_gossip,
    job_topic,
    market_topic,
    presence_topic,
)
from sample_messages import ANNOUNCE, GENESIS, KEY, MESSAGES, NOW_MS

OWN = msgspec.structs.replace(ANNOUNCE, job=job_id(KEY.node_id, ANNOUNCE.nonce, ANNOUNCE.spec_hash))
BEAT = next(message for message in MESSAGES if isinstance(message, Heartbeat))
GOSSIPED = PRESENCE_KINDS + MARKET_KINDS + STATUS_KINDS
SAMPLES = [OWN if isinstance(message, JobAnnounce) else message for message in MESSAGES]


def judge(
    message: Message, kinds: tuple[type[Message], ...] = GOSSIPED, key: KeyPair = KEY, now_ms: int = NOW_MS
) -> tuple[GossipVerdict, str]:
    verdict, opened, reason = check_gossip(pack([seal(key, GENESIS, message)]), GENESIS, kinds, now_ms)
    assert bool(opened) == (verdict is GossipVerdict.ACCEPT) == (reason == "")
    assert all((one.message, one.sender) == (message, key.node_id) for one in opened)
    return verdict, reason


@pytest.mark.parametrize("message", SAMPLES, ids=kind_of)
def test_each_kind_travels_on_its_own_topic_only(message: Message) -> None:
    for kinds in (PRESENCE_KINDS, MARKET_KINDS, STATUS_KINDS):
        verdict, reason = judge(message, kinds)
        if isinstance(message, kinds):
            assert verdict is GossipVerdict.ACCEPT
        else:
            assert verdict is GossipVerdict.REJECT
            assert "does not belong on this topic" in reason


@pytest.mark.parametrize("drift", [CLOCK_SKEW_MS, -CLOCK_SKEW_MS])
def test_a_skewed_clock_is_tolerated_up_to_the_limit(drift: int) -> None:
    assert judge(BEAT, now_ms=NOW_MS + drift)[0] is GossipVerdict.ACCEPT
    beyond = drift + (1 if drift > 0 else -1)
    verdict, reason = judge(BEAT, now_ms=NOW_MS + beyond)
    assert verdict is GossipVerdict.IGNORE
    assert "clock" in reason


@pytest.mark.parametrize("data", [b"", b"junk", b"\x91" * 1_000])
def test_junk_is_rejected(data: bytes) -> None:
    assert check_gossip(data, GENESIS, GOSSIPED, NOW_MS)[0] is GossipVerdict.REJECT


def test_the_size_is_checked_first() -> None:
    verdict, _, reason = check_gossip(bytes(GOSSIP_MESSAGE_MAX_BYTES + 1), GENESIS, GOSSIPED, NOW_MS)
    assert (verdict, reason) == (GossipVerdict.REJECT, "too large")


def test_a_forged_or_foreign_envelope_is_rejected() -> None:
    sealed = seal(KEY, GENESIS, BEAT)
    assert check_gossip(pack([sealed[:-1] + b"\0"]), GENESIS, GOSSIPED, NOW_MS)[0] is GossipVerdict.REJECT
    assert check_gossip(pack([sealed]), bytes(32), GOSSIPED, NOW_MS)[0] is GossipVerdict.REJECT
    assert check_gossip(sealed, GENESIS, GOSSIPED, NOW_MS)[0] is GossipVerdict.REJECT, "an envelope alone is no bundle"


def test_records_of_one_author_share_a_message() -> None:
    records = [seal(KEY, GENESIS, message) for message in SAMPLES if isinstance(message, GOSSIPED)]
    verdict, opened, reason = check_gossip(pack(records), GENESIS, GOSSIPED, NOW_MS)
    assert (verdict, reason) == (GossipVerdict.ACCEPT, "") and [one.raw for one in opened] == records


def test_one_bad_record_spoils_its_message() -> None:
    good, other = seal(KEY, GENESIS, BEAT), KeyPair(b"t" * 32)
    late = seal(KEY, GENESIS, msgspec.structs.replace(BEAT, sent_at_ms=NOW_MS - CLOCK_SKEW_MS - 1))
    cases = [
        ([good, b"junk"], GossipVerdict.REJECT),
        ([good, seal(KEY, bytes(32), OWN)], GossipVerdict.REJECT),
        ([good, seal(other, GENESIS, BEAT)], GossipVerdict.REJECT),
        ([good, late], GossipVerdict.IGNORE),
        ([late, b"junk"], GossipVerdict.REJECT),
        ([good, good], GossipVerdict.REJECT),
    ]
    for records, expected in cases:
        verdict, opened, reason = check_gossip(pack(records), GENESIS, GOSSIPED, NOW_MS)
        assert verdict is expected and not opened and reason


def test_an_announce_belongs_to_the_requester_that_its_id_names() -> None:
    assert judge(OWN)[0] is GossipVerdict.ACCEPT
    verdict, reason = judge(OWN, key=KeyPair(b"t" * 32))
    assert verdict is GossipVerdict.REJECT
    assert "job id" in reason


@pytest.mark.parametrize("change", [{"nonce": bytes(32)}, {"spec_hash": bytes(32)}, {"job": bytes(32)}])
def test_an_id_that_does_not_follow_is_rejected(change: dict[str, object]) -> None:
    assert judge(msgspec.structs.replace(OWN, **change))[0] is GossipVerdict.REJECT


def test_an_announce_without_an_address_is_rejected() -> None:
    verdict, reason = judge(msgspec.structs.replace(OWN, addresses=()))
    assert verdict is GossipVerdict.REJECT
    assert "address" in reason


def test_topics_are_named_by_the_law() -> None:
    assert presence_topic(bytes(range(32))) == "cyx/1/presence/0001020304050607"
    assert presence_topic(bytes(range(32)), 4, 3) == "cyx/1/presence/0001020304050607/4-3"
    assert market_topic(b"\xab" * 32) == "cyx/1/market/" + "ab" * 8
    assert job_topic(b"\xcd" * 32) == "cyx/1/jobs/" + "cd" * 16
