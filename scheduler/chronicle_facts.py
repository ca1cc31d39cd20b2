"""What a chronicle can hold: the happenings of a job as its requester wrote them down, and their encoding."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..protocol.fields import Amount, Count, Micro, Millis, Ppm, Text, Word
from ..protocol.limits import CHRONICLE_RECORD_MAX_BYTES, COMMITTEE_MAX, TEXT_MAX_CHARS
from ..protocol.spec import Bytes32

CAUSES_MAX = 16


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="fact"):
    """Root of all that a chronicle can hold."""


class Placed(Fact, frozen=True, tag="placed"):
    """The order. `results` is the folder for what it brings, empty when the caller keeps it itself; `process` is that
    of its `submit`, 0 when it is not told."""

    kind: Literal["train", "infer"]
    what: Text
    budget: Amount
    k: Count
    wait_ms: Millis
    work_seconds: Count
    results: Annotated[str, Meta(max_length=4096)]
    process: Count = 0


class Lacking(Fact, frozen=True, tag="lacking"):
    """Too few nodes to fund anything; `causes` counts why live ones do not fit."""

    fitting: Count
    needed: Count
    live: Count
    causes: Annotated[tuple[tuple[Word, Count], ...], Meta(max_length=CAUSES_MAX)]


class Named(Fact, frozen=True, tag="named"):
    """The job has an id; the transaction that funds it is sent next."""

    job: Bytes32


class Funded(Fact, frozen=True, tag="funded"):
    """The escrow as it was confirmed; `windows_ms` and `round_ms` are those of the auction."""

    genesis: Bytes32
    program: Bytes32
    execution_class: Bytes32
    open_slot: Annotated[int, Meta(ge=0)]
    budget: Amount
    work_deadline_s: Millis
    refund_at_s: Millis
    units_total: Count
    fee_bps: Count
    verifier_share_bps: Count
    windows_ms: Millis
    round_ms: Millis


class Seated(Fact, frozen=True, tag="seated"):
    """The committee that was drawn."""

    committee: Annotated[tuple[Bytes32, ...], Meta(max_length=COMMITTEE_MAX)]


class Moved(Fact, frozen=True, tag="moved"):
    """A transition of the job's machine, and its cause."""

    phase: Word
    cause: Text


class Reached(Fact, frozen=True, tag="reached"):
    """A stage that is no transition."""

    stage: Word
    detail: Text


class Troubled(Fact, frozen=True, tag="troubled"):
    """Something went wrong that did not end the job."""

    detail: Text


class Declined(Fact, frozen=True, tag="declined"):
    """A node would not bid."""

    node: Bytes32
    reason: Word
    hint: Text


class Kept(Fact, frozen=True, tag="kept"):
    """A signed envelope, as evidence; of hand-overs and claims the newest counts."""

    what: Literal["announce", "certificate", "handover", "claim", "outcome"]
    raw: Annotated[bytes, Meta(max_length=CHRONICLE_RECORD_MAX_BYTES)]


class Sent(Fact, frozen=True, tag="sent"):
    """A transaction of ours, or the settlement, by the name of its instruction."""

    name: Word
    signature: Annotated[str, Meta(max_length=96)]


class Worked(Fact, frozen=True, tag="worked"):
    """The newest progress: of a training its metrics, of an inference how many characters of answers have come."""

    progress_ppm: Ppm
    epoch: Count
    loss_micro: Micro
    accuracy_micro: Micro
    characters: Count


AnyFact = (
    Placed
    | Lacking
    | Named
    | Funded
    | Seated
    | Moved
    | Reached
    | Troubled
    | Declined
    | Kept
    | Sent
    | Worked
)  # fmt: skip
DURABLE = (Named, Moved)
"""What waits for the disk, and makes all before it durable with it."""
NEEDED = (Placed, *DURABLE)
"""Without which no job begins or goes on; a disk that refuses anything else ends none."""
BOUNDED = (Troubled, Declined)
"""What may come again and again: CHRONICLE_NOTES_MAX of one job are kept."""
FLEETING = (Lacking, Worked)
"""Of which only the newest counts: it is written over."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One record: when (Unix ms), and what."""

    at_ms: Millis
    fact: AnyFact


def clipped(text: str) -> str:
    """`text` as long as a record may have it."""
    return text if len(text) <= TEXT_MAX_CHARS else text[: TEXT_MAX_CHARS - 1] + "…"
