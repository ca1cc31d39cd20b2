"""Messages of presence: who lives, what it offers, and whom it knows (DESIGN 3)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from .fields import Addresses, Amount, Count, Evidence, Message, Millis, Text, Word
from .limits import (
    CONTEXT_MAX,
    DATASETS_MAX,
    ID_BYTES,
    MODEL_NAME_MAX_CHARS,
    MODELS_OFFERED_MAX,
    PEERS_ASKED_MAX,
    RECORDS_MAX,
)
from .spec import Bytes32, CidText


class Heartbeat(Message, frozen=True):
    """A node lives. `sequence` only rises (Unix ms); `membership_digest` is `hashing.membership_digest` over itself and
    the nodes of its cell, one of the `shards` of its class, that it hears by gossip."""

    sequence: Millis
    sent_at_ms: Millis
    status: Literal["idle", "busy", "draining"]
    queue_length: Count
    running: Count
    load_ppm: Count
    shards: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    membership_digest: Bytes32


class ModelOffer(Message, frozen=True):
    """A model that a node serves, and at what price.

    Two offers are of one kind, so that one can check the other's answers, when `model` and `backend` are equal.
    """

    name: Annotated[str, Meta(max_length=MODEL_NAME_MAX_CHARS, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*\Z")]
    kind: Literal["torch", "gguf", "ollama"]
    model: Bytes32
    """`inference.model_id` of the manifest."""
    backend: Bytes32
    """The execution class of what computes it."""
    quantisation: Annotated[str, Meta(max_length=16)]
    context_length: Annotated[int, Meta(ge=2, le=CONTEXT_MAX)]
    prompt_rate: Amount
    """Micro-CYX for 1,000 tokens that are read."""
    generated_rate: Amount
    """Micro-CYX for 1,000 tokens that are written."""
    tokens_per_s_micro: Millis
    """Tokens that the node writes in a second, as it measured them, scale 10^6; 0: not measured yet."""
    warm: bool
    """Loaded, so that an answer begins at once."""


class Capability(Message, frozen=True):
    """What a node offers. What could not be read is absent from `hardware`."""

    sequence: Millis
    sent_at_ms: Millis
    execution_class: Bytes32
    device: Literal["cpu", "cuda"]
    memory_mb: Count
    sandbox: Word
    rate_micro_per_s: Amount
    region: Word
    datasets: Annotated[tuple[CidText, ...], Meta(max_length=DATASETS_MAX)]
    version: Word
    verifier: bool
    addresses: Addresses
    hardware: Annotated[dict[Word, Text], Meta(max_length=32)]
    models: Annotated[tuple[ModelOffer, ...], Meta(max_length=MODELS_OFFERED_MAX)] = ()


class PeersRequest(Message, frozen=True):
    """Ask a peer for the capability records that it knows; answered by a PeersAnswer."""

    capability: Evidence
    """The asker's own Capability envelope, empty when it offers nothing."""
    heartbeat: Evidence = b""
    """Its last Heartbeat envelope, empty while there is none."""
    execution_class: Annotated[bytes, Meta(max_length=ID_BYTES)] = b""
    """Nodes of this class first; empty for any."""
    wanted: Annotated[tuple[Bytes32, ...], Meta(max_length=PEERS_ASKED_MAX)] = ()
    """Nodes that are asked for by name: they come before all others."""


class PeersAnswer(Message, frozen=True):
    """Capability records and last heartbeats that the answerer knows, from a random node on; its own come first."""

    records: Annotated[tuple[Evidence, ...], Meta(max_length=RECORDS_MAX)]
    silent_ms: Annotated[tuple[Count, ...], Meta(max_length=RECORDS_MAX)]
    """For each record, how long the answerer has heard nothing of its author."""

    def __post_init__(self) -> None:
        if len(self.silent_ms) != len(self.records):
            raise ValueError("records and silent_ms have different lengths")
