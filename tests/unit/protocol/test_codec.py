"""The decoder's limits and its one canonical form, each refused example by example."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import pytest

from cyxnode.protocol import codec
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.limits import MAX_DEPTH, MAX_ITEMS
from cyxnode.protocol.messages import (
    BidCommit,
    Capability,
    Decline,
    Heartbeat,
    JobAnnounce,
    PeersAnswer,
    PeersRequest,
    ScoreWeights,
    StartNotice,
    Tally,
)
from sample_messages import ANNOUNCE, JOB, MESSAGES, NOW_MS, run

COMMIT = BidCommit(job=JOB, commitment=run(7))
KIB_64 = 64 * 1024


def refused(data: bytes, kind: type[Any], why: str, max_bytes: int = KIB_64) -> None:
    with pytest.raises(RemoteError, match=why) as caught:
        codec.decode(data, kind, max_bytes=max_bytes)
    assert kind.__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


def packed(fields: dict[Any, Any]) -> bytes:
    return msgpack.packb(fields)


def fields_of(message: Any) -> dict[str, Any]:
    return msgpack.unpackb(codec.encode(message))


def test_the_size_is_checked_before_anything_else() -> None:
    data = codec.encode(COMMIT)
    assert codec.decode(data, BidCommit, max_bytes=len(data)) == COMMIT
    refused(data, BidCommit, f"{len(data)} bytes, at most {len(data) - 1}", max_bytes=len(data) - 1)
    refused(b"\xc1" * 100, BidCommit, "100 bytes, at most 10", max_bytes=10)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81", b"\x82\xa3job", codec.encode(COMMIT)[:-1]])
def test_truncated_bytes(data: bytes) -> None:
    refused(data, BidCommit, "BidCommit: .")


def test_trailing_bytes() -> None:
    refused(codec.encode(COMMIT) + b"\0", BidCommit, "extra")
    refused(codec.encode(COMMIT) * 2, BidCommit, "extra")


def nested(levels: int) -> bytes:
    return b"\x81\xa7records" + b"\x91" * (levels - 1) + b"\x90"


def test_nesting_is_bounded() -> None:
    refused(nested(MAX_DEPTH + 1), PeersAnswer, f"nested deeper than {MAX_DEPTH}")
    refused(nested(MAX_DEPTH - 2), PeersAnswer, "Expected")
    refused(b"\x91" * 60_000, PeersAnswer, "PeersAnswer: .")
    refused(b"\x81\xa1a" * 20_000, PeersAnswer, "PeersAnswer: .")


def test_the_items_of_one_container_are_bounded() -> None:
    refused(b"\x81\xa7records" + b"\xdc" + struct.pack(">H", MAX_ITEMS + 1), PeersAnswer, "max_array_len")
    refused(b"\x81\xa7records" + b"\xdd" + struct.pack(">I", 2**32 - 1), PeersAnswer, "max_array_len")
    refused(b"\xdf" + struct.pack(">I", 2**32 - 1), PeersAnswer, "max_map_len")


@pytest.mark.parametrize("empty", [b"\x90", b"\x80"], ids=["arrays", "maps"])
def test_the_containers_of_one_message_are_bounded(empty: bytes) -> None:
    row = b"\xdc" + struct.pack(">H", MAX_ITEMS) + empty * MAX_ITEMS
    refused(b"\x92" + row + row, PeersAnswer, f"more than {MAX_ITEMS} containers")


@pytest.mark.parametrize("header", [b"\xdb", b"\xc6", b"\xc9"], ids=["text", "bytes", "extension"])
def test_a_length_that_is_not_there_allocates_nothing(header: bytes) -> None:
    refused(b"\x81\xaacapability" + header + struct.pack(">I", 2**32 - 1), PeersRequest, "PeersRequest: .")


def test_the_order_of_fields_is_part_of_the_form() -> None:
    fields = fields_of(COMMIT)
    refused(packed(dict(reversed(fields.items()))), BidCommit, "canonical")


def test_the_keys_of_a_map_are_sorted() -> None:
    capability = next(message for message in MESSAGES if isinstance(message, Capability))
    fields = fields_of(capability)
    assert list(fields["hardware"]) == sorted(fields["hardware"])
    fields["hardware"] = dict(reversed(fields["hardware"].items()))
    refused(packed(fields), Capability, "canonical")


def test_a_field_named_twice() -> None:
    data = codec.encode(COMMIT)
    entry = b"\xa3job\xc4\x20" + JOB
    assert data[1:].startswith(entry)
    refused(b"\x83" + entry + data[1:], BidCommit, "canonical")


def test_a_wider_integer_than_needed() -> None:
    notice = StartNotice(job=JOB, started_at_ms=5)
    data = codec.encode(notice)
    assert data.endswith(b"\x05")
    for wide in (b"\xcc\x05", b"\xcd\0\x05", b"\xcf" + bytes(7) + b"\x05", b"\xd0\x05"):
        refused(data[:-1] + wide, StartNotice, "canonical")


def test_a_float_that_looks_like_an_integer() -> None:
    data = codec.encode(StartNotice(job=JOB, started_at_ms=5))
    for number in (b"\xca" + struct.pack(">f", 5.0), b"\xcb" + struct.pack(">d", 5.0)):
        refused(data[:-1] + number, StartNotice, "StartNotice: .")


def test_wider_headers_than_needed() -> None:
    data = codec.encode(COMMIT)
    refused(b"\xde\0\x02" + data[1:], BidCommit, "canonical")
    refused(data[:1] + b"\xd9\x03job" + data[5:], BidCommit, "canonical")
    refused(data.replace(b"\xc4\x20", b"\xc5\0\x20", 1), BidCommit, "canonical")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"surprise": 1}, "unknown field"),
        ({"job": JOB[:31]}, r"length >= 32 - at `\$\.job`"),
        ({"job": JOB + b"\0"}, r"length <= 32 - at `\$\.job`"),
        ({"job": "j" * 32}, r"\$\.job"),
        ({"job": None}, r"\$\.job"),
        ({"job": [1] * 32}, r"\$\.job"),
        ({"commitment": {}}, r"\$\.commitment"),
        ({1: 2}, "BidCommit: ."),
        ({b"job": JOB}, "BidCommit: ."),
        ({"job": float("nan")}, r"\$\.job"),
        ({"job": msgpack.ExtType(5, b"x")}, "BidCommit: ."),
        ({"job": msgpack.Timestamp(1)}, "BidCommit: ."),
    ],
)
def test_a_field_of_the_wrong_shape_is_named(change: dict[Any, Any], why: str) -> None:
    refused(packed(fields_of(COMMIT) | change), BidCommit, why)


@pytest.mark.parametrize("missing", ["job", "commitment"])
def test_a_missing_field_is_named(missing: str) -> None:
    refused(packed({k: v for k, v in fields_of(COMMIT).items() if k != missing}), BidCommit, missing)


@pytest.mark.parametrize("value", [[], [JOB, JOB], 1, "text", None, b"bytes", True])
def test_what_is_no_map_is_no_message(value: object) -> None:
    refused(msgpack.packb(value), BidCommit, "BidCommit: .")


def test_text_that_is_no_utf8() -> None:
    data = codec.encode(Decline(job=JOB, reason=1, hint="ab"))
    refused(data.replace(b"ab", b"\xff\xfe"), Decline, "utf-8")
    refused(data.replace(b"\xa2ab", b"\xa3\xed\xa0\x80"), Decline, "utf-8")


@pytest.mark.parametrize("reason", [0, 11, -1, 2**64 - 1, "PRICE", 1.5, True])
def test_a_number_that_names_nothing(reason: object) -> None:
    fields = fields_of(Decline(job=JOB, reason=1, hint=""))
    refused(packed(fields | {"reason": reason}), Decline, r"\$\.reason")


@pytest.mark.parametrize("value", [-1, 2**53 + 1, 2**64 - 1, True, "5", 5.5])
def test_a_time_out_of_range(value: object) -> None:
    refused(packed({"job": JOB, "started_at_ms": value}), StartNotice, r"\$\.started_at_ms")


def test_a_tally_has_no_more_bids_than_an_auction() -> None:
    bids = [run(i) for i in range(200)]
    refused(packed({"job": JOB, "bids": bids}), Tally, r"length <= \d+ - at `\$\.bids`")


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ({"price_ppm": 600_001}, "do not add up"),
        ({"price_ppm": 599_999}, "do not add up"),
        ({"device_ppm": 31_000, "price_ppm": 599_000}, "more than 100000 ppm together"),
        ({"queue_ppm": -1}, "queue_ppm"),
    ],
)
def test_weights_that_do_not_balance(weights: dict[str, int], why: str) -> None:
    fields = fields_of(ANNOUNCE)
    fields["weights"] = fields["weights"] | weights
    refused(packed(fields), JobAnnounce, why)


def test_weights_that_do_not_balance_cannot_be_built_either() -> None:
    with pytest.raises(ValueError, match="add up"):
        ScoreWeights(price_ppm=1)


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        COMMIT.job = run(9)  # type: ignore[misc]


def test_a_long_word_of_a_peer_does_not_fill_the_error() -> None:
    fields = fields_of(COMMIT) | {"x" * 60_000: 1}
    with pytest.raises(RemoteError) as caught:
        codec.decode(packed(fields), BidCommit, max_bytes=KIB_64)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("status", ["idle", "busy", "draining"])
def test_a_heartbeat_survives(status: str) -> None:
    beat = Heartbeat(
        sequence=1,
        sent_at_ms=NOW_MS,
        status=status,
        queue_length=0,
        running=0,
        load_ppm=0,
        shards=1,
        membership_digest=JOB,
    )
    assert codec.decode(codec.encode(beat), Heartbeat, max_bytes=KIB_64) == beat
