from __future__ import annotations

import pytest

from cyxnode.p2p import addresses
from cyxnode.p2p.addresses import AddressBook, parse_address
from cyxnode.p2p.peer_id import node_of_bytes, node_of_text, peer_id_bytes, peer_id_text
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import ADDRESSES_MAX

NODE = KeyPair(bytes(32)).node_id
OTHER = KeyPair(b"\1" * 32).node_id
PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


def test_peer_id_is_the_key_with_a_prefix_and_reads_back() -> None:
    assert peer_id_text(NODE) == PEER
    assert node_of_text(PEER) == NODE
    assert node_of_bytes(peer_id_bytes(NODE)) == NODE


@pytest.mark.parametrize(
    "text",
    ["", PEER[:-1], PEER + "1", PEER.replace("1", "0"), "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "z" * 52],
)
def test_what_is_no_ed25519_peer_id_is_refused(text: str) -> None:
    with pytest.raises(LocalError, match="address"):
        node_of_text(text)


def test_binary_peer_ids_of_other_keys_are_none() -> None:
    assert node_of_bytes(b"") is None
    assert node_of_bytes(b"\x12\x20" + bytes(32)) is None


@pytest.mark.parametrize(
    "head",
    ["/ip4/1.2.3.4/tcp/1", "/ip6/2001:db8::1/tcp/65535", "/dns/example.org/tcp/4001", "/dns4/a-b.example/tcp/4001"],
)
def test_dialling_addresses_round_trip(head: str) -> None:
    address = parse_address(f"{head}/p2p/{PEER}")
    assert str(address) == f"{head}/p2p/{PEER}"
    assert address.node == NODE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/ip4/1.2.3.4/tcp/4001",
        f"/ip4/1.2.3.4/udp/4001/p2p/{PEER}",
        f"/ip4/1.2.3/tcp/4001/p2p/{PEER}",
        f"/ip4/0.0.0.0/tcp/4001/p2p/{PEER}",
        f"/ip4/224.0.0.1/tcp/4001/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/0/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/65536/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/٣/p2p/{PEER}",
        f"/ip6/::/tcp/1/p2p/{PEER}",
        f"/ip6/fe80::1%eth0/tcp/1/p2p/{PEER}",
        f"/dns/-bad-.example/tcp/1/p2p/{PEER}",
        f"/unix/socket/tcp/1/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit",
        f"/ip4/1.2.3.4/tcp/1/ws/p2p/{PEER}",
        f"/dns/{'a' * 400}/tcp/1/p2p/{PEER}",
    ],
)
def test_other_addresses_are_refused_with_the_field_named(text: str) -> None:
    with pytest.raises(LocalError) as refused:
        parse_address(text)
    assert refused.value.field == "address"
    assert refused.value.fix
    assert len(str(refused.value)) < 400


def at(number: int, peer: str = PEER) -> str:
    return f"/ip4/10.0.0.{number}/tcp/4001/p2p/{peer}"


def test_book_keeps_the_newest_addresses_and_drops_those_of_others() -> None:
    book = AddressBook()
    assert book.learn(NODE, [at(1), at(1), "nonsense", at(2, peer_id_text(OTHER))]) == 2
    assert [one.host for one in book.of(NODE)] == ["10.0.0.1"]
    book.learn(NODE, [at(2)])
    assert [one.host for one in book.of(NODE)] == ["10.0.0.2", "10.0.0.1"]
    book.worked(parse_address(at(1)))
    assert [one.host for one in book.of(NODE)] == ["10.0.0.1", "10.0.0.2"]
    assert book.of(OTHER) == ()


def test_book_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    book = AddressBook()
    assert book.learn(NODE, (at(number) for number in range(1, 200))) == 199 - ADDRESSES_MAX
    assert len(book.of(NODE)) == ADDRESSES_MAX
    monkeypatch.setattr(addresses, "PEERS_KNOWN_MAX", 2)
    nodes = [KeyPair(bytes([number]) * 32).node_id for number in range(3, 6)]
    book = AddressBook()
    for node in nodes[:2]:
        book.learn(node, [at(1, peer_id_text(node))])
    assert book.of(nodes[0])
    book.learn(nodes[2], [at(1, peer_id_text(nodes[2]))])
    assert len(book) == 2
    assert book.of(nodes[0]) and not book.of(nodes[1])


def test_an_address_may_lead_through_a_relay() -> None:
    text = f"/ip4/1.2.3.4/tcp/4001/p2p/{peer_id_text(OTHER)}/p2p-circuit/p2p/{PEER}"
    address = parse_address(text)
    assert (address.node, address.relay, str(address)) == (NODE, OTHER, text)
    assert address.first_hop() == parse_address(f"/ip4/1.2.3.4/tcp/4001/p2p/{peer_id_text(OTHER)}")
    assert address.first_hop().through(NODE) == address


@pytest.mark.parametrize(
    "text",
    [
        f"/p2p-circuit/p2p/{PEER}",
        f"/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/1/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}/p2p-circuit",
        f"/ip4/1.2.3.4/tcp/1/p2p/{peer_id_text(OTHER)}/p2p-circuit/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/udp/1/p2p/{peer_id_text(OTHER)}/p2p-circuit/p2p/{PEER}",
        f"/ip4/224.0.0.1/tcp/1/p2p/{peer_id_text(OTHER)}/p2p-circuit/p2p/{PEER}",
    ],
)
def test_other_ways_through_relays_are_refused(text: str) -> None:
    with pytest.raises(LocalError, match="address"):
        parse_address(text)


def test_a_relayed_address_that_worked_does_not_go_before_a_direct_one() -> None:
    book = AddressBook()
    direct = f"/ip4/1.2.3.4/tcp/4001/p2p/{PEER}"
    relayed = f"/ip4/5.6.7.8/tcp/1/p2p/{peer_id_text(OTHER)}/p2p-circuit/p2p/{PEER}"
    book.learn(NODE, [direct, relayed])
    book.worked(parse_address(relayed))
    assert [str(one) for one in book.of(NODE)] == [direct, relayed]
