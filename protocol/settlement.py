"""What a quorum signs to end a job, and how anyone checks it (DESIGN 7, 8)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from msgspec import structs

from . import codec
from .award import JobTerms
from .chain import Verdict
from .hashing import QuorumKind, claim_message, quorum_message, settle_digest
from .identity import KeyPair, verify
from .limits import FRAUD_QUORUMS, QUORUMS, SIGNATURE_BYTES
from .messages import Claim, Outcome
from .units import NodeId

NOBODY = NodeId(bytes(32))
NO_RESULT = bytes(32)
NO_SEAL = bytes(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class Settlement:
    """The fields that move money. `fee_mask` has bit i for the i-th member whose verdict counted."""

    verdict: Verdict
    worker: NodeId
    price: int
    units: int
    result_hash: bytes
    fee_mask: int

    @property
    def digest(self) -> bytes:
        return settle_digest(self.verdict, self.worker, self.price, self.units, self.result_hash, self.fee_mask)


def settle_message(terms: JobTerms, round_: int, settlement: Settlement) -> bytes:
    """The 40 bytes that a member signs; the first settlement of a job has sequence 0."""
    return quorum_message(QuorumKind.SETTLE, 0, round_, terms.context, settlement.digest)


def quorum_for(verdict: int, k: int) -> int:
    """Signatures that a settlement needs of a committee with `k` seats."""
    return FRAUD_QUORUMS[k] if verdict == Verdict.FRAUD else QUORUMS[k]


def result_hash(claim: Claim) -> bytes:
    """sha256 of the encoded claim with a seal of zeros: what the chain remembers of a result."""
    return sha256(codec.encode(structs.replace(claim, seal=NO_SEAL))).digest()


def sealed(terms: JobTerms, key: KeyPair, claim: Claim) -> Claim:
    """The claim with its worker's seal."""
    return structs.replace(claim, seal=key.sign(claim_message(0, terms.context, result_hash(claim))))


def is_sealed(terms: JobTerms, worker: NodeId, claim: Claim) -> bool:
    """Whether the claim bears the seal of `worker`."""
    return verify(worker, claim_message(0, terms.context, result_hash(claim)), claim.seal)


def settlement_of(outcome: Outcome) -> Settlement:
    """The settlement that an Outcome reports."""
    return Settlement(
        Verdict(outcome.verdict), NodeId(outcome.worker), outcome.price, outcome.units, outcome.result_hash,
        outcome.fee_mask,
    )  # fmt: skip


def signers(terms: JobTerms, outcome: Outcome) -> set[NodeId]:
    """The distinct members whose signatures under the outcome hold."""
    message = settle_message(terms, outcome.round, settlement_of(outcome))
    return {NodeId(n) for n, s in outcome.signatures if n in terms.committee and verify(n, message, s)}
