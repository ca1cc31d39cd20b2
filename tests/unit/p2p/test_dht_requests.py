"""What may be asked of the DHT and what its answers may hold; whatever bytes come, they are judged and never raise."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from cyxnode.protocol.discovery import class_key, record_key
from cyxnode.protocol.errors import RemoteError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import ADDRESSES_MAX, DHT_BUCKET_SIZE, DHT_RECORD_MAX_BYTES
from cyxnode.protocol.units import NodeId

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from libp2p.kad_dht.pb.kademlia_pb2 import Message

    from cyxnode.p2p.dht import requests
    from cyxnode.p2p.dht.requests import author_of, judge, read_answer
    from cyxnode.p2p.discovery_gate import Passed, Refused

from cyxnode.p2p.peer_id import peer_id_bytes

ME, OTHER = KeyPair(b"\1" * 32).node_id, KeyPair(b"\2" * 32).node_id
KEY = class_key(b"g" * 32, b"c" * 32)
AT = Multiaddr("/ip4/8.8.8.8/tcp/4001").to_bytes()


def raw(kind: int, key: bytes = KEY, change: Callable[[Message], object] = lambda message: None) -> bytes:
    message = requests.question(kind, key)
    change(message)
    return message.SerializeToString()


def provider(node: NodeId, *addresses: bytes) -> Callable[[Message], object]:
    return lambda message: message.providerPeers.add(id=peer_id_bytes(node), addrs=addresses)


def value(node: NodeId, content: bytes, **more: bytes) -> bytes:
    message = requests.put(record_key(node), content)
    for name, content in more.items():
        setattr(message.record, name, content)
    return message.SerializeToString()


HONEST = {
    "ping": raw(Message.PING, b""),
    "find_node": raw(Message.FIND_NODE, peer_id_bytes(OTHER)),
    "get_providers": raw(Message.GET_PROVIDERS),
    "add_provider": raw(Message.ADD_PROVIDER, KEY, provider(ME, AT)),
    "get_value": raw(Message.GET_VALUE, record_key(OTHER)),
    "put_value": value(ME, b"record"),
}


@pytest.mark.parametrize(("kind", "frame"), HONEST.items())
def test_honest_requests_pass(kind: str, frame: bytes) -> None:
    assert judge(ME, frame) == Passed(kind, judge(ME, frame).raw)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("cause", "frame"),
    {
        "malformed": b"\xff" * 40,
        "key of nobody": raw(Message.FIND_NODE, b""),
        "key too long": raw(Message.FIND_NODE, b"k" * 51),
        "key of no class": raw(Message.GET_PROVIDERS, b"k" * 31),
        "key to provide": raw(Message.ADD_PROVIDER, b"k" * 80, provider(ME, AT)),
        "provider is another": raw(Message.ADD_PROVIDER, KEY, provider(OTHER, AT)),
        "provider is missing": raw(Message.ADD_PROVIDER),
        "address missing": raw(Message.ADD_PROVIDER, KEY, provider(ME)),
        "address garbled": raw(Message.ADD_PROVIDER, KEY, provider(ME, b"\xff\xff", b"")),
        "key of no record": raw(Message.GET_VALUE, b"/pk/whatever"),
        "key of a foreign record": value(OTHER, b"record"),
        "record signed": value(ME, b"record", author=b"a", signature=b"s"),
        "size of nothing": value(ME, b""),
        "size too large": value(ME, bytes(DHT_RECORD_MAX_BYTES + 1)),
        "key of the record": value(ME, b"record", key=b"/cyx/other"),
    }.items(),
)
def test_what_no_honest_peer_asks_is_malformed(cause: str, frame: bytes) -> None:
    assert judge(ME, frame) == Refused(cause.partition(" ")[0])


def test_only_what_counts_is_handed_on() -> None:
    def burdened(message: Message) -> None:
        message.senderRecord = b"s" * 2_000
        message.closerPeers.add(id=b"x")
        one = message.providerPeers.add(id=peer_id_bytes(ME), signedRecord=b"s" * 2_000)
        one.addrs.extend([AT, b"\xff"] + [Multiaddr(f"/ip4/8.8.4.4/tcp/{port}").to_bytes() for port in range(1, 60)])

    passed = judge(ME, raw(Message.ADD_PROVIDER, KEY, burdened))
    assert isinstance(passed, Passed)
    message = Message.FromString(passed.raw)
    assert not message.HasField("senderRecord") and not message.closerPeers
    assert not message.providerPeers[0].signedRecord and len(message.providerPeers[0].addrs) == ADDRESSES_MAX
    with_providers = judge(ME, raw(Message.GET_PROVIDERS, KEY, provider(OTHER, AT)))
    assert isinstance(with_providers, Passed) and not Message.FromString(with_providers.raw).providerPeers


@given(st.binary(max_size=400))
def test_no_bytes_raise(frame: bytes) -> None:
    judged = judge(ME, frame)
    assert isinstance(judged, Passed | Refused)


@given(st.sampled_from(sorted(HONEST)), st.integers(0, 300), st.binary(min_size=1, max_size=4))
def test_no_change_of_honest_bytes_raises(kind: str, place: int, patch: bytes) -> None:
    frame = HONEST[kind]
    place %= len(frame)
    assert isinstance(judge(ME, frame[:place] + patch + frame[place + len(patch) :]), Passed | Refused)


def test_answers_are_cut_to_what_counts() -> None:
    answer, asked = Message(type=Message.FIND_NODE), requests.question(Message.FIND_NODE, KEY)
    for number in range(100):
        answer.closerPeers.add(id=peer_id_bytes(NodeId(number.to_bytes(32, "big"))), addrs=[AT] * 50)
    found = read_answer(answer.SerializeToString(), asked, "9.9.9.9")
    assert len(found.closer) == DHT_BUCKET_SIZE + 1 and len(found.closer[0].addresses) == 1
    assert read_answer(Message(type=Message.FIND_NODE).SerializeToString(), asked, "").closer == ()


def test_private_addresses_are_believed_on_private_networks_alone() -> None:
    answer, asked = Message(type=Message.FIND_NODE), requests.question(Message.FIND_NODE, KEY)
    for address in ("/ip4/192.168.0.7/tcp/22", "/ip4/127.0.0.1/tcp/22"):
        answer.closerPeers.add(id=peer_id_bytes(OTHER), addrs=[Multiaddr(address).to_bytes()])
    assert read_answer(answer.SerializeToString(), asked, "9.9.9.9").closer == ()
    assert len(read_answer(answer.SerializeToString(), asked, "192.168.0.1").closer) == 1


@pytest.mark.parametrize("frame", [b"\xff" * 40, raw(Message.PING), b""])
def test_what_does_not_answer_the_question_is_an_error(frame: bytes) -> None:
    with pytest.raises(RemoteError):
        read_answer(frame, requests.question(Message.FIND_NODE, KEY), "9.9.9.9")


@given(st.binary(max_size=300))
def test_no_answer_raises_anything_else(frame: bytes) -> None:
    for kind in (Message.FIND_NODE, Message.GET_PROVIDERS, Message.GET_VALUE):
        try:
            read_answer(frame, requests.question(kind, KEY), "127.0.0.1")
        except RemoteError:
            continue


def test_keys_of_records_name_their_author() -> None:
    assert author_of(record_key(ME)) == ME
    for key in (b"", b"/cyx/", b"/cyx/abc", b"/pk/" + record_key(ME)[5:], record_key(ME) + b"1", b"\xff"):
        assert author_of(key) is None
