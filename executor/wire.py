"""Frames between a node and its worker process: a big-endian u32 length, then MessagePack of {kind, body}.

Both sides bound a frame before they read it. The node does not trust its worker, which computes for strangers: each
body is decoded into exactly the type that belongs to its kind, and anything else is ExecutionFailed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import msgspec

from ..protocol.errors import CyxError, ExecutionFailed, LocalError, RemoteError
from ..protocol.inference import Generated, InferenceCheck, InferTask, ModelManifest, TokensGenerated
from ..protocol.limits import WORKER_FRAME_MAX_BYTES
from ..protocol.ports import BatchDone, Comparison, EpochDone, Replay, ResultCheck, SegmentDone, TrainDone

HEADER = struct.Struct(">I")


class Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message in either direction; `body` is decoded according to `kind`."""

    kind: str
    body: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Ready:
    """First frame of a worker: the class it computes in, its device, and what confines it."""

    description: dict[str, str]
    device: str
    seccomp: str


@dataclass(frozen=True, slots=True)
class LoadTask:
    """Node to worker, once: an encoded TrainSpec and the two datasets."""

    spec: bytes
    train: bytes
    validation: bytes


@dataclass(frozen=True, slots=True)
class Train:
    """Node to worker: train, and stream events."""


@dataclass(frozen=True, slots=True)
class InitialState:
    """Node to worker: hash the state that follows from the seed."""


@dataclass(frozen=True, slots=True)
class ReplaySegment:
    """Node to worker: re-run one segment."""

    segment: int
    state: bytes


@dataclass(frozen=True, slots=True)
class CompareSegment:
    """Node to worker: re-run one segment, and measure how far the claimed end is from it."""

    segment: int
    state: bytes
    claimed: bytes


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Node to worker: compare the delivered weights with the final state."""

    final_state: bytes
    weights: bytes


@dataclass(frozen=True, slots=True)
class LoadModel:
    """Node to worker, once, instead of LoadTask: a language model and what it is asked."""

    manifest: ModelManifest
    graph: bytes
    weights: bytes
    task: InferTask


@dataclass(frozen=True, slots=True)
class Generate:
    """Node to worker: answer every prompt, and stream tokens."""


@dataclass(frozen=True, slots=True)
class CheckGeneration:
    """Node to worker: judge a claimed answer."""

    claimed: Generated


@dataclass(frozen=True, slots=True)
class GenerationDone:
    """Answer to Generate."""

    answers: tuple[Generated, ...]


@dataclass(frozen=True, slots=True)
class StateHash:
    """Answer to InitialState."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Alive:
    """Nothing to report, still computing."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The command failed. `kind` says whose fault it is: local, remote or execution."""

    kind: str
    message: str
    field: str = ""
    fix: str = ""


COMMANDS = {
    kind.__name__: kind
    for kind in (
        LoadTask, Train, InitialState, ReplaySegment, CompareSegment, CheckResult, LoadModel, Generate, CheckGeneration,
    )
}  # fmt: skip
REPORTS = {
    kind.__name__: kind
    for kind in (
        Ready, BatchDone, EpochDone, SegmentDone, TrainDone, Replay, Comparison, ResultCheck, StateHash,
        TokensGenerated, GenerationDone, InferenceCheck, Alive, Failure,
    )
}  # fmt: skip
_ENCODER = msgspec.msgpack.Encoder()
_FRAMES = msgspec.msgpack.Decoder(Frame)


def encode_frame(message: object) -> bytes:
    """Length and payload. Raises ExecutionFailed when the message is too large."""
    payload = _ENCODER.encode({"kind": type(message).__name__, "body": message})
    if len(payload) > WORKER_FRAME_MAX_BYTES:
        raise ExecutionFailed(f"{type(message).__name__} takes {len(payload)} bytes")
    return HEADER.pack(len(payload)) + payload


def frame_length(header: bytes) -> int:
    """Bytes that follow a header. Raises ExecutionFailed when they are too many."""
    length: int = HEADER.unpack(header)[0]
    if length > WORKER_FRAME_MAX_BYTES:
        raise ExecutionFailed(f"a frame of {length} bytes")
    return length


def decode_frame(payload: bytes | bytearray, kinds: dict[str, Any]) -> object:
    """The message in `payload`, one of `kinds`. Raises ExecutionFailed on anything else."""
    try:
        frame = _FRAMES.decode(payload)
        return msgspec.msgpack.decode(frame.body, type=kinds[frame.kind])
    except (msgspec.MsgspecError, KeyError) as error:
        raise ExecutionFailed(f"the worker process sent nonsense: {str(error)[:80]}") from None


def to_failure(error: CyxError) -> Failure:
    """How an error travels to the node."""
    if isinstance(error, LocalError):
        return Failure("local", error.message, error.field, error.fix)
    return Failure("remote" if isinstance(error, RemoteError) else "execution", str(error))


def from_failure(failure: Failure) -> CyxError:
    """The error as the node raises it."""
    if failure.kind == "local":
        return LocalError(failure.message, field=failure.field, fix=failure.fix)
    return RemoteError(failure.message) if failure.kind == "remote" else ExecutionFailed(failure.message)
