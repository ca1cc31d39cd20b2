"""What an auction machine is told and what it decides: stimuli in the past tense, effects in the imperative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..protocol.units import NodeId


@dataclass(frozen=True, slots=True)
class Reveal:
    """A bid that opened its commit, with its price. `raw` is the signed envelope."""

    digest: bytes
    raw: bytes
    price: int


@dataclass(frozen=True, slots=True)
class CommitSeen:
    bidder: NodeId
    commitment: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class DeclineSeen:
    node: NodeId
    now_ms: int


@dataclass(frozen=True, slots=True)
class RevealSeen:
    """`price` is that of the decoded bid."""

    bidder: NodeId
    bid: bytes
    salt: bytes
    price: int
    raw: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class CommitteeSeated:
    committee: tuple[NodeId, ...]
    now_ms: int


@dataclass(frozen=True, slots=True)
class TallyReceived:
    """A member's signed tally reached us as leader."""

    member: NodeId
    raw: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class VoteReceived:
    member: NodeId
    round: int
    raw: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class Certified:
    """A valid certificate was seen."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    now_ms: int


@dataclass(frozen=True, slots=True)
class PublishCommit:
    commitment: bytes


@dataclass(frozen=True, slots=True)
class PublishReveal:
    bid: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class SendTally:
    leader: NodeId
    bids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Propose:
    """Ask the members to vote on what these signed tallies and reveals amount to."""

    round: int
    tallies: tuple[bytes, ...]
    reveals: Mapping[NodeId, Reveal]


@dataclass(frozen=True, slots=True)
class PublishCertificate:
    round: int
    votes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DeclareUnsold:
    reason: str


Stimulus = (
    CommitSeen | DeclineSeen | RevealSeen | CommitteeSeated | TallyReceived | VoteReceived | Certified | TimePassed
)
Effect = PublishCommit | PublishReveal | SendTally | Propose | PublishCertificate | DeclareUnsold
