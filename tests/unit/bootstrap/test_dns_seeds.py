"""Bootstrap addresses from DNS: what is taken, what is passed over, and that no zone keeps us busy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from cyxnode.bootstrap.dns_seeds import resolve_dnsaddr, system_resolver
from cyxnode.p2p.peer_id import peer_id_text
from cyxnode.protocol.errors import LocalError, TransientError
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import SEED_DEPTH_MAX, SEED_LOOKUPS_MAX, SEEDS_MAX

ALICE, BOB = (peer_id_text(KeyPair(bytes([number]) * 32).node_id) for number in (1, 2))
AT_ALICE, AT_BOB = f"/ip4/192.0.2.1/tcp/4001/p2p/{ALICE}", f"/dns4/b.example.org/tcp/4001/p2p/{BOB}"


class Zone:
    """TXT records by name, and how often they were asked for."""

    def __init__(self, **records: list[str]) -> None:
        self.records = {f"_dnsaddr.{name}.org": texts for name, texts in records.items()}
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        return self.records.get(host, [])


def test_addresses_are_taken_in_the_order_of_the_zone() -> None:
    zone = Zone(seeds=[f"dnsaddr={AT_BOB}", f"dnsaddr={AT_ALICE}", f"dnsaddr={AT_BOB}"])
    assert resolve_dnsaddr("/dnsaddr/seeds.org", zone) == (AT_BOB, AT_ALICE)


def test_a_name_may_lead_to_others() -> None:
    zone = Zone(seeds=["dnsaddr=/dnsaddr/eu.org", f"dnsaddr=/dnsaddr/us.org/p2p/{BOB}"], eu=[f"dnsaddr={AT_ALICE}"])
    zone.records["_dnsaddr.us.org"] = [f"dnsaddr={AT_ALICE.replace('4001', '1')}", f"dnsaddr={AT_BOB}"]
    assert resolve_dnsaddr("/dnsaddr/seeds.org", zone) == (AT_ALICE, AT_BOB)


def test_a_peer_id_that_is_asked_for_is_the_only_one_taken() -> None:
    zone = Zone(seeds=[f"dnsaddr={AT_ALICE}", f"dnsaddr={AT_BOB}", f"dnsaddr=/dnsaddr/eu.org/p2p/{ALICE}"])
    assert resolve_dnsaddr(f"/dnsaddr/seeds.org/p2p/{BOB}", zone) == (AT_BOB,)
    assert zone.asked == ["_dnsaddr.seeds.org"]


def test_what_is_not_an_address_is_passed_over() -> None:
    hostile = ["", "v=spf1 -all", "dnsaddr=", "dnsaddr=/ip4/1.2.3.4", "dnsaddr=/ip4/0.0.0.0/tcp/1/p2p/" + ALICE]
    hostile += ["dnsaddr=/dnsaddr/../x", "dnsaddr=/dnsaddr/" + "a." * 200, "dnsaddr=\x1b[2J", AT_BOB]
    assert resolve_dnsaddr("/dnsaddr/seeds.org", Zone(seeds=[*hostile, f"dnsaddr={AT_ALICE}"])) == (AT_ALICE,)


def test_loops_and_endless_zones_end() -> None:
    loop = Zone(seeds=["dnsaddr=/dnsaddr/SEEDS.org", "dnsaddr=/dnsaddr/seeds.org", f"dnsaddr={AT_ALICE}"])
    assert resolve_dnsaddr("/dnsaddr/seeds.org", loop) == (AT_ALICE,) and len(loop.asked) == 1

    asked = []

    def deeper(host: str) -> list[str]:
        asked.append(host)
        return [f"dnsaddr=/dnsaddr/a.{host.removeprefix('_dnsaddr.')}"]

    with pytest.raises(LocalError, match="leads to no address"):
        resolve_dnsaddr("/dnsaddr/x.org", deeper)
    assert len(asked) == SEED_DEPTH_MAX

    def wider(host: str) -> list[str]:
        asked.append(host)
        return [f"dnsaddr=/dnsaddr/n{number}.{len(asked)}.org" for number in range(1_000)]

    asked.clear()
    with pytest.raises(LocalError):
        resolve_dnsaddr("/dnsaddr/x.org", wider)
    assert len(asked) == SEED_LOOKUPS_MAX


def test_more_addresses_than_are_of_use_are_left() -> None:
    many = [f"dnsaddr=/ip4/192.0.2.1/tcp/{port}/p2p/{ALICE}" for port in range(1, 500)]
    assert len(resolve_dnsaddr("/dnsaddr/seeds.org", Zone(seeds=many))) == SEEDS_MAX


@pytest.mark.parametrize(
    "text", ["/dnsaddr/", "/dnsaddr/a b", "/dnsaddr/x.org/tcp/1", "/dnsaddr/-x.org", "/dnsaddr/x/p2p/Q"]
)
def test_a_malformed_name_is_refused_before_anything_is_asked(text: str) -> None:
    zone = Zone()
    with pytest.raises(LocalError) as refused:
        resolve_dnsaddr(text, zone)
    assert refused.value.field in ("bootstrap", "address") and refused.value.fix and not zone.asked


def test_a_name_without_records_says_what_to_publish() -> None:
    with pytest.raises(LocalError, match=r"_dnsaddr\.seeds\.org like dnsaddr=/ip4/") as refused:
        resolve_dnsaddr("/dnsaddr/seeds.org", Zone())
    assert refused.value.field == "bootstrap"


def test_that_dns_is_away_is_not_taken_for_an_empty_zone() -> None:
    def away(host: str) -> list[str]:
        raise TransientError("bootstrap: DNS does not answer")

    with pytest.raises(TransientError):
        resolve_dnsaddr("/dnsaddr/seeds.org", away)


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, list[str]]], None]]:
    """A name server on loopback, which this machine's resolver then asks."""
    import dns.flags
    import dns.message
    import dns.rcode
    import dns.resolver
    import dns.rrset

    zone: dict[str, list[str]] = {}
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            raw, client = server.recvfrom(4096)
            if not raw:
                return
            question = dns.message.from_wire(raw)
            answer, name = dns.message.make_response(question), question.question[0].name
            answer.flags |= dns.flags.RA
            texts = zone.get(name.to_text(omit_final_dot=True))
            if texts is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            elif texts:
                answer.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *texts))
            else:
                answer.set_rcode(dns.rcode.SERVFAIL)
            server.sendto(answer.to_wire(), client)

    thread = threading.Thread(target=serve)
    thread.start()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.getsockname()[1]
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    yield zone.update
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"", server.getsockname())
    thread.join()
    server.close()


def test_the_machines_resolver_is_asked(name_server: Callable[[dict[str, list[str]]], None]) -> None:
    half = len(AT_ALICE) // 2
    name_server(
        {"_dnsaddr.seeds.org": [f'"dnsaddr={AT_ALICE[:half]}" "{AT_ALICE[half:]}"', '"other"'], "broken.org": []}
    )
    assert resolve_dnsaddr("/dnsaddr/seeds.org", system_resolver) == (AT_ALICE,)
    assert system_resolver("nowhere.org") == []
    with pytest.raises(TransientError, match=r"bootstrap: DNS does not answer for broken\.org"):
        system_resolver("broken.org")
