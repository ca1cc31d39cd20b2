"""Random cells: who hears the same changes in the same order, however late, raises no alarm; a lasting partition does,
in time, at every node of every part."""

from __future__ import annotations

from itertools import accumulate, cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyxnode.protocol.hashing import membership_digest
from cyxnode.protocol.limits import (
    DEAD_AFTER_MS,
    EXCHANGE_INTERVAL_S,
    HEARTBEAT_INTERVAL_MS,
    SPLIT_CLEARS_MS,
    SPLIT_EVIDENCE_MS,
    SPLIT_PERSISTS_MS,
    SPLIT_SHARE,
)
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler import split
from cyxnode.scheduler.split import AlarmCleared, AlarmRaised, DigestHeard, NodeFell, TimeCame

NODES = [NodeId(bytes([number]) * 32) for number in range(1, 25)]
ME, MATES, COMING = NODES[0], NODES[1:12], NODES[12:]
BEAT, ROUND = HEARTBEAT_INTERVAL_MS, int(EXCHANGE_INTERVAL_S * 1000)
NOTICED_MS = ROUND + SPLIT_PERSISTS_MS + 2 * BEAT
"""From the first moment at which the other part is spoken of."""
pytestmark = pytest.mark.slow

gaps = st.lists(st.integers(13_000, 30_000), min_size=6, max_size=16)
"""Between one change of the cell and the next: closer, a third of a small cell may fall at once."""


@given(gaps=gaps, lags=st.lists(st.integers(0, 45_000), min_size=11, max_size=11), order=st.permutations(COMING))
@settings(max_examples=60, deadline=None)
def test_changes_that_all_notice_in_one_order_raise_nothing(
    gaps: list[int], lags: list[int], order: list[NodeId]
) -> None:
    """One by one nodes come and go. Each mate notices each change `lag` later than we do, and loses some heartbeats."""
    present, times, views = set(MATES), [0, *accumulate(gaps)], [frozenset((ME, *MATES))]
    changes: list[tuple[int, NodeId, bool]] = []
    for at, node in zip(times[1:], cycle(order), strict=False):
        changes.append((at, node, node not in present))
        present ^= {node}
        views.append(frozenset((ME, *present)))
    state, said = split.whole(ME), list[split.Effect]()

    def view_at(moment: int) -> frozenset[NodeId]:
        return views[sum(at <= moment for at, _, _ in changes)]

    def feed(stimulus: split.Stimulus) -> None:
        nonlocal state
        state, effects = split.step(state, stimulus)
        said.extend(effects)

    for now in range(0, times[-1] + 120_000, 1_000):
        for at, node, comes in changes:
            if now - 1_000 < at <= now and not comes:
                feed(NodeFell(node, False, now))
        voices = [*MATES, *(view_at(now) - {ME, *MATES})]
        for number, node in enumerate(voices):
            lag = lags[number] if number < len(lags) else 0
            if (now // 1_000 + number) % 10 == 0 and (now // BEAT * 7 + number) % 5:
                feed(DigestHeard(node, membership_digest(view_at(now - lag)), False, now))
        if now % BEAT == 0:
            feed(TimeCame(now))
    assert [one for one in said if isinstance(one, AlarmRaised) and "not heard" in one.cause] == []


@given(
    cut=st.integers(2, 22), phase=st.integers(1, ROUND // BEAT), told=st.integers(2, 8), quiet_beats=st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_both_parts_of_a_partition_notice_in_time_and_calm_down_after_it(
    cut: int, phase: int, told: int, quiet_beats: int
) -> None:
    """Every ROUND each part is told of some of the other; every BEAT one hears one's own."""
    for part, other in ((NODES[:cut], NODES[cut:]), (NODES[cut:], NODES[:cut])):
        spoken_of = min(told, len(other))
        if spoken_of * SPLIT_SHARE < len(part) - 1 + spoken_of:
            continue  # fewer than a SPLIT_SHARE-th are not missed
        state, said, raised_at = split.whole(part[0]), list[split.Effect](), 0
        split_beats, beats = 6 + quiet_beats + NOTICED_MS // BEAT + 1, 0
        healed_beats = (SPLIT_EVIDENCE_MS + SPLIT_CLEARS_MS + DEAD_AFTER_MS) // BEAT + 2
        for beat in range(split_beats + healed_beats):
            beats, now, whole = beat, beat * BEAT, beat >= split_beats
            heard, view = (NODES, NODES) if whole else (part, part)
            stimuli = [DigestHeard(node, membership_digest(view), False, now) for node in heard if node != part[0]]
            if not whole and beat >= 6 + quiet_beats and (beat + phase) % (ROUND // BEAT) == 0:
                stimuli += [DigestHeard(node, membership_digest(other), True, now) for node in other[:told]]
            for stimulus in (*stimuli, TimeCame(now)):
                state, effects = split.step(state, stimulus)
                said += effects
                raised_at = raised_at or (now if effects else 0)
        assert [type(one) for one in said] == [AlarmRaised, AlarmCleared]
        assert 0 < raised_at <= (6 + quiet_beats) * BEAT + NOTICED_MS
        assert beats and not state.troubled
