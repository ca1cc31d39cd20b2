"""When a silent peer is asked, and when it is given up."""

from __future__ import annotations

import warnings

from hypothesis import given
from hypothesis import strategies as st

from cyxnode.protocol.limits import CONNECTION_SILENCE_MAX_S, PULSE_INTERVAL_S, SUSPECT_AFTER_MS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cyxnode.p2p.pulse import Act, Silence


def looks(*times: tuple[float, float]) -> list[Act]:
    silence = Silence(0.0, 0.0)
    return [silence.look(now_s, heard_s) for now_s, heard_s in times]


def test_a_peer_that_speaks_is_left_alone() -> None:
    assert looks(*((4.0 * turn, 4.0 * turn - 1) for turn in range(1, 20))) == [Act.NOTHING] * 19


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    assert looks((4, 3), (8, 3), (12, 3), (16, 3), (20, 3)) == [Act.NOTHING, Act.ASK, Act.ASK, Act.ASK, Act.HANG_UP]


def test_an_answer_begins_the_silence_anew() -> None:
    assert looks((4, 0), (8, 0), (12, 0), (16, 15.9), (20, 15.9), (24, 15.9)) == [
        Act.ASK, Act.ASK, Act.ASK, Act.NOTHING, Act.ASK, Act.ASK,
    ]  # fmt: skip


def test_who_stood_still_itself_asks_before_it_hangs_up() -> None:
    """A process that was stopped for a minute, or a machine that slept, has not yet read what came meanwhile."""
    assert looks((4, 3), (64, 3), (68, 64.1)) == [Act.NOTHING, Act.ASK, Act.NOTHING]
    assert looks((4, 3), (64, 3), (68, 3), (72, 3), (76, 3)) == [Act.NOTHING, Act.ASK, Act.ASK, Act.ASK, Act.HANG_UP]


@given(st.floats(0, 3.999), st.floats(0, 0.5))
def test_silence_is_noticed_before_presence_suspects_anybody(heard_s: float, late_s: float) -> None:
    silence, now_s = Silence(0.0, -1.0), 0.0
    for _ in range(100):
        now_s += PULSE_INTERVAL_S
        if silence.look(now_s, heard_s) is Act.HANG_UP:
            break
    assert CONNECTION_SILENCE_MAX_S - PULSE_INTERVAL_S <= now_s - heard_s <= SUSPECT_AFTER_MS / 1000
