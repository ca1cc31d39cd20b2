"""The names under which peers find one another are frozen: another name is another network."""

from __future__ import annotations

from hashlib import sha256

from cyxnode.protocol.discovery import (
    class_key,
    class_namespace,
    dht_protocol,
    lan_service,
    record_key,
    rendezvous_protocol,
)
from cyxnode.protocol.units import NodeId

GENESIS, CLASS = bytes(range(32)), bytes(range(100, 132))


def test_names() -> None:
    assert class_key(GENESIS, CLASS) == sha256(b"cyx/1/class" + GENESIS + CLASS[:8]).digest()
    assert class_namespace(GENESIS, CLASS) == "cyx/1/class/0001020304050607/6465666768696a6b"
    assert dht_protocol(GENESIS) == "/cyx/1/0001020304050607/kad/1.0.0"
    assert rendezvous_protocol(GENESIS) == "/cyx/1/0001020304050607/rendezvous/1.0.0"
    assert lan_service(GENESIS) == "_cyx-00010203._udp.local."
    assert record_key(NodeId(bytes(31) + b"\1")) == b"/cyx/11111111111111111111111111111112"


def test_networks_and_classes_do_not_share_names() -> None:
    other = b"\xff" + GENESIS[1:]
    for name in (class_key, class_namespace):
        assert len({name(GENESIS, CLASS), name(other, CLASS), name(GENESIS, other)}) == 3  # type: ignore[operator]
    for name in (dht_protocol, rendezvous_protocol, lan_service):
        assert name(GENESIS) != name(other)  # type: ignore[operator]
    assert len(lan_service(GENESIS).split(".")[0]) <= 16
