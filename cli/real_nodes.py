"""The nodes of a real world: `cyxnode run` processes that are killed, stopped, cut off and started again on a schedule.

A crash is SIGKILL and a start with the same home and port; a pause is SIGSTOP and SIGCONT. A split is a deny list on
each side that names the other: real connections are cut, and new ones refused, within a second. A node that we
killed is no trouble; one that ends by itself breaks the world down, with the end of its log.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import trio

from ..p2p.addresses import parse_address
from ..protocol.identity import KeyPair, save_key
from ..protocol.units import NodeId, base58, format_cyx
from ..simulation.plan import Plan, node_rate, place
from .processes import Child, ChildFailed, open_child, signal_group, stopped

WATCH_INTERVAL_S = 0.2
LOG_TAIL_LINES = 5


@dataclass(slots=True)
class Participant:
    """Who has a place in the world: its key follows from seed and name, as in virtual worlds."""

    name: str
    region: str
    key: KeyPair
    deny_list: Path

    @property
    def node_id(self) -> NodeId:
        """Its public key."""
        return self.key.node_id


@dataclass(slots=True)
class RealPeer:
    """One node over all its lives. `gone_at_unix_s` is set when it was killed for good, `lasted` when it lived to the
    end; `stood_s` is all its pauses, `codes` are the ends of its lives."""

    who: Participant
    arguments: list[str]
    port: int = 0
    lives: int = 0
    child: Child | None = None
    killed: bool = False
    lasted: bool = False
    gone_at_unix_s: float | None = None
    stood_s: float = 0.0
    codes: list[int] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)


@dataclass(slots=True)
class Fleet:
    """All peers, and the troubles that a schedule makes them (simulation.faults.Stage)."""

    home: Path
    plan: Plan
    tell: Callable[[str, str], None]
    nursery: trio.Nursery = field(init=False)
    origin_s: float = field(default_factory=trio.current_time)
    everyone: list[Participant] = field(default_factory=list)
    peers: list[RealPeer] = field(default_factory=list)

    def participant(self, name: str) -> Participant:
        """A new identity in `home`, with an empty deny list."""
        folder = self.home / name
        folder.mkdir(mode=0o700)
        key = KeyPair(sha256(f"{self.plan.seed}/{name}".encode()).digest())
        save_key(folder / "key.json", key)
        who = Participant(name, place(self.plan, name).region, key, folder / "deny.list")
        who.deny_list.write_text("")
        self.everyone.append(who)
        return who

    def add(self, number: int, common: Sequence[str], *, torch: bool) -> RealPeer:
        """Peer `number` of the plan, not started yet. `common` are the options that all nodes share."""
        who = self.participant(f"peer{number}")
        rate = format_cyx(node_rate(self.plan, number))
        options = ["--name", who.name, "--deny-list", str(who.deny_list), "--rate", rate, "--region", who.region]
        runner = [] if torch else ["--simulated-runner", f"class{number % self.plan.classes}"]
        peer = RealPeer(who, ["run", *common, *options, *runner, "--faucet"])
        self.peers.append(peer)
        return peer

    async def start(self, peer: RealPeer) -> None:
        """Begin a life; returns when the node is ready."""
        await self.nursery.start(self._live, peer)

    async def _live(self, peer: RealPeer, task_status: Any) -> None:
        peer.lives, peer.killed = peer.lives + 1, False
        name = f"{peer.who.name}.{peer.lives}"
        peer.logs.append(self.home / f"{name}.log")
        arguments = [*peer.arguments, "--listen", f"127.0.0.1:{peer.port}"]
        try:
            async with open_child(name, arguments, self.home) as peer.child:
                peer.port = parse_address(peer.child.facts["addresses"][0]).port
                self.tell("up", peer.who.name)
                task_status.started()
                code = await ended(peer.child)
                if not peer.killed:
                    raise ChildFailed(f"{name} ended by itself with code {code}: {log_tail(peer.child.log)}")
        finally:
            if peer.child is not None:
                peer.codes.append(peer.child.process.wait())
                peer.child = None

    def _kill(self, peer: RealPeer) -> None:
        assert peer.child is not None
        self.tell("down", peer.who.name)
        peer.killed = True
        signal_group(peer.child.process, signal.SIGKILL)
        peer.child.process.wait()

    async def crash(self, node: int, down_s: float) -> None:
        """See Stage."""
        peer = self.peers[node]
        if peer.child is None or peer.killed:
            return
        self._kill(peer)
        await trio.sleep(down_s)
        await self.start(peer)

    async def pause(self, node: int, pause_s: float) -> None:
        """See Stage."""
        peer = self.peers[node]
        if peer.child is None or peer.killed:
            return
        self.tell("pause", peer.who.name)
        async with stopped(peer.child.process):
            await trio.sleep(pause_s)
        peer.stood_s += pause_s
        self.tell("resume", peer.who.name)

    def leave(self, node: int) -> None:
        """See Stage."""
        peer = self.peers[node]
        if peer.child is not None and not peer.killed:
            self._kill(peer)
            peer.gone_at_unix_s = time.time()

    async def split(self, regions: Sequence[str], heal_s: float) -> None:
        """See Stage."""
        self.tell("split", " ".join(regions))
        self.separate([one for one in self.everyone if one.region in regions])
        await trio.sleep(heal_s)
        self.separate([])
        self.tell("heal", " ".join(regions))

    def separate(self, away: Collection[Participant]) -> None:
        """Let those in `away` and all others deny each other; nobody is denied when `away` is empty."""
        names = {one.name for one in away}
        for one in self.everyone:
            others = [other for other in self.everyone if (other.name in names) != (one.name in names)]
            deny(one.deny_list, others)


def deny(path: Path, others: Collection[Participant]) -> None:
    """Write a deny list so that a reader sees the old one or the new one."""
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(f"{base58(other.node_id)}  # {other.name}\n" for other in others))
    fresh.replace(path)


async def ended(child: Child) -> int:
    """The exit code of a child, once it has ended."""
    while (code := child.process.poll()) is None:  # noqa: ASYNC110 -- a process has no event
        await trio.sleep(WATCH_INTERVAL_S)
    return code


def log_tail(log: Path) -> str:
    """The last lines of a log."""
    lines = log.read_text(errors="replace").strip().splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(lines) or f"its log {log} is empty"
