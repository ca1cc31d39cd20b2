"""Where peers can be dialled: which multiaddrs are accepted, and a bounded book of them.

Only TCP with a trailing peer id is accepted, `/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT/p2p/ID`, and such an address of a
relay followed by `/p2p-circuit/p2p/ID`, because everything else is either not spoken here or a way to make us dial
something strange. What a peer says about another peer is hostile: an address must name the node it is learnt for, and
the least recently used nodes are forgotten first.
"""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from ..protocol.errors import LocalError
from ..protocol.limits import ADDRESS_MAX_CHARS, ADDRESSES_MAX, PEERS_KNOWN_MAX
from ..protocol.units import NodeId
from .peer_id import node_of_text, peer_id_text

_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.I)
_DNS = ("dns", "dns4", "dns6")
_CIRCUIT = "/p2p-circuit/p2p/"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A validated dialling address. `network` is ip4, ip6, dns, dns4 or dns6. With `relay` it leads to that node first,
    whose host and port it names, and through it to `node`."""

    network: str
    host: str
    port: int
    node: NodeId
    relay: NodeId | None = None

    def __str__(self) -> str:
        socket = f"/{self.network}/{self.host}/tcp/{self.port}/p2p/"
        if self.relay is None:
            return socket + peer_id_text(self.node)
        return f"{socket}{peer_id_text(self.relay)}{_CIRCUIT}{peer_id_text(self.node)}"

    def first_hop(self) -> PeerAddress:
        """Whom to dial first: the relay, where there is one."""
        return self if self.relay is None else PeerAddress(self.network, self.host, self.port, self.relay)

    def through(self, target: NodeId) -> PeerAddress:
        """The address of `target` that leads through the node of this direct one."""
        return PeerAddress(self.network, self.host, self.port, target, self.node)


@lru_cache(maxsize=PEERS_KNOWN_MAX)
def parse_address(text: str) -> PeerAddress:
    """Validate a multiaddr; LocalError (field 'address') says what is wrong with it."""
    direct, circuit, beyond = text.partition(_CIRCUIT) if len(text) <= ADDRESS_MAX_CHARS else (text, "", "")
    if circuit:
        relay = _direct(direct, text)
        if relay.node == (target := node_of_text(beyond)):
            raise _bad(text, "leads through a node to itself")
        return relay.through(target)
    return _direct(text, text)


def _direct(direct: str, text: str) -> PeerAddress:
    """The address without a relay, or before the relay's part; `text` is the whole."""
    parts = direct.split("/") if len(text) <= ADDRESS_MAX_CHARS else []
    if len(parts) != 7 or parts[0] or parts[3] != "tcp" or parts[5] != "p2p":
        raise _bad(text, "is not of the form /ip4/HOST/tcp/PORT/p2p/ID")
    _, network, host, _, port, _, peer = parts
    if not _host_fits(network, host):
        raise _bad(text, f"has no valid {network[:8]} host")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise _bad(text, "has no port between 1 and 65535")
    return PeerAddress(network, host, int(port), node_of_text(peer))


def _host_fits(network: str, host: str) -> bool:
    try:
        if network == "ip4":
            return not ipaddress.IPv4Address(host).is_multicast and host != "0.0.0.0"
        if network == "ip6":
            return not ipaddress.IPv6Address(host).is_multicast and host != "::" and "%" not in host
    except ValueError:
        return False
    return network in _DNS and _HOST_NAME.fullmatch(host) is not None


def _bad(text: str, cause: str) -> LocalError:
    shown = text[:80]
    return LocalError(
        f"{shown!r} {cause}",
        field="address",
        fix="use an address that a node prints, like /ip4/1.2.3.4/tcp/4001/p2p/12D3…",
    )


class AddressBook:
    """At most PEERS_KNOWN_MAX nodes with at most ADDRESSES_MAX addresses each; the least recently used go first."""

    def __init__(self) -> None:
        self._known: OrderedDict[NodeId, tuple[PeerAddress, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, node: NodeId, addresses: Iterable[str]) -> int:
        """Remember the valid ones among `addresses`, newest first; returns how many were dropped as hostile."""
        valid: list[PeerAddress] = []
        dropped = 0
        for count, text in enumerate(addresses):
            address = _valid(node, text) if count < 4 * ADDRESSES_MAX else None
            if address is None or len(valid) >= ADDRESSES_MAX:
                dropped += 1
            elif address not in valid:
                valid.append(address)
        if valid:
            earlier = [address for address in self._known.get(node, ()) if address not in valid]
            self._known[node] = (*valid, *earlier)[:ADDRESSES_MAX]
            self._known.move_to_end(node)
            while len(self._known) > PEERS_KNOWN_MAX:
                self._known.popitem(last=False)
        return dropped

    def of(self, node: NodeId) -> tuple[PeerAddress, ...]:
        """Known addresses of `node`, the newest first; counts as use."""
        if node not in self._known:
            return ()
        self._known.move_to_end(node)
        return self._known[node]

    def worked(self, address: PeerAddress) -> None:
        """Put the address that was just dialled with success in front; one that leads through a relay keeps its place,
        since a direct one is better whenever it works."""
        if address.relay is None:
            self.learn(address.node, [str(address)])


def _valid(node: NodeId, text: str) -> PeerAddress | None:
    try:
        address = parse_address(text)
    except LocalError:
        return None
    return address if address.node == node else None
