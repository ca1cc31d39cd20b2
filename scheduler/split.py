"""Notices when nodes of a cell that should hear one another do not: the split-network alarm (DESIGN 3).

Rule 1: our view is who is heard: ourselves and those whose heartbeat came by gossip within DEAD_AFTER_MS. Whom others
only tell of is not in it, or two halves that share a bootstrap node would look like one.
Rule 2: a digest agrees with us when it equals a view that we have had in the last SPLIT_MEMORY_MS, or come to have.
Joins and deaths are noticed at different moments, but in about the same order; a member of another part sees nothing
that we ever see. Of each node the latest digest counts, for SPLIT_EVIDENCE_MS.
Rule 3: the alarm is raised when a SPLIT_SHARE-th of those who said something, and SPLIT_DIFFERING_MIN at least, have
differed for SPLIT_PERSISTS_MS without a break; a single liar or latecomer raises none.
Rule 4: it is raised, too, when a SPLIT_LOSS_SHARE-th of those heard, and SPLIT_LOSS_MIN at least, falls silent within
SPLIT_LOSS_WINDOW_MS: from a part that cannot be reached at all no digest comes. It lasts until they are back, or
SPLIT_LOSS_FORGOTTEN_MS: then they are taken for gone.
Rule 5: it is cleared when neither has been so for SPLIT_CLEARS_MS.
Pure: `now_ms` is the caller's monotonic clock; one cell, one state.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from ..protocol.hashing import membership_digest
from ..protocol.limits import (
    DEAD_AFTER_MS,
    PEERS_KNOWN_MAX,
    SPLIT_CLEARS_MS,
    SPLIT_DIFFERING_MIN,
    SPLIT_EVIDENCE_MS,
    SPLIT_LOSS_FORGOTTEN_MS,
    SPLIT_LOSS_MIN,
    SPLIT_LOSS_SHARE,
    SPLIT_LOSS_WINDOW_MS,
    SPLIT_MEMORY_MS,
    SPLIT_PERSISTS_MS,
    SPLIT_SHARE,
    SPLIT_VIEWS_MAX,
)
from ..protocol.units import NodeId


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a node said last of who is heard. `told`: it came in somebody's answer, not by gossip."""

    digest: bytes
    heard_at_ms: int
    agrees: bool
    told: bool


@dataclass(frozen=True, slots=True)
class Alarm:
    """The network looks split since `since_ms`; `cause` in words."""

    since_ms: int
    cause: str


@dataclass(frozen=True, slots=True)
class Split:
    """What `me` knows of its cell being whole. `voices` are those heard by gossip, and when; `views` our digests and
    until when we had them; `fallen`, who fell silent and when; `missing`, the loss that the alarm is about."""

    me: NodeId
    digest: bytes
    voices: Mapping[NodeId, int] = field(default_factory=dict)
    views: Mapping[bytes, int] = field(default_factory=dict)
    opinions: Mapping[NodeId, Opinion] = field(default_factory=dict)
    fallen: Mapping[NodeId, int] = field(default_factory=dict)
    missing: frozenset[NodeId] = frozenset()
    missed_at_ms: int = 0
    differing_since_ms: int | None = None
    calm_since_ms: int | None = None
    alarm: Alarm | None = None

    @property
    def differing(self) -> int:
        """How many nodes hear others than we do."""
        return sum(1 for one in self.opinions.values() if not one.agrees)

    @property
    def strangers(self) -> list[NodeId]:
        """Nodes of which we are only told, and that hear others than we do: somebody should dial them."""
        return [node for node, one in self.opinions.items() if one.told and not one.agrees]

    @property
    def troubled(self) -> bool:
        """Whether there is something to heal."""
        return self.alarm is not None or bool(self.strangers)


def whole(me: NodeId) -> Split:
    """A node that has heard nobody yet."""
    return Split(me, membership_digest([me]))


@dataclass(frozen=True, slots=True)
class DigestHeard:
    """A new heartbeat of a node of our cell, by gossip, or `told` by somebody. `digest` is None when it is over another
    cell than ours: some notice before others that the class has outgrown its cells."""

    node: NodeId
    digest: bytes | None
    told: bool
    now_ms: int


@dataclass(frozen=True, slots=True)
class NodeFell:
    """A member died of silence. `ours`: we stood still ourselves meanwhile, so that it says nothing about others."""

    node: NodeId
    ours: bool
    now_ms: int


@dataclass(frozen=True, slots=True)
class TimeCame:
    """To judge: about once in HEARTBEAT_INTERVAL_MS."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class AlarmRaised:
    """Effect: tell the user, and heal."""

    cause: str


@dataclass(frozen=True, slots=True)
class AlarmCleared:
    """Effect: tell the user. It lasted for `lasted_ms`."""

    lasted_ms: int


Stimulus = DigestHeard | NodeFell | TimeCame
Effect = AlarmRaised | AlarmCleared


def step(state: Split, stimulus: Stimulus) -> tuple[Split, list[Effect]]:
    """Apply one stimulus."""
    match stimulus:
        case DigestHeard(node, digest, told, now_ms):
            return _heard(state, node, digest, told, now_ms), []
        case NodeFell(node, ours, now_ms):
            return _without(state, [node], now_ms, lost=not ours), []
        case TimeCame(now_ms):
            mute = [node for node, at in state.voices.items() if now_ms - at >= DEAD_AFTER_MS]
            return _judged(_loss(_fresh(_without(state, mute, now_ms, lost=True), now_ms), now_ms), now_ms)
        case _:
            assert_never(stimulus)


def _heard(state: Split, node: NodeId, digest: bytes | None, told: bool, now_ms: int) -> Split:
    known = node in state.voices
    if not known and len({**state.voices, **state.opinions}) >= PEERS_KNOWN_MAX:
        return state
    if not told:
        voices = {**state.voices, node: now_ms}
        state = replace(state, voices=voices) if known else _viewed(state, voices, now_ms)
    if digest is None:
        return replace(state, opinions={name: one for name, one in state.opinions.items() if name != node})
    agrees = digest == state.digest or now_ms - state.views.get(digest, now_ms - SPLIT_MEMORY_MS) < SPLIT_MEMORY_MS
    return replace(state, opinions={**state.opinions, node: Opinion(digest, now_ms, agrees, told)})


def _without(state: Split, nodes: Collection[NodeId], now_ms: int, *, lost: bool) -> Split:
    """The state without what those of `nodes` said that we heard; that others tell of one no more is neither a loss nor
    a reason to forget what it said."""
    gone = [node for node in nodes if node in state.voices]
    if not gone:
        return state
    state = replace(state, opinions={node: one for node, one in state.opinions.items() if node not in gone})
    fallen = {**state.fallen, **dict.fromkeys(gone, now_ms)} if lost else state.fallen
    voices = {node: at for node, at in state.voices.items() if node not in gone}
    return _viewed(replace(state, fallen=fallen), voices, now_ms)


def _viewed(state: Split, voices: Mapping[NodeId, int], now_ms: int) -> Split:
    """Others are heard now: our view is another, and may explain what was said before."""
    digest = membership_digest([state.me, *voices])
    views = {view: until for view, until in state.views.items() if now_ms - until < SPLIT_MEMORY_MS}
    views.pop(state.digest, None)
    views[state.digest] = now_ms
    while len(views) > SPLIT_VIEWS_MAX:
        del views[next(iter(views))]
    opinions = {
        node: replace(one, agrees=True) if one.digest == digest and not one.agrees else one
        for node, one in state.opinions.items()
    }
    return replace(state, voices=voices, digest=digest, views=views, opinions=opinions)


def _fresh(state: Split, now_ms: int) -> Split:
    """Without what is too old to count."""
    opinions = {node: one for node, one in state.opinions.items() if now_ms - one.heard_at_ms < SPLIT_EVIDENCE_MS}
    fallen = {node: at for node, at in state.fallen.items() if now_ms - at < SPLIT_LOSS_WINDOW_MS}
    return replace(state, opinions=opinions, fallen=fallen)


def _loss(state: Split, now_ms: int) -> Split:
    """Rule 4."""
    fallen, missing = state.fallen.keys() - state.voices.keys(), state.missing - state.voices.keys()
    if len(fallen) >= SPLIT_LOSS_MIN and len(fallen) * SPLIT_LOSS_SHARE >= len(fallen) + len(state.voices):
        return replace(state, missing=missing | fallen, missed_at_ms=now_ms)
    over = now_ms - state.missed_at_ms >= SPLIT_LOSS_FORGOTTEN_MS
    few = len(missing) * SPLIT_LOSS_SHARE < len(missing) + len(state.voices)
    return replace(state, missing=frozenset() if over or few else missing)


def _judged(state: Split, now_ms: int) -> tuple[Split, list[Effect]]:
    """Rules 3 and 5."""
    said, differing = len(state.opinions), state.differing
    apart = differing >= max(1, min(SPLIT_DIFFERING_MIN, said)) and differing * SPLIT_SHARE >= said
    since = (now_ms if state.differing_since_ms is None else state.differing_since_ms) if apart else None
    apart_ms = 0 if since is None else now_ms - since
    troubled = apart_ms >= SPLIT_PERSISTS_MS or bool(state.missing)
    calm = None if troubled else now_ms if state.calm_since_ms is None else state.calm_since_ms
    state = replace(state, differing_since_ms=since, calm_since_ms=calm)
    if troubled:
        cause = _cause(state, apart_ms)
        since_ms = now_ms if state.alarm is None else state.alarm.since_ms
        raised = [AlarmRaised(cause)] if state.alarm is None else []
        return replace(state, alarm=Alarm(since_ms, cause)), [*raised]
    if state.alarm is not None and calm is not None and now_ms - calm >= SPLIT_CLEARS_MS:
        return replace(state, alarm=None), [AlarmCleared(now_ms - state.alarm.since_ms)]
    return state, []


def _cause(state: Split, apart_ms: int) -> str:
    if apart_ms >= SPLIT_PERSISTS_MS:
        return (
            f"{state.differing} of {len(state.opinions)} nodes of this cell have not heard the same nodes as this one "
            f"for {apart_ms // 1000} s"
        )
    whole = len(state.missing) + len(state.voices)
    return f"{len(state.missing)} of {whole} nodes of this cell fell silent within {SPLIT_LOSS_WINDOW_MS // 1000} s"
