"""The split-network alarm: what raises it, what does not, and what ends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cyxnode.protocol.hashing import membership_digest
from cyxnode.protocol.limits import (
    DEAD_AFTER_MS,
    HEARTBEAT_INTERVAL_MS,
    PEERS_KNOWN_MAX,
    SPLIT_CLEARS_MS,
    SPLIT_EVIDENCE_MS,
    SPLIT_LOSS_FORGOTTEN_MS,
    SPLIT_LOSS_MIN,
    SPLIT_MEMORY_MS,
    SPLIT_PERSISTS_MS,
    SPLIT_VIEWS_MAX,
)
from cyxnode.protocol.units import NodeId
from cyxnode.scheduler import split
from cyxnode.scheduler.split import AlarmCleared, AlarmRaised, DigestHeard, NodeFell, Split, TimeCame

ME, *OTHERS = [NodeId(bytes([number]) * 32) for number in range(13)]
HERE, THERE = OTHERS[:6], OTHERS[6:]
BEAT = HEARTBEAT_INTERVAL_MS


class Watched:
    """A machine and all that it said, on a clock of its own."""

    def __init__(self) -> None:
        self.state, self.now_ms, self.said = split.whole(ME), 0, list[split.Effect]()

    def feed(self, *stimuli: split.Stimulus) -> None:
        for stimulus in stimuli:
            self.state, effects = split.step(self.state, stimulus)
            self.said += effects

    def hear(self, nodes: Iterable[NodeId], view: Iterable[NodeId], *, told: bool = False) -> None:
        digest = membership_digest(view)
        self.feed(*(DigestHeard(node, digest, told, self.now_ms) for node in nodes))

    def live(self, for_ms: int, nodes: Iterable[NodeId], strangers: Iterable[NodeId] = ()) -> None:
        """Everybody here says that all of us are here; `strangers` are told of, and say so of themselves."""
        nodes, strangers = list(nodes), list(strangers)
        for _ in range(for_ms // BEAT):
            self.now_ms += BEAT
            self.hear(nodes, [ME, *nodes])
            self.hear(strangers, strangers, told=True)
            self.feed(TimeCame(self.now_ms))

    def kinds(self) -> list[type[split.Effect]]:
        return [type(one) for one in self.said]


def test_a_whole_cell_is_quiet_for_ever() -> None:
    cell = Watched()
    cell.live(3_600_000, OTHERS)
    assert cell.said == [] and cell.state.differing == 0 and not cell.state.troubled


def test_halves_of_which_others_tell_raise_the_alarm_and_their_union_clears_it() -> None:
    cell = Watched()
    cell.live(60_000, HERE)
    cell.live(SPLIT_PERSISTS_MS, HERE, THERE)
    assert cell.said == [] and set(cell.state.strangers) == set(THERE), "it is healed before it is told"
    cell.live(2 * BEAT, HERE, THERE)
    assert cell.kinds() == [AlarmRaised]
    assert "6 of 12 nodes of this cell" in cell.said[0].cause  # type: ignore[union-attr]
    cell.live(SPLIT_EVIDENCE_MS, HERE, THERE)
    assert cell.kinds() == [AlarmRaised], "once"
    cell.live(SPLIT_CLEARS_MS + 3 * BEAT, OTHERS)
    assert cell.kinds() == [AlarmRaised, AlarmCleared]
    assert cell.state.alarm is None and not cell.state.troubled


def test_one_liar_raises_nothing() -> None:
    cell = Watched()
    for _ in range(100):
        cell.live(BEAT, OTHERS)
        cell.hear(OTHERS[:1], [], told=False)
        cell.feed(TimeCame(cell.now_ms))
    assert cell.said == [] and cell.state.differing == 1


def test_two_alone_notice_that_they_hear_others_than_each_other() -> None:
    cell = Watched()
    cell.live(SPLIT_PERSISTS_MS + 2 * BEAT, [], THERE[:1])
    assert cell.kinds() == [AlarmRaised]


def test_a_view_of_late_and_a_view_to_come_explain_a_digest() -> None:
    cell = Watched()
    cell.live(60_000, HERE)
    before, later = [ME, *HERE], [ME, *HERE, THERE[0]]
    cell.hear(HERE[:1], later)
    assert cell.state.differing == 1
    cell.hear(THERE[:1], later)
    assert cell.state.differing == 0
    cell.now_ms += SPLIT_MEMORY_MS - 1
    cell.hear(HERE[:1], before)
    assert cell.state.differing == 0
    cell.now_ms += 1
    cell.hear(HERE[:1], before)
    assert cell.state.differing == 1


def test_a_cut_is_noticed_although_no_digest_comes_from_beyond() -> None:
    cell = Watched()
    cell.live(60_000, OTHERS)
    cell.live(DEAD_AFTER_MS + BEAT, HERE)
    assert cell.kinds() == [AlarmRaised] and cell.state.missing == frozenset(THERE)
    assert "6 of 12 nodes of this cell fell silent" in cell.said[0].cause  # type: ignore[union-attr]
    cell.live(SPLIT_CLEARS_MS + 2 * BEAT, OTHERS)
    assert cell.kinds() == [AlarmRaised, AlarmCleared] and not cell.state.missing


def test_those_that_never_come_back_are_taken_for_gone() -> None:
    cell = Watched()
    cell.live(60_000, OTHERS)
    cell.live(DEAD_AFTER_MS + SPLIT_LOSS_FORGOTTEN_MS + SPLIT_CLEARS_MS + 3 * BEAT, HERE)
    assert cell.kinds() == [AlarmRaised, AlarmCleared]


def test_few_deaths_or_deaths_far_apart_are_no_split() -> None:
    few, apart = Watched(), Watched()
    few.live(60_000, OTHERS)
    few.live(600_000, OTHERS[SPLIT_LOSS_MIN:])
    assert few.said == [], "three of twelve"
    apart.live(60_000, OTHERS)
    for count in range(1, 12):
        apart.live(30_000, OTHERS[count:])
    assert apart.said == []


def test_who_stood_still_has_lost_nobody_and_hearsay_that_runs_out_is_no_loss() -> None:
    cell = Watched()
    cell.live(60_000, OTHERS)
    cell.feed(*(NodeFell(node, True, cell.now_ms) for node in OTHERS), TimeCame(cell.now_ms))
    assert cell.said == [] and not cell.state.voices and cell.state.digest == membership_digest([ME])
    cell.hear(THERE, THERE, told=True)
    cell.feed(*(NodeFell(node, False, cell.now_ms) for node in THERE), TimeCame(cell.now_ms))
    assert cell.said == [] and not cell.state.missing
    assert set(cell.state.opinions) == set(THERE), "they differ, and may well live"


def test_a_digest_over_another_cell_is_a_voice_and_no_opinion() -> None:
    cell = Watched()
    cell.feed(*(DigestHeard(node, None, False, 0) for node in OTHERS))
    assert set(cell.state.voices) == set(OTHERS) and not cell.state.opinions


def test_everything_that_is_remembered_is_bounded() -> None:
    state = Split(ME, membership_digest([ME]))
    many = {NodeId(number.to_bytes(32, "big")): 0 for number in range(PEERS_KNOWN_MAX)}
    full = replace(state, voices=many)
    assert split.step(full, DigestHeard(OTHERS[0], b"", False, 0))[0] is full
    for number in range(SPLIT_VIEWS_MAX + 10):
        state, _ = split.step(state, DigestHeard(NodeId(number.to_bytes(32, "big")), b"", False, number))
    assert len(state.views) == SPLIT_VIEWS_MAX
