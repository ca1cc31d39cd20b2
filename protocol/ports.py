"""The seams between the node and the world. A Node is built from these and from nothing else (DESIGN 13).

Each port has a real adapter (libp2p, Solana RPC, torch, files, LevelDB) and an in-memory one that ships with the
package, which the simulator and the tests use. All coroutines are trio's and may be cancelled at any await.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from .chain import Balance, ChainConfig, ChainTime, Instruction, JobAccount, NodeAccount, Settle
from .inference import Generated, InferenceCheck, InferSpec, InferTask, ModelFiles, TokensGenerated
from .messages import ModelOffer
from .spec import TrainSpec
from .units import JobId, NodeId


class GossipVerdict(Enum):
    """What a validator says of a gossip message: REJECT also costs the forwarder; TAKEN is an ACCEPT of what the
    validator has already dealt with, so that it is forwarded but not delivered."""

    ACCEPT = "accept"
    TAKEN = "taken"
    IGNORE = "ignore"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class GossipMessage:
    """One message as delivered: `author` signed it, `forwarder` handed it to us. Own messages are not delivered."""

    topic: str
    author: NodeId
    forwarder: NodeId
    data: bytes


GossipValidator = Callable[[GossipMessage], GossipVerdict]
"""Synchronous and quick; runs before a message is delivered or forwarded. An exception counts as REJECT."""


class Stream(Protocol):
    """A framed, ordered, back-pressured stream of messages of at most FRAME_MAX_BYTES each."""

    @property
    def peer(self) -> NodeId: ...
    async def send(self, frame: bytes) -> None:
        """Send one frame. Raises PeerUnreachable when the stream is broken."""

    async def receive(self) -> bytes | None:
        """The next frame; None after the peer's clean end; PeerUnreachable when it broke off before it."""

    async def close(self) -> None:
        """End our side cleanly: the peer's `receive` returns None after the frames sent before."""

    async def reset(self) -> None:
        """Break the stream at once; never raises."""


RequestHandler = Callable[[NodeId, bytes], Awaitable[bytes]]
"""Answers one request. A raised Refusal travels back as its text; any other error as 'internal error'."""
StreamHandler = Callable[[Stream], Awaitable[None]]
"""Serves one inbound stream; the transport resets the stream when the handler raises."""


class Transport(Protocol):
    """Gossip, requests and streams between nodes that are named by their keys."""

    @property
    def node_id(self) -> NodeId: ...
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled: multiaddrs that end in /p2p/<peer id>."""

    def connected(self) -> frozenset[NodeId]:
        """Peers with a live connection."""

    def learn(self, node: NodeId, addresses: Sequence[str]) -> None:
        """Remember where `node` can be dialled; hostile addresses are dropped, at most ADDRESSES_MAX are kept."""

    async def connect(self, address: str) -> NodeId:
        """Dial a multiaddr with /p2p/; returns who answered. Raises PeerUnreachable, or LocalError on a bad address."""

    async def disconnect(self, node: NodeId) -> None: ...
    def subscribe(
        self, topic: str, validator: GossipValidator
    ) -> AbstractAsyncContextManager[AsyncIterator[GossipMessage]]:
        """Join a topic while the context is open. The queue holds GOSSIP_QUEUE_MAX; an overflow drops and logs."""

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip at most GOSSIP_MESSAGE_MAX_BYTES; LocalError above. Works without a subscription of our own."""

    def serve(self, protocol: str, handler: RequestHandler) -> None:
        """Answer requests of `protocol` (like '/cyx/1/spec')."""

    async def request(self, node: NodeId, protocol: str, payload: bytes, *, timeout_s: float) -> bytes:
        """Ask; dials when needed. Raises PeerUnreachable (also on timeout) or Refusal."""

    def serve_stream(self, protocol: str, handler: StreamHandler) -> None: ...
    async def open_stream(self, node: NodeId, protocol: str) -> Stream:
        """Open a stream; dials when needed. Raises PeerUnreachable."""


class Chain(Protocol):
    """The escrow program and its accounts, as one signer sees them."""

    @property
    def program(self) -> bytes: ...
    @property
    def signer(self) -> NodeId: ...
    async def config(self) -> ChainConfig: ...
    async def time(self) -> ChainTime: ...
    async def node(self, node: NodeId) -> NodeAccount | None: ...
    async def nodes(self) -> list[NodeAccount]: ...
    async def job(self, job: JobId) -> JobAccount | None: ...
    def derivations(self, job: JobId) -> int:
        """How many addresses the program has to try when the job is opened, at least 2: each costs it compute units."""

    async def settlements(self, job: JobId) -> list[Settle]:
        """What has settled a job so far, oldest first, with the signatures that the chain verified."""

    async def slot_hash(self, slot: int) -> bytes | None:
        """The hash of `slot` from SlotHashes; None when it is too old or still to come."""

    async def balance(self, owner: bytes) -> Balance: ...
    async def submit(self, instruction: Instruction) -> str:
        """Sign, send and confirm; returns the transaction's signature (base58).

        Raises ChainRejected when the cluster executed it and it failed, ChainUnreachable when it did not answer.
        Retries with a fresh blockhash only when the earlier transaction can no longer land.
        """


@dataclass(frozen=True, slots=True)
class TrainTask:
    """A spec with its data: each blob is safetensors with tensors `x` and `y`."""

    spec: TrainSpec
    train: bytes
    validation: bytes


@dataclass(frozen=True, slots=True)
class BatchDone:
    """Live metrics (FEATURES 21), at most one per PROGRESS_INTERVAL_MS. Scale 10^6 where `_micro`."""

    step: int
    epoch: int
    batch_loss_micro: int
    batch_accuracy_micro: int
    batch_time_us: int
    learning_rate_micro: int


@dataclass(frozen=True, slots=True)
class EpochDone:
    """Metrics at the end of an epoch (0-based)."""

    epoch: int
    epoch_loss_micro: int
    validation_loss_micro: int
    validation_accuracy_micro: int


@dataclass(frozen=True, slots=True)
class SegmentDone:
    """End of a segment. `index` 0 is the state that follows from the seed (`losses` empty)."""

    index: int
    state_hash: bytes
    losses: bytes
    """Per-step float32 losses of the segment, little-endian bits."""
    state: bytes
    """Safetensors of model, optimizer, buffers and cursor: the start state of the next segment."""


TrainEvent = BatchDone | EpochDone | SegmentDone


@dataclass(frozen=True, slots=True)
class TrainDone:
    """Outcome of a training."""

    weights: bytes
    """Safetensors of the model alone."""
    final_loss_micro: int
    final_accuracy_micro: int
    best_epoch: int
    total_time_ms: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What a verifier computed from a fetched start state."""

    start_hash: bytes
    end_hash: bytes
    losses: bytes


@dataclass(frozen=True, slots=True)
class Comparison:
    """A replay beside the end state that the worker claims. `deviation_ppm`: the distance between both, in parts per
    million of the segment's own update, at most DEVIATION_MAX_PPM."""

    end_hash: bytes
    claimed_hash: bytes
    deviation_ppm: int


@dataclass(frozen=True, slots=True)
class ResultCheck:
    """Delivered weights against the final state, and the held-out metrics recomputed."""

    state_hash: bytes
    weights_match: bool
    loss_micro: int
    accuracy_micro: int


class RunnerSession(Protocol):
    """One task in one single-use, sandboxed process. Raises LocalError when the task is invalid, ExecutionFailed
    when the computation died; after either the session is over."""

    async def train(self, emit: Callable[[TrainEvent], Awaitable[None]]) -> TrainDone: ...
    async def initial_state(self) -> bytes:
        """State hash that follows from the spec's seed."""

    async def replay(self, segment: int, state: bytes) -> Replay:
        """Re-run segment `segment` (0-based) from the safetensors `state`."""

    async def compare(self, segment: int, state: bytes, claimed: bytes) -> Comparison:
        """Re-run a segment and measure how far its end is from the safetensors `claimed`."""

    async def check_result(self, final_state: bytes, weights: bytes) -> ResultCheck: ...


class Runner(Protocol):
    """Makes sessions. Bits are equal between runners of one `execution_class`."""

    @property
    def execution_class(self) -> bytes: ...
    @property
    def description(self) -> dict[str, str]:
        """What the class digest covers (torch build, CPU or GPU, threads, flags), `device`, and whether `sandboxed`."""

    def prepare(self) -> None:
        """Work will come soon: warm up in the background. Never waits."""

    def session(self, task: TrainTask) -> AbstractAsyncContextManager[RunnerSession]: ...


class InferenceSession(Protocol):
    """One model with one task. Raises LocalError when task or model are invalid or do not fit one another (the
    requester's fault), ExecutionFailed when the computation died or the model is not here (this node's fault),
    TransientError when a model server does not answer; after any of them the session is over."""

    async def generate(self, emit: Callable[[TokensGenerated], Awaitable[None]]) -> tuple[Generated, ...]:
        """Answer every prompt, in order; pieces go to `emit` as they come."""

    async def check(self, generated: Generated) -> InferenceCheck:
        """Judge what a worker claims for one prompt. A malformed claim is not ok; it never raises for one."""


class Inference(Protocol):
    """A backend: makes sessions. Answers are equal between backends of one `execution_class`, which covers all that
    decides about them except the model."""

    @property
    def execution_class(self) -> bytes: ...
    @property
    def description(self) -> dict[str, str]: ...
    def inference_session(
        self, model: ModelFiles, task: InferTask
    ) -> AbstractAsyncContextManager[InferenceSession]: ...


class Models(Protocol):
    """The language models that a node serves, each on the backend of its kind."""

    def offers(self) -> tuple[ModelOffer, ...]:
        """What is served right now, at most MODELS_OFFERED_MAX, by name."""

    def prepare(self, model: bytes) -> None:
        """Work for the model with this id will come soon: load it in the background. Never waits."""

    def session(self, spec: InferSpec) -> AbstractAsyncContextManager[InferenceSession]:
        """A session for the spec's model and task. Entering raises ExecutionFailed when the model is not served here,
        or not on that backend, LocalError when the task cannot be one of this model, TransientError when a model
        server does not answer."""

    def gpu_utilization_ppm(self) -> int | None:
        """Of the GPU that models run on, just now; None where there is none or it does not tell."""


class Blobs(Protocol):
    """Content-addressed local store, and the segment states of running jobs beside it."""

    def put(self, data: bytes) -> str:
        """Store, and return the CID (UnixFS, CIDv1, raw leaves, as `ipfs add` prints)."""

    def get(self, cid: str) -> bytes | None: ...
    def put_state(self, job: JobId, index: int, data: bytes) -> None: ...
    def get_state(self, job: JobId, index: int) -> bytes | None: ...
    def drop_states(self, job: JobId) -> None: ...


class Journal(Protocol):
    """Ordered, durable key-value records. `put` returns after the record is on disk."""

    def put(self, key: bytes, value: bytes) -> None: ...
    def note(self, key: bytes, value: bytes) -> None:
        """As `put`, but on disk only with the next `put`: the end of the process loses nothing, a power cut may."""

    def get(self, key: bytes) -> bytes | None: ...
    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Records whose key starts with `prefix`, in key order."""

    def close(self) -> None: ...


class Clock(Protocol):
    """Wall time and monotonic time; timers use trio's own clock."""

    def unix_ms(self) -> int: ...
    def monotonic_ms(self) -> int: ...


class Randomness(Protocol):
    """Secrets and salts. The real one is the operating system's; the simulator's is seeded."""

    def bytes(self, count: int) -> bytes: ...
