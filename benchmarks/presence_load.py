"""What presence costs a node as its network grows: messages and bytes that it receives, at 100, 1,000 and 10,000 peers.

Every peer runs the real presence service on the in-memory network, in virtual time: cells, heartbeats, capability
records, peer exchange, connections, the split-network alarm; there is no chain and no market. All are of one class, the
hardest case: it has to be cut into ever more cells. Peers come back from their disks, where they know some of their
cell, within START_S; one bootstrap node serves LAMP_PEERS of them. Each world plays in a process of its own, and is
measured for --seconds after --warm-up. The in-memory network sends no copy that would come second: a real node receives
each gossip message some four times more (GossipSub's mesh), whatever the size of the network.

    .venv/bin/python benchmarks/presence_load.py [--json] [--peers 100 --peers 1000] [--seed 1]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any

import structlog
import trio
import trio._core._run as trio_run
import trio.testing

from cyxnode.ledger.journal import MemoryJournal
from cyxnode.p2p.memory import MemoryTransport
from cyxnode.p2p.memory_network import MemoryNetwork
from cyxnode.protocol.identity import KeyPair
from cyxnode.protocol.limits import CELL_NODES_MAX
from cyxnode.protocol.messages import Capability
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler.cells import cell_of
from cyxnode.scheduler.known_peers import KnownPeers
from cyxnode.scheduler.presence_service import Load, PresenceService
from cyxnode.scheduler.wire import Wire
from cyxnode.simulation.clock import SeededRandomness, VirtualClock
from cyxnode.simulation.geography import REGIONS, Geography
from cyxnode.simulation.opened import OpenedMemo
from cyxnode.simulation.world import GRAIN_S

SIZES = (100, 1_000, 10_000)
GROWTH_MAX = 1.3
"""Of the largest network over the smallest one."""
FULL_CELL_MAX = 1.05
"""Of any network over a full cell of the smallest one: cells hold half as many nodes after they were cut, so that the
load of a node goes up and down between network sizes, by what its cell holds."""
START_S = 20.0
LAMP_PEERS = 1_000
KEPT = 12
"""Old acquaintances of its cell that a peer has on its disk."""
CLASS, GENESIS = sha256(b"one class").digest(), sha256(b"one network").digest()
HARDWARE = {"cpu": "16 cores", "torch": "2.13.0+cpu", "memory_mb": "32768", "sandbox": "bubblewrap", "threads": "1"}


@dataclass(slots=True)
class Received:
    """What was received while it was measured, by receiver."""

    messages: Counter[NodeId] = field(default_factory=Counter)
    volume: Counter[NodeId] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    on: bool = False

    def note(self, kind: str, _sender: NodeId, receiver: NodeId, _topic: str, data: bytes) -> None:
        """One thing on its way."""
        if self.on:
            self.messages[receiver] += 1
            self.volume[receiver] += len(data)
            self.kinds[kind] += 1


@dataclass(slots=True)
class Peers:
    """The network while it grows. All that happens follows from the seed."""

    seed: int
    count: int
    network: MemoryNetwork
    geography: Geography
    opened: OpenedMemo = field(default_factory=OpenedMemo)
    services: list[PresenceService] = field(default_factory=list)
    lamps: list[PresenceService] = field(default_factory=list)

    async def registered(self, _execution_class: bytes) -> tuple[int, int]:
        """What a chain would say: they have been registered for long."""
        return self.count, self.count

    def service(self, name: str, bootstrap: tuple[str, ...], kept: KnownPeers | None, *, offers: bool) -> Any:
        """A peer's presence and its transport."""
        key = self.key(name)
        self.geography.region[key.node_id] = Random(f"{self.seed}/{name}").choice(REGIONS)
        transport = MemoryTransport(self.network, key.node_id)

        def offer(sequence: int, now_ms: int) -> Capability:
            return Capability(
                sequence=sequence, sent_at_ms=now_ms, execution_class=CLASS, device="cpu", memory_mb=32_768,
                sandbox="bubblewrap", rate_micro_per_s=20_000, region=REGIONS[0], datasets=(), version="0.1.0",
                verifier=True, addresses=transport.addresses(), hardware=HARDWARE,
            )  # fmt: skip

        service = PresenceService(
            wire=Wire(transport, key, GENESIS, VirtualClock(), self.opened),
            randomness=SeededRandomness(Random(f"{self.seed}/{name}/secrets")),
            bootstrap=bootstrap,
            offer=offer if offers else None,
            load=lambda: Load("idle", 0, 0, 0),
            registered=self.registered,
            kept=kept,
        )
        return service, transport

    def key(self, name: str) -> KeyPair:
        """An identity."""
        return KeyPair(sha256(f"{self.seed}/{name}".encode()).digest())

    def disks(self) -> list[KnownPeers]:
        """For each peer, a disk with some of its cell on it."""
        names = [self.key(f"peer{number}").node_id for number in range(self.count)]
        cells: dict[Any, list[NodeId]] = {}
        for node in names:
            cells.setdefault(cell_of(node, CLASS, self.count), []).append(node)
        disks, rng = [], Random(f"{self.seed}/disks")
        for node in names:
            mates = [one for one in cells[cell_of(node, CLASS, self.count)] if one != node]
            disk = KnownPeers(MemoryJournal(), VirtualClock())
            for mate in rng.sample(mates, min(KEPT, len(mates))):
                disk.met(mate, (str(self.network.address_of(mate)),), CLASS)
            disks.append(disk)
        return disks

    async def live(self, service: PresenceService, transport: MemoryTransport, after_s: float) -> None:
        """A peer's life."""
        await trio.sleep(after_s)
        async with transport.run():
            await service.run()


async def play(seed: int, count: int, warm_up_s: float, seconds: float) -> dict[str, Any]:
    """One world, and what its peers received per second."""
    geography, load = Geography(jitter=0.1), Received()
    network = MemoryNetwork(Random(f"{seed}/network"), latency=geography.latency, grain_s=GRAIN_S)
    network.traffic = load.note
    world, rng = Peers(seed, count, network, geography), Random(f"{seed}/starts")
    async with network.run(), trio.open_nursery() as nursery:
        addresses: list[tuple[str, ...]] = []
        for number in range(max(1, count // LAMP_PEERS)):
            lamp, transport = world.service(f"lamp{number}", (), None, offers=False)
            world.lamps.append(lamp)
            addresses.append(transport.addresses())
            nursery.start_soon(world.live, lamp, transport, 0.0)
        for number, disk in enumerate(world.disks()):
            service, transport = world.service(f"peer{number}", addresses[number % len(addresses)], disk, offers=True)
            world.services.append(service)
            nursery.start_soon(world.live, service, transport, rng.uniform(0, START_S))
        await trio.sleep(START_S + warm_up_s)
        load.on = True
        await trio.sleep(seconds)
        found = figures(world, load, seconds)
        nursery.cancel_scope.cancel()
    return found


def figures(world: Peers, load: Received, seconds: float) -> dict[str, Any]:
    """What was received, per node and second; and whether everybody hears everybody of its cell."""
    nodes, lamps = [one.wire.me for one in world.services], [one.wire.me for one in world.lamps]
    cells = Counter(one.cell for one in world.services)
    deaf = sum(1 for one in world.services if len(one.split.state.voices) != cells[one.cell] - 1)
    each = sorted(load.messages[node] / seconds for node in nodes)
    return {
        "peers": world.count,
        "cells": len(cells),
        "cell_peers_mean": round(world.count / len(cells), 1),
        "messages_per_node_and_second": round(sum(each) / len(each), 3),
        "messages_per_node_and_second_p99": round(each[int(len(each) * 0.99)], 3),
        "bytes_per_node_and_second": round(sum(load.volume[node] for node in nodes) / seconds / len(nodes), 1),
        "gossip_share": round(load.kinds["gossip"] / max(1, sum(load.kinds.values())), 3),
        "messages_per_bootstrap_node_and_second": round(
            sum(load.messages[node] for node in lamps) / seconds / len(lamps), 2
        ),
        "connections_mean": round(sum(len(one.wire.transport.connected()) for one in world.services) / len(nodes), 1),
        "nodes_that_do_not_hear_their_whole_cell": deaf,
        "split_alarms": sum(one.split.raised for one in world.services),
    }


def world(seed: int, count: int, warm_up_s: float, seconds: float) -> dict[str, Any]:
    """Play one world here, and measure it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(seed)
    clock = trio.testing.MockClock(autojump_threshold=0)
    clock.current_time = partial(getattr, clock, "_virtual_base")  # type: ignore[method-assign]
    gc.set_threshold(20_000, 20, 50)
    began = time.process_time()
    found = trio.run(play, seed, count, warm_up_s, seconds, clock=clock)
    found["cpu_seconds"] = round(time.process_time() - began, 1)
    found["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def apart(asked: argparse.Namespace, count: int) -> dict[str, Any]:
    """Play one world in a process of its own, so that its memory is its own and its sets are in order."""
    options = ["--seed", str(asked.seed), "--warm-up", str(asked.warm_up), "--seconds", str(asked.seconds)]
    command = [sys.executable, __file__, "--world", str(count), *options]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def judged(worlds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every figure against the most that it may be."""
    found: list[tuple[str, float, float, str]] = []
    full = CELL_NODES_MAX / worlds[0]["cell_peers_mean"]
    for name in ("messages_per_node_and_second", "bytes_per_node_and_second"):
        values = [one[name] for one in worlds]
        text = f"{name.replace('_', ' ')}: " + ", ".join(f"{one[name]:g} at {one['peers']}" for one in worlds)
        found.append((f"{text}; growth", round(values[-1] / values[0], 2), GROWTH_MAX, "x"))
        found.append((f"{text}; most", round(max(values) / values[0] / full, 2), FULL_CELL_MAX, "x a full cell"))
    deaf = sum(one["nodes_that_do_not_hear_their_whole_cell"] for one in worlds)
    found.append(("nodes that do not hear their whole cell", deaf, 0, ""))
    found.append(("split-network alarms", sum(one["split_alarms"] for one in worlds), 0, ""))
    return [
        {"name": name, "value": value, "most": most, "unit": unit, "passed": value <= most}
        for name, value, most, unit in found
    ]


def main() -> int:
    """0 when every figure holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=int, action="append", help=f"May be repeated (default: {SIZES}).")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--warm-up", type=float, default=60.0, help="Virtual seconds after the last start.")
    parser.add_argument("--seconds", type=float, default=60.0, help="Virtual seconds that are measured.")
    parser.add_argument("--world", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.world:
        print(json.dumps(world(asked.seed, asked.world, asked.warm_up, asked.seconds)))
        return 0
    worlds = []
    for count in asked.peers or SIZES:
        worlds.append(apart(asked, count))
        print(json.dumps(worlds[-1]), file=sys.stderr, flush=True)
    found = judged(worlds)
    if asked.json:
        machine = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "load_average_1min": round(os.getloadavg()[0], 1),
        }
        print(json.dumps({"machine": machine, "figures": found, "worlds": worlds}, indent=1))
    else:
        for one in found:
            verdict = "pass" if one["passed"] else "FAIL"
            print(f"{verdict}  {one['name']}: {one['value']:g} {one['unit']} (at most {one['most']:g})")
    return 0 if all(one["passed"] for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
