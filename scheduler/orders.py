"""What a user asks for, what it hears while it waits, and what it gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..protocol.errors import LocalError
from ..protocol.inference import Answers, InferSpec, InferTask, prompt_tokens_most
from ..protocol.limits import CLASS_WAIT_MS, COMMIT_WINDOW_MS, REVEAL_WINDOW_MS, ROUND_MS
from ..protocol.messages import Capability, InferTerms, ModelOffer, Progress, ScoreWeights, Tokens, least_price
from ..protocol.spec import TrainSpec
from ..protocol.units import JobId, MicroCyx, format_cyx
from .chronicle import name_of
from .job import Job, JobPhase
from .pricing import price_of, price_of_tokens
from .requirements import ModelWish, Requirements


def check_budget(budget: MicroCyx, k: int, *, field: str) -> None:
    """LocalError for a budget of which each of `k` verifiers could not be paid anything."""
    if budget < least_price(k):
        least = format_cyx(MicroCyx(least_price(k)))
        text = f"{format_cyx(budget)} CYX pays no share to each of {k} verifiers"
        raise LocalError(text, field=field, fix=f"offer {least} CYX or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(ABC):
    """What every order says. A budget of 0 stands for the highest live price at the time of funding; any other is at
    least `least_price`, or LocalError is raised."""

    budget: MicroCyx
    device: Literal["any", "cpu", "cuda"] = "any"
    memory_mb: int = 0
    region: str = ""
    unsandboxed_ok: bool = False
    k: Literal[3, 5, 7] = 5
    samples: int = 2
    work_seconds: int = 600
    class_wait_ms: int = CLASS_WAIT_MS
    commit_window_ms: int = COMMIT_WINDOW_MS
    reveal_window_ms: int = REVEAL_WINDOW_MS
    round_ms: int = ROUND_MS
    weights: ScoreWeights = field(default_factory=ScoreWeights)

    def __post_init__(self) -> None:
        if self.budget:
            check_budget(self.budget, self.k, field="budget")

    @property
    @abstractmethod
    def kind(self) -> Literal["train", "infer"]:
        """Of the announce."""

    @property
    @abstractmethod
    def what(self) -> str:
        """What is ordered, in a few words that tell nothing secret."""

    @property
    @abstractmethod
    def segments(self) -> int:
        """Parts that are checked one by one."""

    @property
    def requirements(self) -> Requirements:
        """What the order asks of nodes."""
        return Requirements(self.device, self.memory_mb, self.region, self.unsandboxed_ok)

    @abstractmethod
    def price_at(self, offer: Capability) -> int:
        """What a fitting node's rates come to for all of it, in micro-CYX."""

    def prices(self, offers: Sequence[Capability]) -> list[int]:
        """What fitting nodes would ask."""
        return [max(self.price_at(offer), least_price(self.k)) for offer in offers]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOrder(Order):
    """A training. The spec's data is already in the blob store under its CIDs."""

    spec: TrainSpec
    work_mflop: int
    mflop_per_s: int = 5_000

    @property
    def kind(self) -> Literal["train", "infer"]:
        return "train"

    @property
    def what(self) -> str:
        return f"training of {self.spec.steps} steps"

    @property
    def segments(self) -> int:
        return self.spec.segments

    def price_at(self, offer: Capability) -> int:
        """Seconds times rate."""
        return price_of(self.work_mflop, self.mflop_per_s, offer.rate_micro_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferOrder(Order):
    """An inference. `model` is a name or an id, see ModelWish; the model itself is chosen among those on the market."""

    model: str
    task: InferTask

    @property
    def kind(self) -> Literal["train", "infer"]:
        return "infer"

    @property
    def what(self) -> str:
        prompts = len(self.task.prompts)
        return f"{prompts} prompt{'s' if prompts > 1 else ''} to {self.model}"

    @property
    def segments(self) -> int:
        return len(self.task.prompts)

    @property
    def requirements(self) -> Requirements:
        return Requirements(self.device, self.memory_mb, self.region, self.unsandboxed_ok, ModelWish(self.model))

    def price_at(self, offer: Capability) -> int:
        """All tokens that there can be. 0 when the node does not serve the model."""
        served = ModelWish(self.model).served(offer)
        return price_of_tokens(self.prompt_tokens, self.generated_tokens, served) if served is not None else 0

    @property
    def prompt_tokens(self) -> int:
        """At most."""
        return prompt_tokens_most(self.task)

    @property
    def generated_tokens(self) -> int:
        """At most."""
        return len(self.task.prompts) * self.task.num_predict

    def terms(self, chosen: ModelOffer) -> InferTerms:
        """What bidders learn."""
        return InferTerms(
            model=chosen.model,
            backend=chosen.backend,
            prompt_tokens=self.prompt_tokens,
            generated_tokens=self.generated_tokens,
        )

    def spec(self, chosen: ModelOffer, secret: bytes) -> InferSpec:
        """What worker and committee learn; `secret` are 32 random bytes."""
        return InferSpec(model=chosen.model, backend=chosen.backend, task=self.task, secret=secret)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an order comes from, for its chronicle: the folder in which the caller will put what it brings, and the
    process that waits for it. Empty and 0 where there are none."""

    results: str = ""
    process: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """News: the job reached a stage."""

    name: str
    at_ms: int
    detail: str


News = Stage | Progress | Tokens
"""Tokens: a piece of an answer, not verified yet."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended. `weights` (of a training) and `answers` (of an inference) are None unless it ended OK;
    `receipt` is None when no quorum settled it (never funded, or expired and refunded). `declines` counts the nodes
    that would not bid, by reason."""

    job: JobId
    phase: JobPhase
    reason: str
    weights: bytes | None
    receipt: dict[str, Any] | None
    story: Job
    declines: dict[str, int] = field(default_factory=dict)
    answers: Answers | None = None
    number: int = 0

    @property
    def name(self) -> str:
        """The job's id, or the order's number when it never had one."""
        return name_of(self.job if any(self.job) else None, self.number)

    @property
    def delivered(self) -> bool:
        """Whether the requester has what it paid for."""
        return self.weights is not None or self.answers is not None
