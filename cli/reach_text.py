"""What a node says of how it can be reached, and what that means for what it earns."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from ..p2p.reach_figures import ReachReport
from ..p2p.reachability import Mapping, Verdict, is_public
from ..protocol.limits import REACH_SETTLES_S

PORT_FIX = "forward a TCP port of the router to this machine, and listen there (--listen 0.0.0.0:4001)"
MAPPINGS = {
    Mapping.UNKNOWN: "whether a NAT lies between is not known yet",
    Mapping.NONE: "no NAT: peers see this machine's own address",
    Mapping.STEADY: "behind a NAT that shows all peers one port (endpoint-independent): direct connections can be made",
    Mapping.CHANGING: "behind a NAT that shows every peer another port (endpoint-dependent): relayed connections to "
    "others behind NATs stay relayed",
}


class ReachableTransport(Protocol):
    """What is needed of a transport; a Libp2pTransport has it."""

    @property
    def reach_report(self) -> ReachReport: ...
    @property
    def reach_changed(self) -> trio.Event: ...


def where(report: ReachReport) -> str:
    """Who can dial, by the address that peers see."""
    hosts = report.seen_as
    if any(is_public(host) for host in hosts):
        return "from the internet"
    own = hosts and all(ipaddress.ip_address(host).is_loopback for host in hosts)
    return "on this machine" if own else "in this network"


def told(report: ReachReport) -> str:
    """One line for an operator."""
    certain = "" if report.verdict is report.leaning else ", says the one peer that has tried"
    match report.leaning:
        case Verdict.UNKNOWN:
            return "reachability is not known yet: no two peers have tried to dial this node"
        case Verdict.REACHABLE:
            return f"reachable {where(report)} at {report.seen_as[0]}{certain}: every peer can give it work"
        case Verdict.UNREACHABLE:
            return f"not reachable {where(report)}{certain}; {_relayed(len(report.relays))}; {PORT_FIX}"


def _relayed(count: int) -> str:
    """What unreachable means for the operator, by the number of relays."""
    if not count:
        return "no relay has a place: only peers that it dials itself give it work, so expect to earn little"
    carry = "a relay carries" if count == 1 else "relays carry"
    return f"{carry} connections to it: it earns, but slower, and loses jobs with much data"


async def tell_changes(
    transport: ReachableTransport, say: Callable[[str], None], announce: Callable[[], Awaitable[None]]
) -> None:
    """`announce` our addresses anew when they change, and say so once nothing has changed for a moment: no relay can
    have been found yet when one is first needed. Until cancelled."""
    said, relays = told(transport.reach_report), transport.reach_report.relays
    while True:
        changed = transport.reach_changed
        if transport.reach_report.relays != relays:
            relays = transport.reach_report.relays
            await announce()
        with trio.move_on_after(REACH_SETTLES_S):
            await changed.wait()
            continue
        if (line := told(transport.reach_report)) != said:
            say(line)
            said = line
        await changed.wait()
