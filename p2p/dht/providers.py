"""Who provides which key, for a while: bounded in keys, in providers of a key, in keys of a provider, and per subnet.

The library keeps whoever comes first for 48 hours, without a bound on keys, and believes what other peers tell of third
ones. Pure: `now_s` is the caller's monotonic clock, `rng` its randomness.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address, ip_network
from random import Random

from ...protocol.limits import (
    DHT_KEYS_PER_PROVIDER_MAX,
    DHT_PROVIDED_KEYS_MAX,
    DHT_PROVIDER_EXPIRES_S,
    DHT_PROVIDERS_PER_KEY_MAX,
    DHT_PROVIDERS_PER_SUBNET_MAX,
    DHT_PROVIDERS_TOLD_MAX,
)
from ...protocol.units import NodeId
from .lookup import distance


@dataclass(frozen=True, slots=True)
class Provider:
    """One entry: where it can be dialled, from which subnet it came, until when it holds."""

    addresses: tuple[str, ...]
    subnet: str
    expires_s: float


@dataclass(slots=True)
class Providers:
    """`me` is whose place in the key space decides which keys are kept when there are too many."""

    me: NodeId
    rng: Random = field(default_factory=Random)
    _keys: dict[bytes, dict[NodeId, Provider]] = field(default_factory=dict)
    _of: Counter[NodeId] = field(default_factory=Counter)

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def add(self, key: bytes, node: NodeId, addresses: tuple[str, ...], host: str, now_s: float) -> bool:
        """Enter `node`, connected from `host`, or renew it; False when there is no place for it."""
        entries = self._keys.get(key, {})
        if node not in entries and not self._fits(key, entries, node, host):
            self.expire(now_s)
            entries = self._keys.get(key, {})
            if not self._fits(key, entries, node, host):
                return False
        if node not in entries:
            self._of[node] += 1
        self._keys.setdefault(key, {})[node] = Provider(addresses, subnet_of(host), now_s + DHT_PROVIDER_EXPIRES_S)
        return True

    def of(self, key: bytes, now_s: float) -> dict[NodeId, tuple[str, ...]]:
        """Some of the providers of a key, drawn anew each time, and their addresses."""
        living = [(node, one.addresses) for node, one in self._keys.get(key, {}).items() if one.expires_s > now_s]
        return dict(self.rng.sample(living, min(len(living), DHT_PROVIDERS_TOLD_MAX)))

    def expire(self, now_s: float) -> None:
        """Forget what is out of date."""
        for key, entries in list(self._keys.items()):
            for node in [node for node, one in entries.items() if one.expires_s <= now_s]:
                self._forget(key, node)

    def _fits(self, key: bytes, entries: dict[NodeId, Provider], node: NodeId, host: str) -> bool:
        if self._of[node] >= DHT_KEYS_PER_PROVIDER_MAX or len(entries) >= DHT_PROVIDERS_PER_KEY_MAX:
            return False
        subnet = subnet_of(host)
        if subnet and sum(one.subnet == subnet for one in entries.values()) >= DHT_PROVIDERS_PER_SUBNET_MAX:
            return False
        return bool(entries) or len(self._keys) < DHT_PROVIDED_KEYS_MAX or self._make_room(key)

    def _make_room(self, key: bytes) -> bool:
        """Give up the key that is farthest from us, unless that is the new one."""
        farthest = max(self._keys, key=self._far)
        if self._far(farthest) <= self._far(key):
            return False
        for node in list(self._keys[farthest]):
            self._forget(farthest, node)
        return True

    def _far(self, key: bytes) -> int:
        return distance(self.me, sha256(key).digest())

    def _forget(self, key: bytes, node: NodeId) -> None:
        del self._keys[key][node]
        if not self._keys[key]:
            del self._keys[key]
        self._of[node] -= 1
        if not self._of[node]:
            del self._of[node]


def subnet_of(host: str) -> str:
    """The /24 (IPv6 /64) of a public IP address; empty for any other host, which is not bounded by its subnet."""
    try:
        address = ip_address(host.partition("/")[0])
    except ValueError:
        return ""
    return str(ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False)) if address.is_global else ""
