"""The table of a job's life."""

from __future__ import annotations

import pytest

from cyxnode.scheduler.job import FINAL, TRANSITIONS, Job, JobEvent, JobPhase, step


def test_an_illegal_step_leaves_the_job_untouched_and_says_why() -> None:
    for phase in JobPhase:
        for event in JobEvent:
            if (phase, event) not in TRANSITIONS:
                job = Job(phase)
                after, refused = step(job, event, 1, "why")
                assert after is job
                assert refused == f"a job that is {phase.value} cannot be {event.value}"


def test_a_legal_step_is_remembered_with_its_time_and_cause() -> None:
    job, refused = step(Job(), JobEvent.ESCROW_CONFIRMED, 7, "tx")
    assert not refused
    assert (job.story[-1].at_ms, job.story[-1].phase, job.story[-1].cause) == (7, JobPhase.OPENED, "tx")


def test_final_phases_are_never_left() -> None:
    assert not [phase for phase, _ in TRANSITIONS if phase in FINAL]


@pytest.mark.parametrize("phase", [phase for phase in JobPhase if phase not in FINAL])
def test_every_other_phase_reaches_an_end(phase: JobPhase) -> None:
    reached, front = set(), {phase}
    while front:
        reached |= front
        front = {after for (before, _), after in TRANSITIONS.items() if before in front} - reached
    assert reached & FINAL


@pytest.mark.parametrize("event", [JobEvent.SETTLED, JobEvent.FAILED, JobEvent.EXPIRED])
def test_a_funded_job_can_end_at_any_time(event: JobEvent) -> None:
    funded = [JobPhase.OPENED, JobPhase.BIDDING, JobPhase.AWARDED, JobPhase.RUNNING, JobPhase.CLAIMED]
    assert all(step(Job(phase), event, 1, "")[0].phase in FINAL for phase in funded)


def test_money_in_escrow_can_be_unsold_while_bids_are_sought() -> None:
    assert step(Job(JobPhase.BIDDING), JobEvent.UNSOLD, 1, "")[0].phase is JobPhase.UNSOLD
    assert step(Job(JobPhase.OPENED), JobEvent.UNSOLD, 1, "")[0].phase is JobPhase.UNSOLD
