"""What a verification machine is told and what it decides: stimuli in the past tense, effects in the imperative."""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol.settlement import Settlement
from ..protocol.units import NodeId


@dataclass(frozen=True, slots=True)
class Finding:
    """A member's verdict. `mismatch_segment` is -1 where no segment is accused."""

    ok: bool
    mismatch_segment: int
    counted: bool


@dataclass(frozen=True, slots=True)
class Conviction:
    """Our replay of a segment ended in a state with hash `end_hash`, not in the claimed one.

    `gross`: the worker showed the state that it claimed, and it is further away than hardware explains
    (FRAUD_DEVIATION_PPM).
    """

    segment: int
    end_hash: bytes
    gross: bool


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    now_ms: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    reason: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class MemberLost:
    """Presence takes a member for dead: nobody waits for its verdict any longer."""

    member: NodeId
    now_ms: int


@dataclass(frozen=True, slots=True)
class ClaimReceived:
    """`failure` says why there is no result: the worker itself where it `owns_up`, else what is wrong with its claim.
    `blames_requester`: its spec or data did not come, or could not be computed by anyone. `units` are those that it
    wants to be paid for; None: all."""

    result_hash: bytes
    failure: str | None
    now_ms: int
    blames_requester: bool = False
    units: int | None = None
    owns_up: bool = False


@dataclass(frozen=True, slots=True)
class TaskSought:
    """We asked the requester for the spec and its data ourselves; whether we have them and could compute them. `reason`
    says why not."""

    found: bool
    now_ms: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SamplesReplayed:
    ok: bool
    mismatch_segment: int
    reason: str
    now_ms: int
    conviction: Conviction | None = None


@dataclass(frozen=True, slots=True)
class CommitReceived:
    member: NodeId
    raw: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class TracesOpened:
    """The worker answered; `refuted` is empty if the opening fits its trace commitments and what we computed."""

    refuted: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class FindingRevealed:
    member: NodeId
    finding: Finding
    reason: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class DisputeReplayed:
    segment: int
    mismatch: bool
    now_ms: int
    conviction: Conviction | None = None


@dataclass(frozen=True, slots=True)
class SegmentAccused:
    """A proposal of FRAUD rests on a segment that we have not replayed."""

    segment: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class HandedOver:
    """m members, perhaps without us, entitled the node at `rank` to do the work."""

    rank: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class OutcomeSeen:
    """The job is settled on chain."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    now_ms: int


@dataclass(frozen=True, slots=True)
class ReplaySamples:
    pass


@dataclass(frozen=True, slots=True)
class SeekTask:
    """Find out whether the requester serves the spec and its data."""


@dataclass(frozen=True, slots=True)
class SendCommit:
    """Seal our finding and send it to the members and the worker."""

    finding: Finding


@dataclass(frozen=True, slots=True)
class AskOpening:
    commits: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SendReveal:
    pass


@dataclass(frozen=True, slots=True)
class ReplayDisputed:
    segment: int


@dataclass(frozen=True, slots=True)
class ProposeHandover:
    """Collect signatures for the node at `rank`, and make them the certificate."""

    rank: int
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProposeSettlement:
    """`proof` is what FRAUD rests on."""

    round: int
    settlement: Settlement
    reason: str
    proof: Conviction | None = None


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


Stimulus = (
    WorkerStarted | WorkerLost | MemberLost | ClaimReceived | TaskSought | SamplesReplayed | CommitReceived
    | TracesOpened | FindingRevealed | DisputeReplayed | SegmentAccused | HandedOver | OutcomeSeen | TimePassed
)  # fmt: skip
Effect = (
    ReplaySamples | SeekTask | SendCommit | AskOpening | SendReveal | ReplayDisputed | ProposeHandover
    | ProposeSettlement | GiveUp
)  # fmt: skip
