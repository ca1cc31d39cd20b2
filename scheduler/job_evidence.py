"""The signed evidence in a chronicle, opened and checked, each part by itself: a damaged one costs no other."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..protocol.award import CertifiedAward, JobTerms, check_certificate
from ..protocol.envelope import Signed, open_as
from ..protocol.errors import CyxError, RemoteError
from ..protocol.handover import check_handover, succeeded
from ..protocol.messages import AwardCertificate, Claim, HandoverCertificate, JobAnnounce, Outcome
from ..protocol.settlement import quorum_for, signers
from ..protocol.units import NodeId
from .chronicle import Chronicle


@dataclass(slots=True)
class JobEvidence:
    """What holds, and in `notes` what does not. All but the announce is there only with the terms to judge it by."""

    announce: Signed[JobAnnounce] | None = None
    terms: JobTerms | None = None
    award: CertifiedAward | None = None
    """With the worker and the price of the newest hand-over."""
    claim: Signed[Claim] | None = None
    outcome: Signed[Outcome] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def verified_by(self) -> tuple[NodeId, ...]:
        """The members whose signatures moved the money."""
        if self.terms is None or self.outcome is None:
            return ()
        return tuple(sorted(signers(self.terms, self.outcome.message)))


def evidence_of(told: Chronicle) -> JobEvidence:
    """Open what a chronicle keeps."""
    found = JobEvidence()
    for name, open_one in _OPENERS.items():
        raw = told.evidence.get(name)
        if raw is None:
            continue
        try:
            open_one(found, told, raw)
        except CyxError as error:
            found.notes.append(f"the {name} in the journal does not hold: {error}")
    return found


def _open_announce(found: JobEvidence, told: Chronicle, raw: bytes) -> None:
    if told.funded is None:
        return
    found.announce = open_as(raw, told.funded.genesis, JobAnnounce)
    if found.announce.message.job != told.job:
        found.announce = None
        raise RemoteError("it is of another job")
    if told.committee:
        committee = tuple(NodeId(node) for node in told.committee)
        found.terms = JobTerms(told.funded.genesis, found.announce.message, told.funded.open_slot, committee)


def _open_certificate(found: JobEvidence, told: Chronicle, raw: bytes) -> None:
    if found.terms is not None:
        found.award = check_certificate(found.terms, open_as(raw, found.terms.genesis, AwardCertificate).message)


def _open_handover(found: JobEvidence, told: Chronicle, raw: bytes) -> None:
    if found.terms is not None and found.award is not None:
        certificate = open_as(raw, found.terms.genesis, HandoverCertificate).message
        found.award = succeeded(found.award, check_handover(found.terms, found.award.award, certificate))


def _open_claim(found: JobEvidence, told: Chronicle, raw: bytes) -> None:
    if found.terms is None:
        return
    claim = open_as(raw, found.terms.genesis, Claim)
    if claim.message.job != found.terms.job:
        raise RemoteError("it is of another job")
    found.claim = claim


def _open_outcome(found: JobEvidence, told: Chronicle, raw: bytes) -> None:
    if found.terms is None:
        return
    outcome = open_as(raw, found.terms.genesis, Outcome)
    needed, valid = quorum_for(outcome.message.verdict, found.terms.announce.k), signers(found.terms, outcome.message)
    if len(valid) < needed:
        raise RemoteError(f"{len(valid)} valid signatures, {needed} are needed")
    found.outcome = outcome


_OPENERS = {
    "announce": _open_announce,
    "certificate": _open_certificate,
    "handover": _open_handover,
    "claim": _open_claim,
    "outcome": _open_outcome,
}
