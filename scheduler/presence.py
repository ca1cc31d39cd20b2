"""Who is alive, by what they said and when we heard it (DESIGN 3).

Rule 1: a node is ALIVE when heard, SUSPECT after SUSPECT_AFTER_MS of silence, DEAD after DEAD_AFTER_MS, and forgotten
after `forget_after_ms`. Whoever hears of nodes only now and then, as a bootstrap node does, remembers the dead longer.
Rule 2: only a rising sequence counts, or a node's own request: old messages replayed by others keep nobody alive.
Rule 3: a record speaks for the moment at which it was signed, not for that of its arrival (`age_ms`). What comes late,
or from others, counts as old as it is, so the silence of a dead node lasts DEAD_AFTER_MS whoever speaks of it.
Pure: `now_ms` is the caller's monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from ..protocol.limits import CLOCK_DRIFT_MS, CLOCK_TRUST_MS, DEAD_AFTER_MS, PEERS_KNOWN_MAX, SUSPECT_AFTER_MS
from ..protocol.messages import Capability, Heartbeat
from ..protocol.units import NodeId


class Liveness(Enum):
    """What silence makes of a member."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Member:
    """A node as last heard. The raw ones are its signed envelopes, good to hand on. `lag_ms` is by how much its clock
    is behind ours, as far as its messages tell: the least delay with which one came."""

    seen_at_ms: int
    liveness: Liveness = Liveness.ALIVE
    heartbeat: Heartbeat | None = None
    capability: Capability | None = None
    capability_raw: bytes = b""
    heartbeat_raw: bytes = b""
    lag_ms: int = 0


_STRANGER = Member(0)
"""Who is not known."""


@dataclass(frozen=True, slots=True)
class Presence:
    """All members that are not forgotten."""

    members: Mapping[NodeId, Member] = field(default_factory=dict)
    forget_after_ms: int = DEAD_AFTER_MS

    def alive(self) -> dict[NodeId, Member]:
        """Members heard recently enough to work with, suspects included."""
        return {node: member for node, member in self.members.items() if _counts(member)}

    def next_wake_ms(self) -> int | None:
        """When silence changes something at the earliest; None while there is no member."""
        due = [member.seen_at_ms + self._patience_ms(member) for member in self.members.values()]
        return min(due, default=None)

    def _patience_ms(self, member: Member) -> int:
        if member.liveness is Liveness.ALIVE:
            return SUSPECT_AFTER_MS
        return DEAD_AFTER_MS if member.liveness is Liveness.SUSPECT else self.forget_after_ms


@dataclass(frozen=True, slots=True)
class HeartbeatHeard:
    """A valid heartbeat arrived, `delay_ms` after its timestamp by our clock. Who handed it on says that its author has
    been silent for `told_ms`: 0 in gossip."""

    node: NodeId
    heartbeat: Heartbeat
    now_ms: int
    raw: bytes = b""
    delay_ms: int = 0
    told_ms: int = 0


@dataclass(frozen=True, slots=True)
class Met:
    """A node spoke to us directly."""

    node: NodeId
    now_ms: int


@dataclass(frozen=True, slots=True)
class CellChanged:
    """We moved: who is not in `keep` is no longer in our sight, which says nothing about its life."""

    keep: frozenset[NodeId]


@dataclass(frozen=True, slots=True)
class CapabilityHeard:
    """A valid capability record arrived; see HeartbeatHeard."""

    node: NodeId
    capability: Capability
    raw: bytes
    now_ms: int
    delay_ms: int = 0
    told_ms: int = 0


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
    """Effect: silent for DEAD_AFTER_MS."""

    node: NodeId


Stimulus = HeartbeatHeard | CapabilityHeard | Met | CellChanged | TimePassed
Effect = NodeAppeared | NodeSuspected | NodeDied


def step(state: Presence, stimulus: Stimulus) -> tuple[Presence, list[Effect]]:
    """Apply one stimulus. Stale or excess records change nothing."""
    match stimulus:
        case HeartbeatHeard(node, heartbeat, now_ms, raw, delay_ms, told_ms):
            known = state.members.get(node, _STRANGER)
            if known.heartbeat is not None and heartbeat.sequence <= known.heartbeat.sequence:
                return state, []
            seen_at_ms, lag_ms = _times(known, now_ms, delay_ms, told_ms)
            liveness = _liveness(now_ms - seen_at_ms)
            offer, offer_raw = known.capability, known.capability_raw
            fresh = Member(seen_at_ms, liveness, heartbeat, offer, offer_raw, raw, lag_ms)
            return _placed(state, node, known, fresh, now_ms)
        case CapabilityHeard(node, capability, raw, now_ms, delay_ms, told_ms):
            known = state.members.get(node, _STRANGER)
            if known.capability is not None and capability.sequence <= known.capability.sequence:
                return state, []
            seen_at_ms, lag_ms = _times(known, now_ms, delay_ms, told_ms)
            liveness = _liveness(now_ms - seen_at_ms)
            fresh = Member(seen_at_ms, liveness, known.heartbeat, capability, raw, known.heartbeat_raw, lag_ms)
            return _placed(state, node, known, fresh, now_ms)
        case Met(node, now_ms):
            met = state.members.get(node)
            if met is None:
                return state, []
            fresh = replace(met, seen_at_ms=now_ms, liveness=Liveness.ALIVE)
            return _with(state, node, fresh), _appeared(node, met, fresh)
        case CellChanged(keep):
            return _only(state, {node: member for node, member in state.members.items() if node in keep}), []
        case TimePassed(now_ms):
            return _age(state, now_ms)


def age_ms(lag_ms: int, delay_ms: int, told_ms: int) -> int:
    """How long ago the author of a record that came `delay_ms` after its timestamp signed it: at least."""
    return max(told_ms, delay_ms - lag_ms, 0)


def _times(known: Member, now_ms: int, delay_ms: int, told_ms: int) -> tuple[int, int]:
    """When the author of a new record last spoke, and by how much its clock lags.

    Of the first record nobody knows whether it is old or its author's clock slow; up to CLOCK_TRUST_MS it is the clock.
    """
    stranger = known is _STRANGER
    lag_ms = min(delay_ms, CLOCK_TRUST_MS if stranger else known.lag_ms + CLOCK_DRIFT_MS)
    spoke_at_ms = now_ms - age_ms(lag_ms, delay_ms, told_ms)
    return spoke_at_ms if stranger else max(known.seen_at_ms, spoke_at_ms), lag_ms


def _placed(state: Presence, node: NodeId, before: Member, after: Member, now_ms: int) -> tuple[Presence, list[Effect]]:
    """The state with a member as it is now known, unless it would be forgotten at once or is one too many."""
    forgotten = now_ms - after.seen_at_ms >= state.forget_after_ms
    if before is _STRANGER and (forgotten or len(state.members) >= PEERS_KNOWN_MAX):
        return state, []
    return _with(state, node, after), _appeared(node, before, after)


def _liveness(silence_ms: int) -> Liveness:
    if silence_ms < SUSPECT_AFTER_MS:
        return Liveness.ALIVE
    return Liveness.SUSPECT if silence_ms < DEAD_AFTER_MS else Liveness.DEAD


def _appeared(node: NodeId, before: Member, after: Member) -> list[Effect]:
    return [NodeAppeared(node)] if _counts(after) and not _counts(before) else []


def _counts(member: Member) -> bool:
    """Whether somebody can work with it."""
    return member.capability is not None and member.liveness is not Liveness.DEAD


def _with(state: Presence, node: NodeId, member: Member) -> Presence:
    return _only(state, {**state.members, node: member})


def _only(state: Presence, members: Mapping[NodeId, Member]) -> Presence:
    return Presence(members, state.forget_after_ms)


def _age(state: Presence, now_ms: int) -> tuple[Presence, list[Effect]]:
    members: dict[NodeId, Member] = {}
    effects: list[Effect] = []
    for node, member in state.members.items():
        silence_ms = now_ms - member.seen_at_ms
        if silence_ms >= DEAD_AFTER_MS and member.liveness is not Liveness.DEAD:
            effects.append(NodeDied(node))
            member = replace(member, liveness=Liveness.DEAD)
        elif silence_ms >= SUSPECT_AFTER_MS and member.liveness is Liveness.ALIVE:
            effects.append(NodeSuspected(node))
            member = replace(member, liveness=Liveness.SUSPECT)
        if silence_ms < max(DEAD_AFTER_MS, state.forget_after_ms):
            members[node] = member
    changed = effects or len(members) < len(state.members)
    return (_only(state, members), effects) if changed else (state, [])
