"""What `cyxnode doctor` finds out by having peers dial this machine: whether they can, and what lies between.

It listens where `cyxnode run` would, under a key of its own, and asks the bootstrap nodes to call. Nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import trio

from ..p2p.reach_figures import ReachReport
from ..p2p.reachability import Mapping, Verdict
from ..protocol.errors import CyxError, LocalError
from .checkup import Finding, fine, warning
from .reach_text import MAPPINGS, PORT_FIX, ReachableTransport, where

_PATIENCE_S = 9.0
_RELAYS_S = 4.0


class DialledTransport(ReachableTransport, Protocol):
    """What the checks need of a transport; a Libp2pTransport has it."""

    async def connect(self, address: str) -> bytes: ...


OpenListening = Callable[[], AbstractAsyncContextManager[DialledTransport]]
"""A transport under a stranger's key that listens where the node will."""


@dataclass(slots=True)
class ReachChecks:
    """One look from outside, told as three findings. `listen` is HOST:PORT, `port` 0 for any."""

    open_transport: OpenListening
    addresses: Callable[[], tuple[str, ...]]
    listen: str
    port: int

    async def reach(self) -> Sequence[Finding]:
        """Have the bootstrap nodes dial back, and reserve with them when they cannot."""
        addresses = self.addresses()
        if not addresses:
            return [warning("nobody can dial back: no bootstrap address is known", "give --bootstrap ADDRESS")]
        try:
            async with self.open_transport() as transport:
                reached = await _join(transport, addresses)
                if not reached:
                    fix = "see whether this machine can dial out; ask for new addresses"
                    return [warning("nobody could dial back: no bootstrap node answers", fix)]
                return self.findings(await _looked_at(transport, reached), reached)
        except LocalError as error:
            if error.field != "port":
                raise
            fix = "stop it for this check, or read its own line about it (`cyxnode run` says whether it is reachable)"
            return [warning(f"dial-back was not tried: {self.listen} is in use, perhaps by the node itself", fix)]

    def findings(self, report: ReachReport, asked: int) -> list[Finding]:
        """What was found, in words; `asked` is how many peers there were to ask."""
        if report.leaning is Verdict.UNKNOWN:
            fix = "try again, with more bootstrap addresses; older bootstrap nodes do not dial back"
            return [warning(f"none of {asked} peers dialled back, or they disagree", fix)]
        return [self._dialled(report), _between(report), *_relayed(report)]

    def _dialled(self, report: ReachReport) -> Finding:
        by = "peers dialled" if report.verdict is not Verdict.UNKNOWN else "the one peer that tried dialled"
        seen = report.seen_as[0]
        if report.leaning is Verdict.UNREACHABLE:
            return warning(f"{by} {self.listen} at {seen}, and did not get through: not reachable", PORT_FIX)
        text = f"{by} back and got through at {seen}: reachable {where(report)}"
        if not self.port:
            return warning(f"{text}, but each start takes another port", "choose one: --listen 0.0.0.0:4001")
        return fine(text)


def _between(report: ReachReport) -> Finding:
    text = MAPPINGS[report.mapping]
    if report.mapping is Mapping.CHANGING and report.leaning is Verdict.UNREACHABLE:
        return warning(text, PORT_FIX)
    return fine(text)


def _relayed(report: ReachReport) -> list[Finding]:
    if report.leaning is not Verdict.UNREACHABLE:
        return []
    if report.relays:
        return [fine(f"relays would carry connections meanwhile ({len(report.relays)} with a place)")]
    return [warning("no relay has a place: only peers that this node dials itself would give it work", PORT_FIX)]


async def _join(transport: DialledTransport, addresses: Sequence[str]) -> int:
    """Dial all; returns how many answered."""
    answered = 0

    async def join(address: str) -> None:
        nonlocal answered
        try:
            await transport.connect(address)
        except CyxError:
            return  # told by the check of the peers
        answered += 1

    async with trio.open_nursery() as nursery:
        for address in addresses:
            nursery.start_soon(join, address)
    return answered


async def _looked_at(transport: DialledTransport, peers: int) -> ReachReport:
    """The report, once it says what it can."""
    with trio.move_on_after(_PATIENCE_S):
        while True:
            report, changed = transport.reach_report, transport.reach_changed
            if report.verdict is not Verdict.UNKNOWN or (peers == 1 and report.leaning is not Verdict.UNKNOWN):
                break
            await changed.wait()
    with trio.move_on_after(_RELAYS_S):
        while transport.reach_report.leaning is Verdict.UNREACHABLE and not transport.reach_report.relays:
            await transport.reach_changed.wait()
    return transport.reach_report
