"""Which address of a node is dialled first, and how long anybody waits for it."""

from __future__ import annotations

import ipaddress

from cyxnode.p2p.addresses import PeerAddress, parse_address
from cyxnode.p2p.dial_order import Nearness, likeliest_first, nearness, own_networks, patience_s
from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import DIAL_FAR_TIMEOUT_S, DIAL_TIMEOUT_S

NODE, RELAY = (peer_id_text(KeyPair(bytes([number]) * 32).node_id) for number in (1, 2))
HOME = [ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("fd00:1::/64")]


def at(host: str) -> PeerAddress:
    network = "ip6" if ":" in host else "ip4" if host[0].isdigit() else "dns"
    return parse_address(f"/{network}/{host}/tcp/4001/p2p/{NODE}")


CIRCUIT = parse_address(f"/ip4/1.2.3.4/tcp/4001/p2p/{RELAY}/p2p-circuit/p2p/{NODE}")


def test_what_is_near_follows_from_our_own_interfaces() -> None:
    for host in ("8.8.8.8", "2600::1", "example.org", "192.168.1.7", "fd00:1::7"):
        assert nearness(at(host), HOME) is Nearness.OPEN, host
    for host in ("192.168.2.7", "10.0.0.1", "100.64.0.1", "fd00:2::7", "127.0.0.1", "::1"):
        assert nearness(at(host), HOME) is Nearness.FAR, host
    assert nearness(CIRCUIT, HOME) is Nearness.RELAYED


def test_the_address_at_somebody_elses_home_comes_last_and_is_waited_for_briefly() -> None:
    told = [at("10.0.0.1"), CIRCUIT, at("8.8.8.8"), at("192.168.1.7")]
    assert likeliest_first(told, HOME) == [at("8.8.8.8"), at("192.168.1.7"), CIRCUIT, at("10.0.0.1")]
    assert patience_s(at("10.0.0.1"), HOME) == DIAL_FAR_TIMEOUT_S
    assert patience_s(at("8.8.8.8"), HOME) == patience_s(CIRCUIT, HOME) == DIAL_TIMEOUT_S


def test_this_machine_is_in_its_loopback_network() -> None:
    assert any(ipaddress.ip_address("127.0.0.1") in network for network in own_networks())
