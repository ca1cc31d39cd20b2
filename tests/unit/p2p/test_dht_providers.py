"""Providers of keys: bounded in every direction, drawn anew, and forgotten."""

from __future__ import annotations

from hashlib import sha256
from random import Random

import pytest

from cyxnode.p2p.dht import providers
from cyxnode.p2p.dht.lookup import distance
from cyxnode.p2p.dht.providers import Providers, subnet_of
from cyxnode.protocol.limits import (
    DHT_KEYS_PER_PROVIDER_MAX,
    DHT_PROVIDER_EXPIRES_S,
    DHT_PROVIDERS_PER_KEY_MAX,
    DHT_PROVIDERS_PER_SUBNET_MAX,
    DHT_PROVIDERS_TOLD_MAX,
)
from cyxnode.protocol.units import NodeId

ME, KEY, AT = NodeId(bytes(32)), b"k" * 32, ("/ip4/8.8.8.8/tcp/1",)


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def key(number: int) -> bytes:
    return sha256(number.to_bytes(4, "big")).digest()


def fresh() -> Providers:
    return Providers(ME, Random(1))


def test_an_entry_holds_until_it_ends_or_is_renewed() -> None:
    kept = fresh()
    assert kept.add(KEY, node(1), AT, "8.8.8.8", 0) and kept.of(KEY, 1) == {node(1): AT}
    assert kept.add(KEY, node(1), AT, "8.8.8.8", DHT_PROVIDER_EXPIRES_S / 2) and len(kept) == 1
    assert kept.of(KEY, DHT_PROVIDER_EXPIRES_S + 1) == {node(1): AT}
    assert kept.of(KEY, 2 * DHT_PROVIDER_EXPIRES_S) == {}
    kept.expire(2 * DHT_PROVIDER_EXPIRES_S)
    assert len(kept) == 0 and not kept._keys and not kept._of


def test_a_flood_of_keys_by_one_peer_ends_at_its_bound() -> None:
    kept = fresh()
    taken = sum(kept.add(key(number), node(1), AT, "127.0.0.1", 0) for number in range(10_000))
    assert taken == len(kept) == DHT_KEYS_PER_PROVIDER_MAX


def test_a_crowd_of_one_subnet_does_not_fill_a_key() -> None:
    kept = fresh()
    for number in range(1_000):
        kept.add(KEY, node(number), AT, f"8.8.8.{number % 250}", 0)
    assert len(kept) == DHT_PROVIDERS_PER_SUBNET_MAX
    assert kept.add(KEY, node(5_000), AT, "9.9.9.9", 0) and kept.add(KEY, node(5_001), AT, "10.0.0.1", 0)


def test_a_key_holds_so_many_and_tells_some_of_them_each_time() -> None:
    kept = fresh()
    taken = sum(kept.add(KEY, node(number), AT, "127.0.0.1", 0) for number in range(1_000))
    assert taken == DHT_PROVIDERS_PER_KEY_MAX
    first, second = kept.of(KEY, 1), kept.of(KEY, 1)
    assert len(first) == len(second) == DHT_PROVIDERS_TOLD_MAX and first != second


def test_when_there_are_too_many_keys_the_nearest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "DHT_PROVIDED_KEYS_MAX", 10)
    kept, keys = fresh(), [key(number) for number in range(100)]
    for number, one in enumerate(keys):
        kept.add(one, node(number), AT, "127.0.0.1", 0)
    assert set(kept._keys) == set(sorted(keys, key=lambda one: distance(ME, sha256(one).digest()))[:10])
    assert len(kept) == 10 == sum(kept._of.values())


def test_what_is_out_of_date_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fresh()
    for number in range(DHT_PROVIDERS_PER_KEY_MAX):
        kept.add(KEY, node(number), AT, "127.0.0.1", 0)
    assert not kept.add(KEY, node(9_999), AT, "127.0.0.1", 1)
    assert kept.add(KEY, node(9_999), AT, "127.0.0.1", DHT_PROVIDER_EXPIRES_S + 1) and len(kept) == 1


@pytest.mark.parametrize(
    ("host", "subnet"),
    [
        ("8.8.8.8", "8.8.8.0/24"),
        ("2001:4860:4860::/64", "2001:4860:4860::/64"),
        ("127.0.0.1", ""),
        ("192.168.1.2", ""),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_public_hosts_have_subnets(host: str, subnet: str) -> None:
    assert subnet_of(host) == subnet
