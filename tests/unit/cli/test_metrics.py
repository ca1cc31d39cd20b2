"""What an operator reads: every metric of the table and no other, counts that follow the market, and an HTTP server
that strangers' bytes do not end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from cyxnode.cli.metrics import METRICS, Gauges
from cyxnode.cli.metrics_server import open_metrics
from cyxnode.p2p.figures import TransportFigures, counted
from cyxnode.protocol.errors import LocalError
from cyxnode.protocol.ports import GossipMessage, GossipVerdict, Transport
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.job import JobPhase
from cyxnode.scheduler.presence_service import PresenceService
from cyxnode.scheduler.split import Alarm
from market_world import open_world, run_job

FIGURES = TransportFigures(
    connected=2,
    inbound_refused={"host": 3},
    streams_served={"/cyx/1/peers": 7},
    streams_refused={"rate": 1},
    gossip={("market", "accept"): 4, ("market", "taken"): 1, ("market", "ignore"): 2, ("presence", "reject"): 9},
    banned=1,
)
OF_DISCOVERY = ("cyxnode_dht_", "cyxnode_rendezvous_", "cyxnode_lan_", "cyxnode_peers_found_")
"""Told by who is on the real network: tests/network/test_discovery.py."""


class Figured:
    """A simulated node's transport, with the figures of a real one."""

    def __init__(self, transport: Transport, figures: TransportFigures = FIGURES) -> None:
        self._transport, self._figures, self.draining = transport, figures, False
        self.presence: PresenceService

    def figures(self) -> TransportFigures:
        return self._figures

    def connected(self) -> frozenset[NodeId]:
        return self._transport.connected()


def told(text: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Metrics as Prometheus' own parser reads them."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert METRICS[name].kind == family.type and METRICS[name].help == family.documentation
        found[name] = {tuple(sample.labels.values()): sample.value for sample in family.samples}
    return found


@pytest.mark.slow
async def test_a_node_tells_every_metric_and_counts_what_happens(autojump_clock: object) -> None:
    async with open_world() as world:
        await world.add_nodes(5)
        requester = await world.add_requester()
        assert (await run_job(requester)).phase is JobPhase.SETTLED
        await trio.sleep(20)
        gauges = [Gauges(Figured(n.context.wire.transport), n.presence, n) for n in world.nodes.values()]
        texts = [told(await one.text()) for one in gauges]
        assert set(texts[0]) == {name for name in METRICS if not name.startswith(OF_DISCOVERY)}

        def total(name: str) -> float:
            return sum(sum(text[f"cyxnode_{name}"].values()) for text in texts)

        assert total("jobs_won_total") == total("jobs_claimed_total") == total("jobs_settled_total") == 1
        assert total("jobs_failed_total") == 0 and total("jobs_announced_total") == 5
        assert total("seats_taken_total") == 3 and total("seats_held") == 0
        assert total("verdicts_total") == 3 and ("ok",) in {k for t in texts for k in t["cyxnode_verdicts_total"]}
        assert total("stake_micro_cyx") == 5 * 100_000_000 and total("earned_micro_cyx") > 0
        assert texts[0]["cyxnode_peers_live"] == {(): 4} and texts[0]["cyxnode_ready"] == {(): 1}
        assert texts[0]["cyxnode_peers_kept"][()] > 0
        assert total("split_alarm") == total("split_alarms_total") == total("split_differing") == 0
        world.network.partition([[world.key("node0").node_id, world.key("node1").node_id]])
        await trio.sleep(60)
        alarmed = [told(await one.text()) for one in gauges]
        assert [text["cyxnode_split_alarm"] for text in alarmed[:2]] == [{(): 1}] * 2
        assert "3 of 4 nodes of this cell fell silent" in gauges[0].trouble()
        assert texts[0]["cyxnode_gossip_received_total"] == {("market",): 5}
        assert texts[0]["cyxnode_gossip_dropped_total"] == {("market", "ignore"): 2, ("presence", "reject"): 9}


@pytest.mark.slow
async def test_readiness_names_what_is_missing(autojump_clock: object) -> None:
    async with open_world() as world:
        node = await world.add_node("lone")
        transport = Figured(node.context.wire.transport)
        gauges = Gauges(transport, node.presence, node)
        await trio.sleep(3)
        await gauges.refresh()
        assert gauges.not_ready() == ("" if transport.connected() else "no peer is connected")
        world.network.kill(world.key("bootstrap").node_id)
        await trio.sleep(1)
        assert gauges.not_ready() == "no peer is connected"
        world.chain_away = True
        await trio.sleep(20)
        await gauges.refresh()
        assert gauges.not_ready() == "the chain does not answer"
        assert told(await gauges.text())["cyxnode_chain_reachable"] == {(): 0}
        transport.draining = True
        assert gauges.not_ready() == "it is ending"


async def test_health_tells_of_a_split() -> None:
    async with served() as (transport, port):
        watch = transport.presence.split
        watch.state = replace(watch.state, alarm=Alarm(0, "3 of 4 nodes of this cell fell silent"))
        head, body = await ask(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), "the process lives: nobody should restart it for that"
        assert body == b"ok; warning: the network may be split: 3 of 4 nodes of this cell fell silent\n"


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Figured, int]]:
    """The metrics of a bootstrap node of a simulated world, on a real port."""
    async with open_world() as world:
        presence = (await world.add_requester("observer", micro_cyx=0)).presence
        transport = Figured(presence.wire.transport)
        transport.presence = presence
        async with open_metrics(("127.0.0.1", 0), Gauges(transport, presence)) as url:
            yield transport, int(url.rsplit(":", 1)[1])


async def ask(port: int, raw: bytes) -> tuple[bytes, bytes]:
    """The head and the body of an answer; the server closes."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(raw)
        answer = b"".join([chunk async for chunk in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


async def test_the_three_paths_and_nothing_else() -> None:
    async with served() as (transport, port):
        head, body = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"version=0.0.4" in head
        assert set(told(body)) == {
            name for name, one in METRICS.items() if one.who == "all" and not name.startswith(OF_DISCOVERY)
        }
        assert (await ask(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))[1] == b"ok\n"
        assert (await ask(port, b"GET /ready?x=1 HTTP/1.1\r\nHost: x\r\n\r\n"))[1] == b"ready\n"
        transport.draining = True
        head, body = await ask(port, b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503") and body == b"not ready: it is ending\n"
        assert (await ask(port, b"GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"))[0].startswith(b"HTTP/1.1 404")
        assert (await ask(port, b"POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n"))[0].startswith(b"HTTP/1.1 405")


async def test_bytes_of_strangers_cost_their_connection_and_no_more() -> None:
    async with served() as (_, port):
        for raw in (b"\0" * 100 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\r\n\r\n"):
            head, _ = await ask(port, raw)
            assert head.startswith(b"HTTP/1.1 4"), head
        with suppress(trio.BrokenResourceError):  # cut off before its last byte
            head, _ = await ask(port, b"GET /" + b"x" * 100_000)
            assert head.startswith(b"HTTP/1.1 4"), head
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.aclose()
        assert (await ask(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))[1] == b"ok\n"


async def test_a_port_that_is_taken_and_a_host_that_is_not_loopback_are_named() -> None:
    async with served() as (transport, port):
        gauges = Gauges(transport, PresenceService.__new__(PresenceService))
        for listen in (("127.0.0.1", port), ("0.0.0.0", 0), ("example.org", 0)):
            with pytest.raises(LocalError) as refused:
                async with open_metrics(listen, gauges):
                    pass
            assert refused.value.field == "metrics" and refused.value.fix


def test_verdicts_are_counted_by_the_kind_of_topic() -> None:
    from collections import Counter

    counts: Counter[tuple[str, str]] = Counter()

    def judge(message: GossipMessage) -> GossipVerdict:
        if not message.data:
            raise ValueError("a defect")
        return GossipVerdict(message.data.decode())

    topic, node = "cyx/1/market/0123", NodeId(bytes(32))
    validator = counted(topic, judge, counts)
    for verdict in ("accept", "accept", "ignore"):
        assert validator(GossipMessage(topic, node, node, verdict.encode())).value == verdict
    with pytest.raises(ValueError, match="a defect"):
        validator(GossipMessage(topic, node, node, b""))
    assert counts == {("market", "accept"): 2, ("market", "ignore"): 1, ("market", "reject"): 1}
