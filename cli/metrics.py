"""What an operator's Prometheus may read of a process: the metrics by name, and how they are gathered.

METRICS is the one list of them; docs/operating.md is generated from it, and a metric that is not in it cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from .. import __version__
from ..p2p.figures import TransportFigures
from ..p2p.reach_figures import ReachFigures
from ..p2p.reachability import Verdict
from ..protocol.chain import NodeAccount
from ..protocol.errors import CyxError
from ..protocol.limits import CHAIN_FIGURES_AGE_S, METRICS_TIMEOUT_S
from ..protocol.units import NodeId
from ..scheduler.node import Node
from ..scheduler.presence_service import PresenceService

if TYPE_CHECKING:
    from ..bootstrap.discovery import Discovery


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `who` tells it: every process, or nodes alone."""

    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()
    who: Literal["all", "node"] = "all"


METRICS: dict[str, Metric] = {
    "cyxnode_info": Metric("gauge", "Always 1; tells the version.", ("version",)),
    "cyxnode_ready": Metric("gauge", "1 while /ready says yes."),
    "cyxnode_peers_connected": Metric("gauge", "Peers with a live connection."),
    "cyxnode_peers_live": Metric("gauge", "Live nodes in sight."),
    "cyxnode_peers_kept": Metric("gauge", "Peers of earlier lives on disk.", who="node"),
    "cyxnode_split_alarm": Metric("gauge", "1 while the network looks split.", who="node"),
    "cyxnode_split_alarms_total": Metric("counter", "Times that the network looked split.", who="node"),
    "cyxnode_split_differing": Metric("gauge", "Nodes of our cell that hear others than we do.", who="node"),
    "cyxnode_peers_banned": Metric("gauge", "Peers that are banned here."),
    "cyxnode_addresses_known": Metric("gauge", "Nodes whose address is known."),
    "cyxnode_inbound_connections": Metric("gauge", "Inbound connections that stand or are being made."),
    "cyxnode_inbound_refused_total": Metric(
        "counter", "Inbound connections refused: total, host, rate, draining.", ("cause",)
    ),
    "cyxnode_streams_open": Metric("gauge", "Inbound streams being served."),
    "cyxnode_streams_served_total": Metric("counter", "Inbound streams served.", ("protocol",)),
    "cyxnode_streams_refused_total": Metric(
        "counter", "Inbound streams refused: total, peer, rate, protocol.", ("cause",)
    ),
    "cyxnode_gossip_received_total": Metric("counter", "Gossip messages judged valid.", ("topic",)),
    "cyxnode_gossip_dropped_total": Metric("counter", "Gossip messages ignored or rejected.", ("topic", "verdict")),
    "cyxnode_reachable": Metric("gauge", "1 when others can dial this process, 0 when not, -1 when that is not known."),
    "cyxnode_relays_held": Metric("gauge", "Relays that hold a place for this process."),
    "cyxnode_called_back_total": Metric("counter", "Peers called back: reached, silent, refused.", ("result",)),
    "cyxnode_upgraded_total": Metric("counter", "Relayed connections to us: direct or relayed in the end.", ("end",)),
    "cyxnode_relay_reservations": Metric("gauge", "Places held for unreachable peers."),
    "cyxnode_relay_circuits": Metric("gauge", "Connections carried between peers."),
    "cyxnode_relay_bytes_total": Metric("counter", "Bytes carried between peers."),
    "cyxnode_relay_granted_total": Metric("counter", "Requests granted: reservation, circuit.", ("kind",)),
    "cyxnode_relay_refused_total": Metric("counter", "Requests refused, by what was used up or missing.", ("cause",)),
    "cyxnode_dht_peers": Metric("gauge", "Peers in the routing table of the DHT."),
    "cyxnode_dht_providers": Metric("gauge", "Entries of providers of classes that the DHT keeps here."),
    "cyxnode_dht_records": Metric("gauge", "Capability records that the DHT keeps here."),
    "cyxnode_dht_requests_served_total": Metric("counter", "Requests to the DHT that were answered.", ("kind",)),
    "cyxnode_dht_requests_refused_total": Metric("counter", "Requests to the DHT that were not.", ("cause",)),
    "cyxnode_rendezvous_registrations": Metric("gauge", "Nodes registered here for their class."),
    "cyxnode_rendezvous_requests_served_total": Metric("counter", "Requests for rendezvous answered.", ("kind",)),
    "cyxnode_rendezvous_requests_refused_total": Metric("counter", "Requests for rendezvous not.", ("cause",)),
    "cyxnode_lan_announcements_total": Metric(
        "counter", "Announcements on the LAN: heard, rate, malformed, unanswered, queue.", ("outcome",)
    ),
    "cyxnode_peers_found_total": Metric("counter", "Peers found by dht, rendezvous or lan, and not known.", ("way",)),
    "cyxnode_jobs_open": Metric("gauge", "Jobs followed now.", who="node"),
    "cyxnode_jobs_running": Metric("gauge", "Jobs won and not yet claimed.", who="node"),
    "cyxnode_jobs_announced_total": Metric("counter", "Jobs of our class heard of.", who="node"),
    "cyxnode_jobs_won_total": Metric("counter", "Jobs won, or taken over.", who="node"),
    "cyxnode_jobs_handed_over_total": Metric("counter", "Jobs won that another node took over.", who="node"),
    "cyxnode_jobs_claimed_total": Metric("counter", "Claims told for jobs won.", who="node"),
    "cyxnode_jobs_settled_total": Metric("counter", "Jobs won that settled OK.", who="node"),
    "cyxnode_jobs_failed_total": Metric("counter", "Jobs won that settled otherwise.", ("verdict",), "node"),
    "cyxnode_seats_held": Metric("gauge", "Committee seats in jobs that are not settled.", who="node"),
    "cyxnode_seats_taken_total": Metric("counter", "Committee seats taken.", who="node"),
    "cyxnode_verdicts_total": Metric("counter", "Verdicts given as a member.", ("finding",), "node"),
    "cyxnode_stake_micro_cyx": Metric("gauge", "Stake on chain, in micro-CYX.", who="node"),
    "cyxnode_earned_micro_cyx": Metric("gauge", "Verifier's earnings not yet withdrawn, in micro-CYX.", who="node"),
    "cyxnode_slashed_micro_cyx": Metric("gauge", "What the stake has lost, in micro-CYX.", who="node"),
    "cyxnode_chain_reachable": Metric("gauge", "1 when the chain answered the last question.", who="node"),
}
COUNTED = ("jobs_announced", "jobs_won", "jobs_handed_over", "jobs_claimed", "jobs_settled", "seats_taken")
"""What a node counts since its start, and is told as it is."""
Samples = dict[str, dict[tuple[str, ...], float]]
"""By metric, then by the values of its labels."""


class FiguredTransport(Protocol):
    """What Gauges needs of a transport; a Libp2pTransport has it."""

    @property
    def draining(self) -> bool: ...
    def figures(self) -> TransportFigures: ...
    def connected(self) -> frozenset[NodeId]: ...


@dataclass(slots=True)
class Gauges:
    """Reads one running process. `node` is None for a bootstrap node."""

    transport: FiguredTransport
    presence: PresenceService
    node: Node | None = None
    discovery: Discovery | None = None
    _account: NodeAccount | None = None
    _chain_ok: bool = False
    _read_at_s: float = field(default=float("-inf"))

    def not_ready(self) -> str:
        """Why this process is not ready for work; empty when it is."""
        if self.transport.draining:
            return "it is ending"
        if self.node is None:
            return ""
        if not self._chain_ok:
            return "the chain does not answer"
        return "" if self.transport.connected() else "no peer is connected"

    def trouble(self) -> str:
        """What the operator should know although this process is well; empty when there is nothing."""
        alarm = self.presence.split.alarm
        return f"the network may be split: {alarm}" if alarm else ""

    async def refresh(self) -> None:
        """Read the chain anew when what is known is old; a chain that is away costs METRICS_TIMEOUT_S at most."""
        if self.node is None or trio.current_time() - self._read_at_s < CHAIN_FIGURES_AGE_S:
            return
        context, self._read_at_s, ok = self.node.context, trio.current_time(), False
        with trio.move_on_after(METRICS_TIMEOUT_S / 2):
            try:
                self._account = await context.chain.node(context.wire.me)
                ok = True
            except CyxError:
                ok = False
        self._chain_ok = ok

    async def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        await self.refresh()
        registry = CollectorRegistry()
        registry.register(_Once(self.samples()))
        return generate_latest(registry)

    def samples(self) -> Samples:
        """The figures of now."""
        figures = self.transport.figures()
        found: Samples = {
            "cyxnode_info": {(__version__,): 1},
            "cyxnode_ready": {(): float(not self.not_ready())},
            **of_transport(figures),
            **of_reach(figures.reach),
            "cyxnode_peers_live": {(): len(self.presence.alive())},
        }
        if self.node is not None:
            found |= self._of_node(self.node)
        return found | of_discovery(self.discovery) if self.discovery is not None else found

    def _of_node(self, node: Node) -> Samples:
        counts, rooms, account = node.context.counts, node.market.rooms, self._account
        seats = sum(1 for room in rooms.by_job.values() if room.case is not None and room.outcome is None)
        return {
            "cyxnode_peers_kept": {(): len(self.presence.kept or ())},
            "cyxnode_split_alarm": {(): float(bool(self.presence.split.alarm))},
            "cyxnode_split_alarms_total": {(): self.presence.split.raised},
            "cyxnode_split_differing": {(): self.presence.split.state.differing},
            "cyxnode_jobs_open": {(): len(rooms.by_job)},
            "cyxnode_jobs_running": {(): rooms.running()},
            "cyxnode_seats_held": {(): seats},
            **{f"cyxnode_{name}_total": {(): counts[name]} for name in COUNTED},
            "cyxnode_jobs_failed_total": _labelled(counts, "jobs_failed/"),
            "cyxnode_verdicts_total": _labelled(counts, "verdicts/"),
            "cyxnode_stake_micro_cyx": {(): account.stake if account else 0},
            "cyxnode_earned_micro_cyx": {(): account.earned if account else 0},
            "cyxnode_slashed_micro_cyx": {(): account.slashed if account else 0},
            "cyxnode_chain_reachable": {(): float(self._chain_ok)},
        }


def of_transport(figures: TransportFigures) -> Samples:
    """The samples of a transport."""
    heard = {key: count for key, count in figures.gossip.items() if key[1] in ("accept", "taken")}
    received: dict[tuple[str, ...], float] = {}
    for (topic, _), count in heard.items():
        received[(topic,)] = received.get((topic,), 0) + count
    return {
        "cyxnode_peers_connected": {(): figures.connected},
        "cyxnode_peers_banned": {(): figures.banned},
        "cyxnode_addresses_known": {(): figures.addresses_known},
        "cyxnode_inbound_connections": {(): figures.inbound_open},
        "cyxnode_inbound_refused_total": {(cause,): count for cause, count in figures.inbound_refused.items()},
        "cyxnode_streams_open": {(): figures.streams_open},
        "cyxnode_streams_served_total": {(name,): count for name, count in figures.streams_served.items()},
        "cyxnode_streams_refused_total": {(cause,): count for cause, count in figures.streams_refused.items()},
        "cyxnode_gossip_received_total": received,
        "cyxnode_gossip_dropped_total": {key: count for key, count in figures.gossip.items() if key not in heard},
    }


_REACHABLE = {Verdict.REACHABLE: 1, Verdict.UNREACHABLE: 0, Verdict.UNKNOWN: -1}


def of_reach(figures: ReachFigures) -> Samples:
    """The samples of how a process is reached and what it does for others."""

    def by(counts: Mapping[str, int]) -> dict[tuple[str, ...], float]:
        return {(label,): count for label, count in counts.items()}

    return {
        "cyxnode_reachable": {(): _REACHABLE[figures.report.leaning]},
        "cyxnode_relays_held": {(): len(figures.report.relays)},
        "cyxnode_called_back_total": by(figures.called_back),
        "cyxnode_upgraded_total": by(figures.upgraded),
        "cyxnode_relay_reservations": {(): figures.reservations},
        "cyxnode_relay_circuits": {(): figures.circuits},
        "cyxnode_relay_bytes_total": {(): figures.relayed_bytes},
        "cyxnode_relay_granted_total": by(figures.relay_granted),
        "cyxnode_relay_refused_total": by(figures.relay_refused),
    }


def of_discovery(discovery: Discovery) -> Samples:
    """The samples of the DHT, of a rendezvous point, and of the LAN."""
    dht, point, lan = discovery.dht, discovery.point, discovery.lan
    return {
        "cyxnode_dht_peers": {(): dht.table.size()},
        "cyxnode_dht_providers": {(): len(dht.providers)},
        "cyxnode_dht_records": {(): dht.values.size()},
        "cyxnode_dht_requests_served_total": _labelled(dht.gate.served, ""),
        "cyxnode_dht_requests_refused_total": _labelled(dht.gate.refused, ""),
        "cyxnode_rendezvous_registrations": {(): len(point) if point is not None else 0},
        "cyxnode_rendezvous_requests_served_total": _labelled(point.gate.served if point is not None else {}, ""),
        "cyxnode_rendezvous_requests_refused_total": _labelled(point.gate.refused if point is not None else {}, ""),
        "cyxnode_lan_announcements_total": _labelled(lan.counts if lan is not None else {}, ""),
        "cyxnode_peers_found_total": _labelled(discovery.suggested, ""),
    }


def _labelled(counts: Mapping[str, int], prefix: str) -> dict[tuple[str, ...], float]:
    return {(name.removeprefix(prefix),): count for name, count in counts.items() if name.startswith(prefix)}


class _Once(Collector):
    """Samples as the library wants them."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Each metric with its samples."""
        for name, values in self._samples.items():
            metric = METRICS[name]
            family = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
            one = family(name, metric.help, labels=metric.labels)
            for labels, value in sorted(values.items()):
                one.add_metric(labels, value)
            yield one
