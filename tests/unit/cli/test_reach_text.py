"""What operators read about how they can be reached, and when it is said."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from cyxnode.cli.checks_reach import ReachChecks
from cyxnode.cli.checkup import Level
from cyxnode.cli.reach_text import tell_changes, told
from cyxnode.p2p.reach_figures import ReachReport
from cyxnode.p2p.reachability import Mapping, Verdict
from cyxnode.protocol.units import NodeId

YES, NO, MAYBE = Verdict.REACHABLE, Verdict.UNREACHABLE, Verdict.UNKNOWN
RELAY = NodeId(b"\1" * 32)


def report(
    verdict: Verdict,
    leaning: Verdict | None = None,
    relays: int = 0,
    seen: str = "11.0.0.9",
    mapping: Mapping = Mapping.STEADY,
) -> ReachReport:
    return ReachReport(verdict, leaning or verdict, mapping, (RELAY,) * relays, (seen,))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (ReachReport(), "not known yet"),
        (report(YES), "reachable from the internet at 11.0.0.9: every peer can give it work"),
        (report(YES, seen="127.0.0.1"), "reachable on this machine"),
        (report(YES, seen="192.168.0.4"), "reachable in this network"),
        (report(MAYBE, YES), "says the one peer that has tried: every"),
        (report(NO, relays=1), "a relay carries connections to it: it earns, but slower"),
        (report(NO, relays=2), "; relays carry connections"),
        (report(NO), "expect to earn little; forward a TCP port"),
    ],
)
def test_the_line_says_who_can_dial_and_what_that_means(given: ReachReport, words: str) -> None:
    assert words in told(given)
    assert "\n" not in told(given)


class Changing:
    """A transport whose report a test changes."""

    def __init__(self) -> None:
        self.reach_report, self.reach_changed = ReachReport(), trio.Event()

    def change(self, now: ReachReport) -> None:
        self.reach_report = now
        self.reach_changed.set()
        self.reach_changed = trio.Event()


async def test_a_change_is_said_once_and_new_addresses_are_announced(autojump_clock: object) -> None:
    transport, said = Changing(), list[str]()
    announced = 0

    async def announce() -> None:
        nonlocal announced
        announced += 1
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_changes, transport, said.append, announce)
        await trio.testing.wait_all_tasks_blocked()
        for now in (report(NO), report(NO, relays=1)):
            transport.change(now)
            await trio.testing.wait_all_tasks_blocked()
        assert (said, announced) == ([], 1)
        for now in (report(NO, relays=1, mapping=Mapping.CHANGING), report(YES)):
            transport.change(now)
            await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [line.split(";")[0] for line in said] == ["not reachable from the internet", told(report(YES))]
    assert announced == 2


@pytest.mark.parametrize(
    ("given", "port", "levels", "words"),
    [
        (report(YES, mapping=Mapping.NONE), 4001, ["ok", "ok"], "reachable from the internet"),
        (report(YES), 0, ["warning", "ok"], "each start takes another port"),
        (report(NO, relays=1), 4001, ["warning", "ok", "ok"], "did not get through"),
        (report(NO, mapping=Mapping.CHANGING), 4001, ["warning", "warning", "warning"], "no relay has a place"),
        (report(MAYBE, NO, relays=1), 4001, ["warning", "ok", "ok"], "the one peer that tried"),
        (ReachReport(), 4001, ["warning"], "none of 2 peers"),
    ],
)
def test_the_doctor_names_a_fix_for_whatever_is_not_well(
    given: ReachReport, port: int, levels: list[str], words: str
) -> None:
    checks = ReachChecks(lambda: pytest.fail("nothing is opened"), tuple, f"0.0.0.0:{port}", port)
    found = checks.findings(given, 2)
    assert [one.level.value for one in found] == levels
    assert any(words in one.text for one in found)
    assert all(bool(one.fix) == (one.level is not Level.OK) for one in found)
