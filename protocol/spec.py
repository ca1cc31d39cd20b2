"""The job's specification: all that a worker and a verifier need to compute the one valid transcript.

It travels only to the winner and the committee. The announce carries its hash; `secret` keeps the hash from telling
anything. No floats: hyper-parameters are integers with scale 10^6 (`_micro`).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .limits import GRAPH_MAX_BYTES, SEGMENTS_MAX, STEPS_MAX

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
CidText = Annotated[str, Meta(max_length=128, pattern=r"^b[a-z2-7]{20,120}\Z")]


class TrainSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One training job, complete. Steps are numbered from 0; segment i covers steps [i*K, min((i+1)*K, steps))."""

    graph: Annotated[bytes, Meta(max_length=GRAPH_MAX_BYTES)]
    """Canonical JSON of the model graph."""
    train_cid: CidText
    """Safetensors blob with tensors `x` and `y`."""
    validation_cid: CidText
    loss: Literal["cross_entropy", "mse"]
    optimizer: Literal["adamw", "sgd"]
    learning_rate_micro: Annotated[int, Meta(ge=1, le=10_000_000)]
    weight_decay_micro: Annotated[int, Meta(ge=0, le=1_000_000)]
    momentum_micro: Annotated[int, Meta(ge=0, le=999_999)]
    batch_size: Annotated[int, Meta(ge=1, le=65_536)]
    epochs: Annotated[int, Meta(ge=1, le=10_000)]
    steps: Annotated[int, Meta(ge=1, le=STEPS_MAX)]
    """epochs * (training examples // batch_size); a dataset that gives another number is refused."""
    steps_per_segment: Annotated[int, Meta(ge=1, le=STEPS_MAX)]
    seed: Annotated[int, Meta(ge=0, le=2**53)]
    secret: Bytes32

    @property
    def segments(self) -> int:
        """Number of segments, which is also the number of units that the escrow pays for."""
        return -(-self.steps // self.steps_per_segment)

    def segment_steps(self, segment: int) -> range:
        """The steps of `segment` (0-based)."""
        first = segment * self.steps_per_segment
        return range(first, min(first + self.steps_per_segment, self.steps))


def steps_per_segment(steps: int, segments: int = SEGMENTS_MAX) -> int:
    """K for a wished number of segments: at least one step each."""
    return max(1, -(-steps // segments))


def encode_spec(spec: msgspec.Struct) -> bytes:
    """The bytes that travel and are hashed."""
    return msgspec.msgpack.encode(spec)


def spec_hash(encoded: bytes) -> bytes:
    """sha256 of the encoded spec: named by the announce and by the escrow account."""
    return sha256(encoded).digest()
