"""Those who order jobs, and what came of each: the same desks stand in virtual worlds and among real processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import trio

from ..protocol.errors import CyxError
from ..protocol.inference import InferTask
from ..protocol.limits import MICRO
from ..protocol.ports import Blobs
from ..protocol.spec import TrainSpec, steps_per_segment
from ..protocol.units import MicroCyx
from ..scheduler.requester_service import InferOrder, JobResult, News, Order, RequesterService, Stage, TrainOrder
from .plan import MFLOP_PER_S, MFLOP_PER_STEP, MODEL_NAME, PREDICTED, Plan, is_inference, job_steps

WAN_WINDOW_MS = 2_000
"""Commit and reveal windows, and rounds, of jobs whose bidders are all over the globe (DESIGN 5)."""
WORK_SECONDS = 180
"""How long a worker may take, from the opening of its job."""


@dataclass(slots=True)
class JobRecord:
    """One job of the market. Times are seconds of the world; None until reached."""

    number: int
    requester: str
    at_s: float
    stages: dict[str, float] = field(default_factory=dict)
    result: JobResult | None = None
    error: str = ""

    def between_ms(self, start: str, end: str) -> float | None:
        """Milliseconds from one stage to another, if both were reached."""
        if start not in self.stages or end not in self.stages:
            return None
        return 1000 * (self.stages[end] - self.stages[start])


@dataclass(slots=True)
class Desk:
    """A requester with its queue of orders. `order` makes the job of a number and puts its data into the blobs; `now_s`
    is the world's time, and `tell` its timeline."""

    name: str
    order: Callable[[int, Blobs], Order]
    now_s: Callable[[], float]
    tell: Callable[[str, str], None]
    service: RequesterService | None = None
    current: JobRecord | None = None
    lock: trio.Lock = field(default_factory=trio.Lock)

    def observe(self, news: News) -> None:
        """News of the current job."""
        if isinstance(news, Stage) and self.current is not None:
            self.current.stages.setdefault(news.name, self.now_s())
            self.tell("job", f"{self.current.number} {news.name} {news.detail}")

    async def submit(self, record: JobRecord) -> None:
        """Run one job to its end; jobs of one requester run one after another."""
        async with self.lock:
            assert self.service is not None
            self.current = record
            try:
                record.result = await self.service.submit(self.order(record.number, self.service.blobs))
            except CyxError as error:
                record.error = str(error)
                self.tell("job", f"{record.number} error {error}")


def any_order(plan: Plan, number: int, blobs: Blobs) -> Order:
    """The job of a number, of whichever kind the plan gives it."""
    return simulated_prompt(plan, number) if is_inference(plan, number) else simulated_order(plan, number, blobs)


def simulated_prompt(plan: Plan, number: int) -> InferOrder:
    """An inference that follows from the seed and its number: one to four prompts."""
    rng = Random(f"{plan.seed}/prompt/{number}")
    prompts = tuple(f"Which word is number {rng.randrange(10**9)}?" for _ in range(rng.randint(1, 4)))
    return InferOrder(
        model=MODEL_NAME,
        task=InferTask(prompts=prompts, num_predict=PREDICTED, seed=rng.randrange(2**53)),
        budget=MicroCyx(0),
        unsandboxed_ok=True,
        k=plan.k,  # type: ignore[arg-type]
        work_seconds=WORK_SECONDS,
        commit_window_ms=WAN_WINDOW_MS,
        reveal_window_ms=WAN_WINDOW_MS,
        round_ms=WAN_WINDOW_MS,
    )


def simulated_spec(
    train_cid: str, validation_cid: str, steps: int, segments: int, *, seed: int, secret: bytes
) -> TrainSpec:
    """A training for simulated runners, to whom only its size matters, and that it differs from others."""
    return TrainSpec(
        graph=b"{}",
        train_cid=train_cid,
        validation_cid=validation_cid,
        loss="cross_entropy",
        optimizer="adamw",
        learning_rate_micro=1_000,
        weight_decay_micro=0,
        momentum_micro=0,
        batch_size=32,
        epochs=1,
        steps=steps,
        steps_per_segment=steps_per_segment(steps, segments),
        seed=seed,
        secret=secret,
    )


def simulated_order(
    plan: Plan, number: int, blobs: Blobs, work_seconds: int = WORK_SECONDS, mflop_per_s: int = MFLOP_PER_S
) -> TrainOrder:
    """A job for simulated runners that follows from the seed and its number: `job_steps` steps of MFLOP_PER_STEP."""
    rng = Random(f"{plan.seed}/job/{number}")
    steps = job_steps(plan, number)
    data = blobs.put(rng.randbytes(64))
    return TrainOrder(
        spec=simulated_spec(data, data, steps, 64, seed=rng.randrange(2**53), secret=rng.randbytes(32)),
        budget=10 * MICRO,  # type: ignore[arg-type]
        work_mflop=steps * MFLOP_PER_STEP,
        mflop_per_s=mflop_per_s,
        unsandboxed_ok=True,
        k=plan.k,  # type: ignore[arg-type]
        work_seconds=work_seconds,
        commit_window_ms=WAN_WINDOW_MS,
        reveal_window_ms=WAN_WINDOW_MS,
        round_ms=WAN_WINDOW_MS,
    )
