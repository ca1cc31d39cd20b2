"""What a worker tells of its job while somebody may listen (DESIGN 3, 6)."""

from __future__ import annotations

import trio

from ..protocol.limits import STATUS_DIGEST_INTERVAL_MS
from ..protocol.messages import JobStatus
from ..protocol.validation import job_topic
from .wire import Wire
from .worker_service import WorkRun


async def speak_status(wire: Wire, work: WorkRun) -> None:
    """A digest of a running job, for `job watch`, until it is over here."""
    sequence = 0
    while not work.over:
        progress = work.last_progress()
        status = JobStatus(
            job=work.job,
            sequence=sequence,
            sent_at_ms=wire.clock.unix_ms(),
            state="running",
            progress_ppm=progress.progress_ppm if progress else 0,
            epoch=progress.current_epoch if progress else 0,
            loss_micro=progress.batch_loss_micro if progress else 0,
            accuracy_micro=progress.batch_accuracy_micro if progress else 0,
        )
        await wire.publish(job_topic(work.job), status)
        sequence += 1
        await trio.sleep(STATUS_DIGEST_INTERVAL_MS / 1000)
