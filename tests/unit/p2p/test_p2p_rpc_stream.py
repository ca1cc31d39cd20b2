"""A gossip stream is cut into RPCs wherever its bytes are split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyxnode.p2p.fast_gossip.rpc_stream import RpcStream
from cyxnode.protocol.errors import RemoteError


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def taken(stream: RpcStream) -> list[bytes]:
    return list(iter(stream.take, None))


@given(st.lists(st.binary(max_size=300)), st.data())
def test_any_split_gives_the_same_rpcs(rpcs: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(varint(len(one)) + one for one in rpcs)
    stream, found, at = RpcStream(300), [], 0
    while at < len(sent):
        count = data.draw(st.integers(1, len(sent) - at))
        stream.add(sent[at : at + count])
        at += count
        found += taken(stream)
    assert found == rpcs
    assert len(stream) == 0


def test_an_unfinished_rpc_waits() -> None:
    stream = RpcStream(10)
    stream.add(b"\x03ab")
    assert taken(stream) == []
    assert len(stream) == 3
    stream.add(b"c\x80")
    assert taken(stream) == [b"abc"]
    assert len(stream) == 1


@pytest.mark.parametrize("head", [varint(11), varint(2**63), b"\xff" * 10])
def test_a_length_that_cannot_be_is_refused_before_its_body(head: bytes) -> None:
    stream = RpcStream(10)
    stream.add(head)
    with pytest.raises(RemoteError):
        stream.take()


def test_ten_bytes_of_length_are_too_many_only_when_the_tenth_goes_on() -> None:
    stream = RpcStream(10)
    stream.add(b"\x83" + b"\x80" * 8)
    assert stream.take() is None
    stream.add(b"\x00abc")
    assert stream.take() == b"abc"
