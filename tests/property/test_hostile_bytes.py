"""Whatever bytes arrive, decoding ends in a valid message in its one form, or in RemoteError: never anything else."""

from __future__ import annotations

import itertools
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cyxnode.protocol import codec
from cyxnode.protocol.bundle import bundles, pack, unpack, weight
from cyxnode.protocol.envelope import Envelope, open_any, seal
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.hashing import envelope_message
from cyxnode.protocol.limits import (
    GOSSIP_MESSAGE_MAX_BYTES,
    GOSSIP_RECORD_BYTES,
    GOSSIP_RECORDS_MAX,
    RESPONSE_MAX_BYTES,
)
from cyxnode.protocol.messages import KINDS, Message, kind_of
from cyxnode.protocol.ports import GossipVerdict
from cyxnode.protocol.validation import MARKET_KINDS, check_gossip
from sample_messages import GENESIS, INNER, KEY, MESSAGES, NOW_MS

KINDS_AND_PARTS = [*KINDS.values(), *(type(message) for message in INNER), Envelope]
SEALED = [seal(KEY, GENESIS, message) for message in MESSAGES]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=80)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8))
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=20), inner, max_size=5)
)


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """An original with bytes flipped, cut out, doubled or spliced in from another."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        match draw(st.sampled_from(["flip", "cut", "double", "insert", "splice"])):
            case "flip" if start < len(data):
                data[start] ^= draw(st.integers(1, 255))
            case "cut":
                del data[start:end]
            case "double":
                data[end:end] = data[start:end]
            case "insert":
                data[start:start] = draw(st.binary(max_size=12))
            case "splice":
                data[start:] = draw(st.sampled_from(originals))[start:]
    return bytes(data)


def judge(data: bytes, kind: type[Any]) -> None:
    """Decode; a message that comes out has exactly these bytes."""
    try:
        message = codec.decode(data, kind, max_bytes=RESPONSE_MAX_BYTES)
    except RemoteError as error:
        assert len(str(error)) < 400
        return
    assert codec.encode(message) == data


@given(st.sampled_from(KINDS_AND_PARTS), st.binary(max_size=300))
@example(KINDS_AND_PARTS[0], b"\x91" * 5_000)
@example(KINDS_AND_PARTS[0], b"\xdf\xff\xff\xff\xff")
def test_random_bytes(kind: type[Any], data: bytes) -> None:
    judge(data, kind)


@pytest.mark.slow
@given(st.sampled_from(KINDS_AND_PARTS), values)
def test_random_structures(kind: type[Any], value: object) -> None:
    judge(msgpack.packb(value), kind)


@given(st.data())
def test_messages_with_one_field_replaced(data: st.DataObject) -> None:
    message: Message = data.draw(st.sampled_from([*MESSAGES, *INNER]))
    fields = msgpack.unpackb(codec.encode(message))
    fields[data.draw(st.sampled_from(sorted(fields)) | st.text(max_size=20))] = data.draw(values)
    judge(msgpack.packb(fields), type(message))


@given(st.data())
def test_damaged_messages(data: st.DataObject) -> None:
    message: Message = data.draw(st.sampled_from([*MESSAGES, *INNER]))
    judge(data.draw(damaged([codec.encode(message)])), type(message))


@given(damaged(SEALED))
def test_damaged_envelopes_never_open(data: bytes) -> None:
    if data in SEALED:
        return
    with pytest.raises(RemoteError):
        open_any(data, GENESIS)


@given(st.sampled_from(sorted(KINDS)) | st.text(max_size=40), values)
def test_signed_nonsense_never_opens_as_another_value(kind: str, value: object) -> None:
    body = msgpack.packb(value)
    name = kind.encode()[:255].decode(errors="ignore")
    signature = KEY.sign(envelope_message(GENESIS, name, body))
    try:
        opened = open_any(codec.encode(Envelope(1, name, KEY.node_id, body, signature)), GENESIS)
    except RemoteError:
        return
    assert kind_of(opened.message) == name
    assert codec.encode(opened.message) == body


BUNDLES = [pack([data]) for data in SEALED] + [pack(SEALED[first : first + 5]) for first in range(0, len(SEALED), 5)]


@given(
    st.binary(max_size=200) | damaged(BUNDLES) | st.lists(damaged(SEALED), max_size=4).map(pack), st.integers(0, 2**53)
)
def test_a_gossip_validator_never_raises(data: bytes, now_ms: int) -> None:
    verdict, opened, reason = check_gossip(data, GENESIS, MARKET_KINDS, now_ms)
    assert (verdict is GossipVerdict.ACCEPT) == bool(opened) == (reason == "")
    assert not opened or pack([one.raw for one in opened]) == data


@given(st.binary(max_size=100) | values.map(msgpack.packb) | damaged(BUNDLES))
def test_bytes_are_a_bundle_in_one_way_or_not_at_all(data: bytes) -> None:
    try:
        records = unpack(data)
    except RemoteError:
        return
    assert pack(records) == data and bundles(records) == [data]


@given(st.lists(st.binary(max_size=9_000), max_size=60))
def test_records_are_bundled_in_order_within_the_bounds(records: list[bytes]) -> None:
    packed = bundles(records)
    assert [one for data in packed for one in unpack(data)] == list(dict.fromkeys(records))
    assert all(weight(data, GOSSIP_RECORD_BYTES) >= len(unpack(data)) for data in packed)
    for data, after in itertools.pairwise(packed):
        first = unpack(after)[0]
        full = len(unpack(data)) == GOSSIP_RECORDS_MAX
        assert full or len(data) + len(first) + 10 > GOSSIP_MESSAGE_MAX_BYTES, "as few as can be"


def test_the_originals_do_open() -> None:
    assert [open_any(data, GENESIS).message for data in SEALED] == list(MESSAGES)
    assert check_gossip(pack([SEALED[6]]), GENESIS, MARKET_KINDS, NOW_MS)[0] is GossipVerdict.ACCEPT
