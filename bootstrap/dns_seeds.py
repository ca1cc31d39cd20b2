"""Bootstrap addresses from DNS: TXT records at `_dnsaddr.NAME`, as libp2p's dnsaddr writes them.

A record `dnsaddr=/ip4/…/p2p/ID` is an address, `dnsaddr=/dnsaddr/OTHER` leads on. Answers are a stranger's: what is not
an address is passed over, and lookups, depth, records and addresses are bounded, so that no zone can keep us busy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from ..p2p.addresses import parse_address
from ..p2p.peer_id import node_of_text
from ..protocol.errors import CyxError, LocalError, TransientError
from ..protocol.limits import DNS_TIMEOUT_S, SEED_DEPTH_MAX, SEED_LOOKUPS_MAX, SEED_RECORDS_MAX, SEEDS_MAX
from ..protocol.units import NodeId

Resolver = Callable[[str], Iterable[str]]
"""The TXT records of a name, none when it has none; TransientError when nobody answers."""

_DNSADDR = re.compile(
    r"/dnsaddr/(?P<name>(?=.{1,244}(?:/|$))[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*)"
    r"(/p2p/(?P<peer>[1-9A-HJ-NP-Za-km-z]{1,64}))?",
    re.I,
)
_PREFIX = "dnsaddr="

log = structlog.get_logger()


def is_dnsaddr(text: str) -> bool:
    """Whether `text` asks for a lookup in DNS."""
    return text.startswith("/dnsaddr/")


def resolve_dnsaddr(text: str, resolver: Resolver) -> tuple[str, ...]:
    """The addresses behind '/dnsaddr/NAME' or '/dnsaddr/NAME/p2p/ID' (then of that node alone), in the zone's order.

    LocalError (field 'bootstrap') when it is malformed or leads to no address, TransientError when DNS is away.
    """
    name, peer = _parse(text)
    search = _Search(resolver)
    search.follow(name, peer, 0)
    if search.found:
        return tuple(search.found)
    if search.failure is not None:
        raise search.failure
    raise LocalError(
        f"{text} leads to no address of a peer",
        field="bootstrap",
        fix=f"publish TXT records at _dnsaddr.{name} like dnsaddr=/ip4/1.2.3.4/tcp/4001/p2p/12D3…, or name another",
    )


@dataclass(slots=True)
class _Search:
    resolver: Resolver
    found: dict[str, None] = field(default_factory=dict)
    failure: TransientError | None = None
    _asked: set[str] = field(default_factory=set)

    def follow(self, name: str, peer: NodeId | None, depth: int) -> None:
        """Look `name` up, unless that was done or a bound is reached."""
        host = f"_dnsaddr.{name.lower()}"
        if host in self._asked or depth >= SEED_DEPTH_MAX or len(self._asked) >= SEED_LOOKUPS_MAX:
            return
        self._asked.add(host)
        try:
            records = list(self.resolver(host))[:SEED_RECORDS_MAX]
        except TransientError as error:
            self.failure = error
            return
        for record in records:
            if record.startswith(_PREFIX) and len(self.found) < SEEDS_MAX:
                self._take(record.removeprefix(_PREFIX), peer, depth)

    def _take(self, text: str, peer: NodeId | None, depth: int) -> None:
        try:
            if is_dnsaddr(text):
                name, inner = _parse(text)
                if peer is None or inner is None or inner == peer:
                    self.follow(name, peer or inner, depth + 1)
            elif peer in (None, parse_address(text).node):
                self.found[text] = None
        except CyxError as error:
            log.info("DNS record passed over", cause=str(error))


def _parse(text: str) -> tuple[str, NodeId | None]:
    match = _DNSADDR.fullmatch(text)
    if match is None:
        fix = "write it like /dnsaddr/seeds.example.org"
        raise LocalError(f"{text[:80]!r} is not a name in DNS", field="bootstrap", fix=fix)
    return match["name"], node_of_text(match["peer"]) if match["peer"] else None


def system_resolver(host: str) -> list[str]:
    """The TXT records of `host` by this machine's own resolver; blocks for at most DNS_TIMEOUT_S."""
    import dns.exception
    import dns.resolver

    try:
        answer = dns.resolver.resolve(host, "TXT", lifetime=DNS_TIMEOUT_S, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except (dns.exception.DNSException, OSError) as error:
        raise TransientError(f"bootstrap: DNS does not answer for {host}: {error}"[:300]) from None
    return [b"".join(record.strings).decode("ascii", errors="replace") for record in answer]
