"""Who is alive, by what they said and when we heard it (DESIGN 3).

Rule 1: a node is ALIVE when heard, SUSPECT after SUSPECT_AFTER_MS of silence, DEAD and forgotten after DEAD_AFTER_MS.
Rule 2: only a rising sequence counts: old messages replayed by others keep nobody alive.
Pure: `now_ms` is the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import sha256

from ..protocol.limits import DEAD_AFTER_MS, PEERS_KNOWN_MAX, SUSPECT_AFTER_MS
from ..protocol.messages import Capability, Heartbeat
from ..protocol.units import NodeId


class Liveness(Enum):
    """What silence makes of a member."""

    ALIVE = "alive"
    SUSPECT = "suspect"


@dataclass(frozen=True, slots=True)
class Member:
    """A node as last heard. `capability_raw` is its signed envelope, good to hand on."""

    seen_at_ms: int
    liveness: Liveness = Liveness.ALIVE
    heartbeat: Heartbeat | None = None
    capability: Capability | None = None
    capability_raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Presence:
    """All members that are not dead."""

    members: Mapping[NodeId, Member] = field(default_factory=dict)

    def alive(self) -> dict[NodeId, Member]:
        """Members heard recently enough to work with, suspects included."""
        return {node: member for node, member in self.members.items() if member.capability is not None}

    def digest(self) -> bytes:
        """sha256 over the sorted ids of the members, for split-network detection."""
        return sha256(b"".join(sorted(self.members))).digest()


@dataclass(frozen=True, slots=True)
class HeartbeatHeard:
    """A valid heartbeat arrived."""

    node: NodeId
    heartbeat: Heartbeat
    now_ms: int


@dataclass(frozen=True, slots=True)
class CapabilityHeard:
    """A valid capability record arrived."""

    node: NodeId
    capability: Capability
    raw: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The clock moved."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class NodeAppeared:
    """Effect: a node is known, with a capability record, that was not before."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class NodeSuspected:
    """Effect: silent for SUSPECT_AFTER_MS."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class NodeDied:
    """Effect: silent for DEAD_AFTER_MS; forgotten."""

    node: NodeId


Stimulus = HeartbeatHeard | CapabilityHeard | TimePassed
Effect = NodeAppeared | NodeSuspected | NodeDied


def step(state: Presence, stimulus: Stimulus) -> tuple[Presence, list[Effect]]:
    """Apply one stimulus. Stale or excess records change nothing."""
    match stimulus:
        case HeartbeatHeard(node, heartbeat, now_ms):
            known = state.members.get(node)
            if known is None:
                return (state, []) if _full(state) else (_with(state, node, Member(now_ms, heartbeat=heartbeat)), [])
            if known.heartbeat is not None and heartbeat.sequence <= known.heartbeat.sequence:
                return state, []
            fresh = replace(known, seen_at_ms=now_ms, liveness=Liveness.ALIVE, heartbeat=heartbeat)
            return _with(state, node, fresh), []
        case CapabilityHeard(node, capability, raw, now_ms):
            known = state.members.get(node)
            if known is None:
                if _full(state):
                    return state, []
                known = Member(now_ms)
            elif known.capability is not None and capability.sequence <= known.capability.sequence:
                return state, []
            appeared: list[Effect] = [NodeAppeared(node)] if known.capability is None else []
            fresh = replace(
                known, seen_at_ms=now_ms, liveness=Liveness.ALIVE, capability=capability, capability_raw=raw
            )
            return _with(state, node, fresh), appeared
        case TimePassed(now_ms):
            return _age(state, now_ms)


def _full(state: Presence) -> bool:
    return len(state.members) >= PEERS_KNOWN_MAX


def _with(state: Presence, node: NodeId, member: Member) -> Presence:
    return Presence({**state.members, node: member})


def _age(state: Presence, now_ms: int) -> tuple[Presence, list[Effect]]:
    members: dict[NodeId, Member] = {}
    effects: list[Effect] = []
    for node, member in state.members.items():
        silence_ms = now_ms - member.seen_at_ms
        if silence_ms >= DEAD_AFTER_MS:
            effects.append(NodeDied(node))
        elif silence_ms >= SUSPECT_AFTER_MS and member.liveness is Liveness.ALIVE:
            effects.append(NodeSuspected(node))
            members[node] = replace(member, liveness=Liveness.SUSPECT)
        else:
            members[node] = member
    return (Presence(members), effects) if effects else (state, [])
