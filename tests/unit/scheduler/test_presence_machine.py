"""Presence: who speaks lives, who is silent dies, and old words keep nobody alive."""

from __future__ import annotations

import msgspec

from cyxnode.protocol.limits import CLOCK_DRIFT_MS, CLOCK_TRUST_MS, DEAD_AFTER_MS, PEERS_KNOWN_MAX, SUSPECT_AFTER_MS
from cyxnode.protocol.messages import Capability, Heartbeat
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler import presence
from cyxnode.scheduler.presence import CapabilityHeard, HeartbeatHeard, Liveness, Presence, TimePassed
from sample_messages import MESSAGES

NODE = NodeId(b"n" * 32)
OFFER = next(message for message in MESSAGES if isinstance(message, Capability))
BEAT = next(message for message in MESSAGES if isinstance(message, Heartbeat))
BEAT_1 = msgspec.structs.replace(BEAT, sequence=1)


def beat(sequence: int, now_ms: int, node: NodeId = NODE, *, delay_ms: int = 0, told_ms: int = 0) -> HeartbeatHeard:
    heartbeat = msgspec.structs.replace(BEAT, sequence=sequence)
    return HeartbeatHeard(node, heartbeat, now_ms, delay_ms=delay_ms, told_ms=told_ms)


def offer(sequence: int, now_ms: int) -> CapabilityHeard:
    return CapabilityHeard(NODE, msgspec.structs.replace(OFFER, sequence=sequence), b"raw", now_ms)


def after(*stimuli: presence.Stimulus) -> tuple[Presence, list[presence.Effect]]:
    state = Presence()
    effects: list[presence.Effect] = []
    for stimulus in stimuli:
        state, effects = presence.step(state, stimulus)
    return state, effects


def test_a_node_is_known_with_its_first_capability_record() -> None:
    assert after(beat(1, 0))[0].alive() == {}
    state, effects = after(beat(1, 0), offer(1, 5))
    assert set(state.alive()) == {NODE}
    assert effects == [presence.NodeAppeared(NODE)]


def test_silence_makes_suspect_and_then_dead() -> None:
    state, effects = after(offer(1, 0), TimePassed(SUSPECT_AFTER_MS))
    assert effects == [presence.NodeSuspected(NODE)]
    assert state.members[NODE].liveness is Liveness.SUSPECT
    assert presence.step(state, TimePassed(SUSPECT_AFTER_MS + 1))[1] == []
    assert presence.step(state, beat(2, SUSPECT_AFTER_MS + 2))[0].members[NODE].liveness is Liveness.ALIVE
    state, effects = presence.step(state, TimePassed(DEAD_AFTER_MS))
    assert effects == [presence.NodeDied(NODE)]
    assert not state.members


def test_replayed_words_keep_nobody_alive() -> None:
    old: list[presence.Stimulus] = [beat(9, 25_000), beat(8, 26_000), offer(9, 27_000), offer(3, 28_000)]
    state, effects = after(offer(9, 0), beat(9, 0), *old, TimePassed(30_000))
    assert effects == [presence.NodeDied(NODE)]
    assert not state.members


def test_what_others_tell_is_as_old_as_they_say() -> None:
    state, _ = after(beat(1, 100_000, told_ms=12_000), offer(1, 100_000))
    assert state.members[NODE].seen_at_ms == 100_000, "the offer came first-hand"
    state, _ = after(beat(1, 100_000, told_ms=25_000))
    assert state.members[NODE] == presence.Member(75_000, Liveness.SUSPECT, BEAT_1)
    assert presence.step(state, TimePassed(105_000))[1] == [presence.NodeDied(NODE)]
    assert after(beat(1, 100_000, told_ms=DEAD_AFTER_MS))[0].members == {}


def test_a_bootstrap_node_remembers_whom_it_was_told_of_too_late() -> None:
    state, effects = presence.step(Presence(forget_after_ms=90_000), beat(1, 100_000, told_ms=40_000))
    assert state.members[NODE].liveness is Liveness.DEAD
    assert effects == []


def test_a_lie_about_its_silence_makes_a_record_no_younger_than_its_signature() -> None:
    state, _ = after(beat(1, 100_000, delay_ms=25_000, told_ms=0))
    assert state.members[NODE].seen_at_ms == 75_000 + CLOCK_TRUST_MS
    state, _ = after(beat(1, 60_000, delay_ms=40), beat(2, 100_000, delay_ms=25_040, told_ms=0))
    assert state.members[NODE].seen_at_ms == 75_000 + CLOCK_DRIFT_MS, "its clock was known"


def test_a_slow_clock_is_learned_and_a_fast_one_known_at_once() -> None:
    slow = [beat(n, 10_000 * n, delay_ms=25_000) for n in range(1, 20)]
    state, _ = after(*slow)
    assert state.members[NODE].lag_ms == 25_000
    assert state.members[NODE].seen_at_ms == 190_000
    fast = [beat(n, 10_000 * n, delay_ms=-25_000) for n in range(1, 3)]
    late = beat(3, 40_000, delay_ms=-15_000)
    assert after(*fast, late)[0].members[NODE].seen_at_ms == 30_000 + CLOCK_DRIFT_MS


def test_an_old_record_does_not_make_a_member_look_older() -> None:
    state, _ = after(beat(1, 100_000), offer(1, 101_000))
    again = CapabilityHeard(NODE, msgspec.structs.replace(OFFER, sequence=2), b"raw", 102_000, delay_ms=80_000)
    assert presence.step(state, again)[0].members[NODE].seen_at_ms == 101_000


def test_no_more_than_the_bound_are_known() -> None:
    members = {NodeId(n.to_bytes(32, "big")): presence.Member(0) for n in range(PEERS_KNOWN_MAX)}
    full = Presence(members)
    assert presence.step(full, beat(1, 0))[0] is full
    assert presence.step(full, offer(1, 0))[0] is full


def test_who_hears_seldom_remembers_the_dead_but_does_not_count_them() -> None:
    state, _ = presence.step(Presence(forget_after_ms=90_000), offer(1, 0))
    state, effects = presence.step(state, TimePassed(DEAD_AFTER_MS))
    assert effects == [presence.NodeDied(NODE)]
    assert NODE in state.members
    assert state.alive() == {}
    back, effects = presence.step(state, presence.Met(NODE, DEAD_AFTER_MS + 1))
    assert effects == [presence.NodeAppeared(NODE)]
    assert set(back.alive()) == {NODE}
    assert presence.step(state, TimePassed(90_000)) == (Presence(forget_after_ms=90_000), [])


def test_a_request_of_its_own_keeps_a_node_alive_and_makes_nobody_known() -> None:
    assert after(presence.Met(NODE, 5))[0].members == {}
    assert after(offer(1, 0), presence.Met(NODE, 25_000), TimePassed(DEAD_AFTER_MS))[1] == []


def test_who_moves_to_another_cell_loses_sight_of_others_without_a_death() -> None:
    other = NodeId(b"o" * 32)
    state, effects = after(offer(1, 0), beat(1, 0, other), presence.CellChanged(frozenset({other})))
    assert set(state.members) == {other}
    assert effects == []


def test_the_next_wake_is_the_next_silence_that_matters() -> None:
    assert Presence().next_wake_ms() is None
    state, _ = after(offer(1, 100), beat(1, 50, NodeId(b"o" * 32)))
    assert state.next_wake_ms() == 50 + SUSPECT_AFTER_MS
    assert presence.step(state, TimePassed(150 + SUSPECT_AFTER_MS))[0].next_wake_ms() == 50 + DEAD_AFTER_MS
