"""Token buckets of gossip: what is too much is dropped, and only an author's own flood is its fault."""

from __future__ import annotations

import pytest

from cyxnode.p2p import gossip_rates
from cyxnode.p2p.buckets import Buckets
from cyxnode.p2p.gossip_rates import GossipRates
from cyxnode.protocol.bundle import pack
from cyxnode.protocol.limits import (
    GOSSIP_GROSS,
    GOSSIP_PER_AUTHOR,
    GOSSIP_PER_FORWARDER,
    GOSSIP_RECORD_BYTES,
    PEERS_KNOWN_MAX,
)
from cyxnode.protocol.ports import GossipMessage, GossipVerdict
from cyxnode.protocol.units import NodeId

AUTHOR, NEIGHBOUR = NodeId(b"a" * 32), NodeId(b"n" * 32)
PER_S, BURST = GOSSIP_PER_AUTHOR["presence"]
PRESENCE, MARKET = "cyx/1/presence/0011", "cyx/1/market/0011"


def message(
    author: NodeId = AUTHOR, forwarder: NodeId = NEIGHBOUR, topic: str = PRESENCE, data: bytes = b""
) -> GossipMessage:
    return GossipMessage(topic, author, forwarder, data)


def hear(rates: GossipRates, count: int, now_s: float, **of: object) -> list[GossipVerdict]:
    """Verdicts over messages that the validator accepts."""
    verdicts = []
    for _ in range(count):
        verdicts.append(rates.admit(message(**of), now_s))  # type: ignore[arg-type]
        if verdicts[-1] is GossipVerdict.ACCEPT:
            rates.charge(message(**of), now_s)  # type: ignore[arg-type]
    return verdicts


def test_a_bucket_empties_and_fills_again() -> None:
    buckets = Buckets((2.0, 3))
    assert [buckets.take(AUTHOR, 0.0) for _ in range(4)] == [True, True, True, False]
    assert [buckets.take(AUTHOR, 1.0) for _ in range(3)] == [True, True, False]
    assert buckets.left(AUTHOR, 1000.0) == 3
    assert buckets.take(NEIGHBOUR, 0.0)


def test_who_is_remembered_is_bounded() -> None:
    buckets = Buckets((1.0, 1))
    for number in range(PEERS_KNOWN_MAX + 5):
        buckets.take(NodeId(number.to_bytes(32, "big")), 0.0)
    assert len(buckets._tokens) == PEERS_KNOWN_MAX
    assert buckets.take(NodeId(bytes(32)), 0.0), "the oldest was forgotten"


def test_an_author_is_heard_at_its_rate_whoever_forwards_it() -> None:
    rates = GossipRates()
    neighbours = [NodeId(bytes([n]) * 32) for n in range(10)]
    heard = [verdict for one in neighbours for verdict in hear(rates, BURST, 0.0, forwarder=one)]
    assert heard.count(GossipVerdict.ACCEPT) == BURST
    assert GossipVerdict.REJECT not in heard
    assert hear(rates, 5, 2 / PER_S).count(GossipVerdict.ACCEPT) == 2
    assert hear(rates, 1, 0.0, topic=MARKET) == [GossipVerdict.ACCEPT], "kinds of topics do not share"
    assert hear(rates, 1, 0.0, author=NEIGHBOUR) == [GossipVerdict.ACCEPT]


def test_only_a_gross_flood_of_its_own_is_an_authors_fault() -> None:
    rates = GossipRates()
    verdicts = hear(rates, GOSSIP_GROSS * BURST + 7, 0.0, forwarder=AUTHOR)
    assert verdicts.count(GossipVerdict.ACCEPT) == BURST
    assert verdicts[-7:] == [GossipVerdict.REJECT] * 7
    assert verdicts.count(GossipVerdict.REJECT) == 7


def test_what_is_not_accepted_costs_its_author_nothing() -> None:
    rates = GossipRates()
    for _ in range(10 * BURST):
        assert rates.admit(message(), 0.0) is GossipVerdict.ACCEPT
    assert hear(rates, 1, 0.0) == [GossipVerdict.ACCEPT]


def test_many_authors_of_one_forwarder_share_its_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gossip_rates, "GOSSIP_PER_FORWARDER", (GOSSIP_PER_FORWARDER[0], 20))
    rates = GossipRates()
    authors = [NodeId(number.to_bytes(32, "big")) for number in range(30)]
    verdicts = [hear(rates, 1, 0.0, author=one)[0] for one in authors]
    assert verdicts == [GossipVerdict.ACCEPT] * 20 + [GossipVerdict.IGNORE] * 10


@pytest.mark.parametrize("topic", ["chat", "cyx/1", "cyx/1/chess/1", "cyx/1/poker"])
def test_topics_of_other_kinds_share_one_rate(topic: str) -> None:
    rates = GossipRates()
    hear(rates, 2_000, 0.0, topic="a/b/other")
    assert hear(rates, 1, 0.0, topic=topic) == [GossipVerdict.IGNORE]


@pytest.mark.parametrize(
    ("data", "records"),
    [(pack([b"a", b"b", b"c", b"d"]), 4), (pack([bytes(4 * GOSSIP_RECORD_BYTES - 9)]), 4), (b"\xff" * 20, 1)],
)
def test_what_counts_are_records_and_bytes(data: bytes, records: int) -> None:
    assert hear(GossipRates(), BURST, 0.0, data=data).count(GossipVerdict.ACCEPT) == BURST // records
    own = hear(GossipRates(), GOSSIP_GROSS * BURST, 0.0, data=data, forwarder=AUTHOR)
    assert own.count(GossipVerdict.REJECT) == GOSSIP_GROSS * BURST * (records - 1) // records
