"""A job in a few figures, its evidence, and where its time went."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronicles import AT_MS, FUNDED, PROOF, SETTLED, STATES, WORKED, told
from cyxnode.protocol.chain import Settle, Verdict
from cyxnode.protocol.envelope import seal
from cyxnode.protocol.receipt import fee_split
from cyxnode.protocol.units import JobId, MicroCyx, base58
from cyxnode.scheduler.chronicle_facts import AnyFact, Kept, Worked
from cyxnode.scheduler.explanation_left import OnChain
from cyxnode.scheduler.job_evidence import evidence_of
from cyxnode.scheduler.job_summary import summarise, summary_json
from cyxnode.scheduler.timeline import PARTS, parts, stays
from sample_job import AWARDED, JOB, MEMBERS, PAID, WORKER, claim, outcome
from sample_messages import GENESIS

NOW_MS = AT_MS + 60_000


def replaced(facts: tuple[AnyFact, ...], what: str, raw: bytes) -> tuple[AnyFact, ...]:
    return tuple(Kept(what=one.what, raw=raw) if isinstance(one, Kept) and one.what == what else one for one in facts)


def test_a_settled_job_in_a_few_figures() -> None:
    one = summarise(told(SETTLED), running=False)
    assert one.name == base58(JOB) and one.state == "settled" and not one.left and one.reason == ""
    assert one.cost == fee_split(PAID.price, PAID.units, 4, 1_000, 2_000)["amount"] > 0
    assert one.price == AWARDED.price and one.worker == base58(WORKER.node_id)
    assert set(one.verified_by) == {base58(key.node_id) for key in MEMBERS[:2]}
    assert one.result_uri == claim().model_weights_uri
    assert one.completed_in_ms is not None and one.completed_in_ms > 0
    assert one.notes == () and one.progress == {}


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("state", STATES)
def test_every_state_can_be_listed(state: str, running: bool) -> None:
    one = summarise(told(STATES[state]), running=running)
    facts = summary_json(one)
    assert facts["status"] and facts["what"] == "training of 64 steps"
    assert one.left == (not running and not told(STATES[state]).ended)
    assert one.left or state not in ("unsold", "failed", "expired") or one.reason
    assert (one.cost > 0) == (state in ("decided", "settled"))


def test_progress_is_told_while_there_is_more_to_come() -> None:
    running = told(STATES["running"])
    running.worked = (NOW_MS, WORKED)
    assert summarise(running, running=True).progress["progress_ppm"] == 430_000
    running.worked = (NOW_MS, Worked(progress_ppm=0, epoch=0, loss_micro=0, accuracy_micro=0, characters=5))
    assert summarise(running, running=True).progress == {"at_ms": NOW_MS, "characters": 5}


def test_what_the_chain_settled_after_submit_was_gone_is_told() -> None:
    paid = Settle(
        JobId(JOB), Verdict.OK, WORKER.node_id, MicroCyx(PAID.price), PAID.units, PAID.result_hash, 3, 0, 0, ()
    )
    one = summarise(told(STATES["running"]), running=False, chain=OnChain(None, paid))
    assert one.state == "settled" and one.left and one.cost > 0


@pytest.mark.parametrize("what", ["announce", "certificate", "claim", "outcome"])
def test_evidence_that_does_not_hold_is_named_and_costs_no_other(what: str) -> None:
    found = evidence_of(told(replaced(SETTLED, what, b"nonsense")))
    assert [note.split(" in the journal")[0] for note in found.notes] == [f"the {what}"]
    if what != "announce":
        assert found.terms is not None
        assert sum(one is None for one in (found.award, found.claim, found.outcome)) == 1


@given(st.sampled_from(["announce", "certificate", "claim", "outcome"]), st.data())
def test_no_flipped_bit_in_the_evidence_raises_or_passes(what: str, data: st.DataObject) -> None:
    honest = bytearray(getattr(PROOF, what))
    honest[data.draw(st.integers(0, len(honest) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    one = summarise(told(replaced(SETTLED, what, bytes(honest))), running=False)
    assert len(one.notes) == 1


def test_a_way_has_parts_without_gaps() -> None:
    read = told(SETTLED)
    way = parts(read, NOW_MS)
    assert [one.name for one in way] == [name for name, _ in PARTS]
    assert way[0].began_ms == AT_MS
    assert all(one.ended_ms == later.began_ms for one, later in pairwise(way))
    assert sum(one.lasted_ms for one in way) == read.stages["completed"] - AT_MS


def test_an_unfinished_way_lasts_until_now() -> None:
    way = parts(told(STATES["queued"]), NOW_MS)
    assert [(one.name, one.lasted_ms) for one in way] == [("queue", 60_000)]


def test_each_transition_has_its_cause_its_record_and_how_long_the_job_stayed() -> None:
    read = told(SETTLED)
    steps = stays(read, NOW_MS)
    assert [one.state for one in steps] == ["draft", *(phase.value for _, phase, _ in read.moves)]
    assert all(one.cause and one.id.startswith("1.") for one in steps)
    assert steps[-1].lasted_ms is None
    assert sum(one.lasted_ms or 0 for one in steps) == read.ended_at_ms - AT_MS
    unfinished = stays(told(STATES["running"]), NOW_MS)
    assert unfinished[-1].state == "running" and unfinished[-1].at_ms + (unfinished[-1].lasted_ms or 0) == NOW_MS


def test_an_outcome_without_its_quorum_is_none() -> None:
    alone = seal(MEMBERS[0], GENESIS, outcome(PAID, MEMBERS[:1]))
    one = summarise(told(replaced(SETTLED, "outcome", alone)), running=False)
    assert "1 valid signatures, 2 are needed" in one.notes[0]
    assert one.cost == 0 and not one.verified_by and not one.result_uri


def test_evidence_of_another_job_is_none() -> None:
    read = told(SETTLED)
    read.job = JobId(b"o" * 32)
    assert "another job" in evidence_of(read).notes[0]
    assert evidence_of(replace(told(SETTLED), funded=None)).announce is None
    assert FUNDED.units_total == 4
